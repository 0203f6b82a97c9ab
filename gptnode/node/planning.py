"""Which peer is to run which blocks: the map's will, the peers' health, and what is open already.

Knows no connections; who failed how is told to its PeerHealth.
"""

from __future__ import annotations

from collections.abc import Iterable

import trio

from gptnode.errors import GptNodeError, PeerUnreachableError, RouteError
from gptnode.node.health import PeerHealth, TroubleKind
from gptnode.routing.blocks_map import BlocksMap
from gptnode.routing.entries import NO_ENDS, PlacedEnds
from gptnode.routing.route import Hop, plan_route
from gptnode.span import Span

__all__ = ["Planner", "why"]

AVOID = (
    tuple(TroubleKind),
    # A slow peer is better than none.
    (TroubleKind.LOST, TroubleKind.BUSY, TroubleKind.DOWN, TroubleKind.WRONG),
    # And one that broke off may be back at once.
    (TroubleKind.BUSY, TroubleKind.DOWN, TroubleKind.WRONG),
)
REPLACEABLE_FOR_S = 1.0


class Planner:
    """Plans hops over one model. Without a map all blocks are this node's own."""

    def __init__(self, model: str, n_blocks: int, own_id: str | None) -> None:
        """``own_id``: of this node, preferred for the blocks that the map gives to it."""
        self.health = PeerHealth()
        self.blocks_map: BlocksMap | None = None
        self._model = model
        self._n_blocks = n_blocks
        self.own_id = own_id
        self._replaceable: dict[tuple[str, Span], tuple[float, bool]] = {}

    def holders(self) -> tuple[tuple[str, ...], ...]:
        """For each block the peers of the map, preferred first."""
        if self.blocks_map is None:
            return ()
        return self.blocks_map.holders(self._model, self._n_blocks)

    def layout(self) -> tuple[tuple[tuple[str, ...], ...], PlacedEnds]:
        """All of the map that routes depend on."""
        return self.holders(), self.ends

    @property
    def ends(self) -> PlacedEnds:
        """The ends of the model that go with blocks."""
        return self.blocks_map.ends(self._model) if self.blocks_map is not None else NO_ENDS

    def hop(self, peer_ids: tuple[str, ...], span: Span) -> Hop:
        """One at ``peer_ids``, with the ends that go with its blocks."""
        return Hop(peer_ids, span, self.ends.within(span, self._n_blocks))

    def whole(self) -> tuple[Hop, ...]:
        """The best hops for all blocks.

        Raises:
            RouteError: some blocks have no live peer.
        """
        return self._best(Span(0, self._n_blocks))

    def around(self, kept: Iterable[Span]) -> tuple[Hop, ...]:
        """The best hops for the blocks that none of ``kept`` has.

        Raises:
            RouteError: some of them have no live peer.
        """
        return tuple(hop for gap in self.gaps(kept) for hop in self._best(gap))

    def gaps(self, kept: Iterable[Span]) -> tuple[Span, ...]:
        """The blocks that none of ``kept`` has."""
        gaps: list[Span] = []
        start = 0
        for span in sorted(kept):
            if span.start > start:
                gaps.append(Span(start, span.start))
            start = span.stop
        if start < self._n_blocks:
            gaps.append(Span(start, self._n_blocks))
        return tuple(gaps)

    def wished(self) -> tuple[Hop, ...]:
        """The hops that there would be if every peer were well."""
        return self._route(Span(0, self._n_blocks), frozenset())

    def outlook(self) -> tuple[Hop, ...]:
        """The best hops for all blocks or, where some have no live peer, those wished for."""
        try:
            return self.whole()
        except RouteError:
            return self.wished()

    def replaceable(self, peer_id: str, span: Span) -> bool:
        """Whether others that are well serve ``span``; true for about a second."""
        now_s = trio.current_time()
        until_s, known = self._replaceable.get((peer_id, span), (0.0, False))
        if now_s >= until_s:
            try:
                self._route(span, self.health.avoid(*TroubleKind) | {peer_id})
                known = True
            except RouteError:
                known = False
            self._replaceable[peer_id, span] = now_s + REPLACEABLE_FOR_S, known
        return known

    def replicas(self, span: Span) -> tuple[str, ...]:
        """The other nodes that serve all of ``span``, preferred first, however they are.

        But for those whose answers were wrong.
        """
        holders = self.holders()[span.start : span.stop]
        unusable = {self.own_id, *self.health.avoid(TroubleKind.WRONG)}
        return tuple(
            peer
            for peer in (holders[0] if holders else ())
            if peer not in unusable and all(peer in block for block in holders)
        )

    def busy_until_s(self, gaps: Iterable[Span]) -> float | None:
        """When to ask again, if all that ``gaps`` lack are peers that are busy now."""
        busy = self.health.avoid(TroubleKind.BUSY)
        try:
            for gap in gaps:
                gone = self.health.avoid(TroubleKind.DOWN, TroubleKind.WRONG)
                self._route(gap, gone - busy)
        except RouteError:
            return None
        waits = [t.until_s for peer in busy if (t := self.health.trouble(peer)) is not None]
        return min(waits, default=None)

    def holds(self, gaps: Iterable[Span]) -> bool:
        """Whether the map gives each block of ``gaps`` to some peer."""
        holders = self.holders()
        return all(holders[block] for gap in gaps for block in gap)

    def causes(self, gaps: Iterable[Span]) -> list[GptNodeError]:
        """What is known against the peers that serve blocks of ``gaps``."""
        holders = self.holders()
        peers = dict.fromkeys(peer for gap in gaps for block in gap for peer in holders[block])
        troubles = (self.health.trouble(peer) for peer in peers)
        return list(dict.fromkeys(trouble.cause for trouble in troubles if trouble is not None))

    def _best(self, span: Span) -> tuple[Hop, ...]:
        for kinds in AVOID:
            try:
                return self._route(span, self.health.avoid(*kinds))
            except RouteError as error:
                no_route = error
        raise no_route

    def _route(self, span: Span, down: frozenset[str]) -> tuple[Hop, ...]:
        if self.blocks_map is None:
            return (Hop((), span),)
        return plan_route(
            self.blocks_map,
            self._model,
            self._n_blocks,
            down=down,
            local=self.own_id,
            within=span,
        ).hops


def why(causes: list[GptNodeError], no_route: RouteError) -> GptNodeError:
    """The one error to show: a trouble that all peers share (they refuse, say) or each peer's."""
    kinds = {type(cause) for cause in causes}
    if len(causes) == 1 or (len(kinds) == 1 and PeerUnreachableError not in kinds):
        return causes[0]
    reasons = "; ".join(cause.detail for cause in causes)
    return RouteError(f"{no_route.detail}: {reasons}") if reasons else no_route
