"""A swarm for people to look at: its hops and its peers, as they are now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gptnode.net.host import Host
from gptnode.node.peer_book import PeerBook
from gptnode.node.planning import Planner
from gptnode.node.remote_stage import RemoteStage
from gptnode.node.stages import Stage
from gptnode.node.watching import WatchedStage
from gptnode.routing.entries import NO_ENDS, PlacedEnds
from gptnode.span import Span

__all__ = ["HopView", "PeerView", "Views"]


@dataclass(frozen=True, slots=True)
class HopView:
    """A hop of the route."""

    label: str
    peer_id: str | None
    span: Span
    state: str
    round_trip_s: float | None
    replicas: tuple[str, ...]
    ends: PlacedEnds = NO_ENDS


@dataclass(frozen=True, slots=True)
class PeerView:
    """A peer of the map."""

    label: str
    peer_id: str
    addrs: tuple[str, ...]
    spans: tuple[Span, ...]
    state: str
    round_trip_s: float | None


class Views:
    """Makes views of what a planner and a host know."""

    def __init__(self, planner: Planner, host: Host | None, book: PeerBook) -> None:
        """``book``: what people call the peers, and where they are."""
        self._planner = planner
        self._host = host
        self._book = book

    def hops(self, stages: Sequence[Stage]) -> tuple[HopView, ...]:
        """``stages``, and where they leave gaps the hops that would be used."""
        wished = self._planner.outlook()
        hop_of = {block: hop for hop in wished for block in hop.span}
        views = {
            stage.span: self._hop(
                stage.peer_id, stage.span, hop_of[stage.span.start].peer_ids, stages
            )
            for stage in stages
        }
        for gap in self._planner.gaps(list(views)):
            for hop in wished:
                start, stop = max(gap.start, hop.span.start), min(gap.stop, hop.span.stop)
                if start < stop:
                    peer_id, span = next(iter(hop.peer_ids), None), Span(start, stop)
                    views[span] = self._hop(peer_id, span, hop.peer_ids, stages)
        return tuple(views[span] for span in sorted(views))

    def peers(self, model: str, stages: Sequence[Stage]) -> tuple[PeerView, ...]:
        """All peers of the map, and what it gives them of ``model``; ``stages``: those in use."""
        blocks_map = self._planner.blocks_map
        if blocks_map is None or self._host is None:
            return ()
        return tuple(
            PeerView(
                entry.label,
                entry.id,
                self._book.addrs(entry.id),
                blocks_map.spans_of(entry.id, model),
                self._state(entry.id),
                _round_trip_s(entry.id, stages),
            )
            for entry in blocks_map.peers
        )

    def _hop(
        self, peer_id: str | None, span: Span, peer_ids: tuple[str, ...], stages: Sequence[Stage]
    ) -> HopView:
        own_id = self._host.peer_id if self._host is not None else None
        others = tuple(other for other in peer_ids if other != (peer_id or own_id))
        peer_id = None if peer_id == own_id else peer_id
        return HopView(
            self._book.label(peer_id),
            peer_id,
            span,
            self._state(peer_id),
            _round_trip_s(peer_id, stages),
            tuple(self._book.label(other) for other in others),
            self._planner.hop((), span).ends,
        )

    def _state(self, peer_id: str | None) -> str:
        if peer_id is None or (self._host is not None and peer_id == self._host.peer_id):
            return "local"
        trouble = self._planner.health.trouble(peer_id)
        if trouble is not None:
            return trouble.kind.value
        connected = self._host is not None and peer_id in self._host.connected()
        return "connected" if connected else "idle"


def _round_trip_s(peer_id: str | None, stages: Sequence[Stage]) -> float | None:
    for stage in stages:
        if isinstance(stage, RemoteStage | WatchedStage) and stage.peer_id == peer_id:
            return stage.round_trip_s
    return None
