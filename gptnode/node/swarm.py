"""The client's swarm: which peers there are, how they are, and the stages in use over them.

``complete`` is the one answer to every trouble of the route, and to every edit of the map: it opens
what is missing and leaves alone what is there, and waits where nobody can help now.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import trio

from gptnode.errors import (
    ContextError,
    GptNodeError,
    NetworkError,
    PeerRefusedError,
    ProtocolError,
    RouteError,
)
from gptnode.model.shard import BlockStack
from gptnode.net.host import Host
from gptnode.net.identity import short_peer_id
from gptnode.node.allow_list import AllowList
from gptnode.node.compute import ComputeLane
from gptnode.node.loading import ModelSource
from gptnode.node.opening import Opener, close_all
from gptnode.node.pipeline import HopFailure
from gptnode.node.planning import Planner, why
from gptnode.node.stages import LocalStage, RemoteStage, Stage
from gptnode.routing.blocks_map import BlocksMap
from gptnode.routing.route import Hop
from gptnode.span import Span

__all__ = ["HopView", "PeerView", "Swarm"]

BUSY_PATIENCE_S = 30.0
RETRY_S = 1.0
LASTING = (PeerRefusedError, ProtocolError, ContextError)
"""Troubles that only a person can end: a chat that never worked tells them at once."""


@dataclass(frozen=True, slots=True)
class HopView:
    """A hop of the route for people to look at."""

    label: str
    peer_id: str | None
    span: Span
    state: str
    round_trip_s: float | None
    replicas: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PeerView:
    """A peer of the map for people to look at."""

    label: str
    peer_id: str
    addrs: tuple[str, ...]
    spans: tuple[Span, ...]
    state: str
    round_trip_s: float | None


class Swarm:
    """The stages of one context over this node's own blocks and the peers of a map.

    Without a map and a host, all blocks are this node's own.
    """

    def __init__(
        self,
        source: ModelSource,
        lane: ComputeLane,
        nursery: trio.Nursery,
        report: Callable[[str], None],
        allow: AllowList,
        *,
        blocks_map: BlocksMap | None = None,
        host: Host | None = None,
        wait_s: float = 0.0,
    ) -> None:
        """A swarm without stages yet.

        Args:
            source: The model.
            lane: Where this node's own blocks run.
            nursery: Owns the sessions' tasks.
            report: Shows a line of progress or trouble.
            allow: Follows the map.
            blocks_map: The map in force.
            host: Dials the peers.
            wait_s: How long to wait for a peer where some blocks have none; may be infinite.
        """
        own_id = host.peer_id if host is not None else None
        self.say = report
        self._source = source
        self._nursery = nursery
        self._allow = allow
        self._host = host
        self._wait_s = wait_s
        self._planner = Planner(source.key.name, source.config.n_blocks, own_id)
        self._planner.blocks_map = blocks_map
        self._opener = Opener(source, lane, nursery, host, self.label, self._addrs)
        self._stages: tuple[Stage, ...] = ()
        self._more_addrs: dict[str, tuple[str, ...]] = {}
        self._events: list[str] = []
        self._news = trio.Event()
        self._edits = 0  # of the routes, so far
        self._edits_in_force = 0  # up to which the stages follow them
        self._waits_since_s: float | None = None
        self._waits_for: str | None = None
        self._has_worked = False

    @property
    def blocks_map(self) -> BlocksMap | None:
        """The map in force."""
        return self._planner.blocks_map

    @property
    def own_blocks(self) -> tuple[BlockStack, ...]:
        """The blocks that this node itself has loaded so far."""
        return tuple(self._opener.own_blocks.values())

    @property
    def own_kv_bytes(self) -> int:
        """Memory of this node's caches of the pipeline in use, in whole pages."""
        return sum(stage.kv_bytes for stage in self._stages if isinstance(stage, LocalStage))

    @property
    def complete_now(self) -> bool:
        """Whether stages are open for all blocks, alive, and as the map wants them."""
        return (
            self._edits == self._edits_in_force
            and not any(stage.lost for stage in self._stages)
            and not self._planner.gaps(stage.span for stage in self._stages)
        )

    async def complete(self, max_tokens: int) -> tuple[Stage, ...]:
        """The stages in use, with those opened that are missing, in caches of ``max_tokens``.

        After an edit of the routes, the stages that the map no longer wants are closed once their
        successors are open. Cancelled, or without success, it leaves the stages in use as they
        were and no others.

        Raises:
            GptNodeError: some blocks have no live peer, and none came in time: what the peer that
                could serve them failed with, or RouteError where several did.
        """
        for stage in self._stages:
            if stage.lost is not None:
                self.blame(HopFailure(stage, stage.lost))
        opened: list[Stage] = []
        try:
            while True:
                edits = self._edits
                hops = await self._plan(opened)
                pool = {(stage.peer_id, stage.span): stage for stage in self._alive(opened)}
                found = [pool.get((self._opener.peer_of(hop), hop.span)) for hop in hops]
                if None not in found and edits == self._edits:
                    break
                missing = [hop for hop, stage in zip(hops, found, strict=True) if stage is None]
                stages, failures = await self._opener.open_all(missing, max_tokens)
                opened += stages
                for failure in failures:
                    self._note(failure.peer_id, failure.span, failure.cause, was_open=False)
        except BaseException:
            self._close_soon(opened)
            raise
        chosen = tuple(stage for stage in found if stage is not None)
        self._close_soon([s for s in (*self._stages, *opened) if s not in chosen])
        self._tell([stage for stage in opened if stage in chosen])
        self._stages, self._edits_in_force = chosen, edits
        return chosen

    def blame(self, failure: HopFailure) -> None:
        """Remember whose hop failed, and do without it; `complete` says what came of it."""
        stage = failure.stage
        if stage.peer_id is None or stage not in self._stages:
            return
        self._stages = tuple(other for other in self._stages if other is not stage)
        self._close_soon([stage])
        self._note(stage.peer_id, stage.span, failure.cause, was_open=True, slow=failure.slow)

    def progressed(self) -> None:
        """All hops have answered: whatever was waited for is there."""
        self._has_worked = True
        self.be_patient_anew()

    def be_patient_anew(self) -> None:
        """Somebody asks: whoever waited before waits no more."""
        self._waits_since_s = self._waits_for = None

    async def close(self) -> None:
        """Close all stages."""
        stages, self._stages = self._stages, ()
        await close_all(stages)

    async def connect(self, peer_id: str, addr: str) -> None:
        """Dial ``peer_id`` at ``addr`` and keep the address beside those of the map.

        Raises:
            NetworkError: it can't be reached, or this node is local only.
        """
        if self._host is None:
            raise NetworkError("this chat runs on this machine alone: it has no map and no peers")
        self._allow.add(peer_id)
        await self._host.connect(peer_id, (addr,))
        known = self._more_addrs.get(peer_id, ())
        self._more_addrs[peer_id] = (addr, *(other for other in known if other != addr))
        self._planner.health.forgive(peer_id)
        self._wake()

    def use_map(self, blocks_map: BlocksMap, *, fresh: bool = False) -> None:
        """Take ``blocks_map`` from the next token on.

        ``fresh``: a person asks for it, so every peer is asked anew and the best route is taken
        again even if nothing was edited.
        """
        planner, before = self._planner, self._planner.holders()
        edited = blocks_map != planner.blocks_map
        planner.blocks_map = blocks_map
        self._allow.use_map(blocks_map)
        if fresh:
            planner.health.forgive_all()
        if fresh or planner.holders() != before:
            self._edits += 1
        if edited:
            hops = ", ".join(f"{self.label(self._opener.peer_of(h))} {h.span}" for h in self._wish())
            new = "is now" if planner.holders() != before else "stays"
            self.say(f"the BlocksMap was edited: the route {new} {hops}")
            self._nursery.start_soon(self._disconnect_strangers)
        self._wake()

    def replaceable(self, stage: Stage) -> bool:
        """Whether another peer that is well could take over from ``stage``."""
        return stage.peer_id is not None and self._planner.replaceable(stage.peer_id, stage.span)

    def label(self, peer_id: str | None) -> str:
        """What people call the peer."""
        if peer_id is None:
            return "this node"
        entry = self.blocks_map.peer(peer_id) if self.blocks_map is not None else None
        return entry.label if entry is not None else short_peer_id(peer_id)

    def hops(self) -> tuple[HopView, ...]:
        """The hops in use or, where there are none, those that would be used."""
        wished = {block: hop for hop in self._wish() for block in hop.span}
        views = {
            stage.span: self._view(wished.get(stage.span.start, Hop((), stage.span)), stage)
            for stage in self._stages
        }
        for gap in self._planner.gaps(views):
            start = gap.start
            for block in gap:
                hop = wished[block]
                if block + 1 == min(hop.span.stop, gap.stop):
                    part = Span(start, block + 1)
                    views[part] = self._view(Hop(hop.peer_ids, part), None)
                    start = block + 1
        return tuple(views[span] for span in sorted(views))

    def peers(self) -> tuple[PeerView, ...]:
        """All peers of the map."""
        if self.blocks_map is None or self._host is None:
            return ()
        connected = frozenset(self._host.connected())
        model = self._source.key.name
        return tuple(
            PeerView(
                entry.label,
                entry.id,
                self._addrs(entry.id),
                self.blocks_map.spans_of(entry.id, model),
                self._state(entry.id, connected),
                self._round_trip_s(entry.id),
            )
            for entry in self.blocks_map.peers
        )

    async def _plan(self, opened: Sequence[Stage]) -> list[Hop]:
        """The hops to have; waits for peers where some blocks have none that is live."""
        while True:
            kept = self._alive(opened)
            own = () if self._host is None else (self._host.peer_id,)
            try:
                if self._edits != self._edits_in_force or not kept:
                    return list(self._planner.whole())
                hops = [
                    Hop(own if stage.peer_id is None else (stage.peer_id,), stage.span)
                    for stage in kept
                ]
                new = self._planner.around(hop.span for hop in hops)
                return sorted((*hops, *new), key=lambda hop: hop.span)
            except RouteError as no_route:
                await self._wait(no_route, self._planner.gaps(stage.span for stage in kept))

    async def _wait(self, no_route: RouteError, gaps: Sequence[Span]) -> None:
        """Wait until it makes sense to plan again; raise if it doesn't any more."""
        now_s, health = trio.current_time(), self._planner.health
        causes = self._planner.causes(gaps)
        busy_until_s = self._planner.busy_until_s(gaps)
        if self._waits_since_s is None:
            self._waits_since_s = now_s
        patience_s = self._wait_s
        if busy_until_s is not None:
            patience_s = max(patience_s, BUSY_PATIENCE_S)
        elif causes and not self._has_worked and all(isinstance(c, LASTING) for c in causes):
            patience_s = 0.0
        until_s = self._waits_since_s + patience_s
        if now_s >= until_s or (busy_until_s or now_s) > until_s:
            health.forgive_all()  # who tries again wants every peer asked again
            self._events.clear()
            raise why(causes, no_route)
        if no_route.detail != self._waits_for:
            reasons = "; ".join(cause.detail for cause in causes)
            self.say(
                f"waiting: {no_route.detail}{': ' if reasons else ''}{reasons}; goes on when a peer "
                "is there or the BlocksMap is edited"
            )
            self._waits_for = no_route.detail
        self._events.clear()
        retry_s = now_s + RETRY_S
        news = self._news
        with trio.move_on_at(min(until_s, max(retry_s, busy_until_s or 0.0))):
            await news.wait()
        health.ask_again()

    def _wake(self) -> None:
        """Who waits should plan again."""
        self._news.set()
        self._news = trio.Event()

    def _note(
        self, peer_id: str, span: Span, cause: GptNodeError, *, was_open: bool, slow: bool = False
    ) -> None:
        told = cause.about(f"{self.label(peer_id)} (blocks {span})")
        self._planner.health.note(peer_id, told, was_open=was_open, slow=slow)
        self._events.append(told.detail)

    def _tell(self, opened: Sequence[Stage]) -> None:
        """One line for all that happened since the last one."""
        new = sorted((stage for stage in opened if stage.peer_id is not None), key=_by_span)
        serves = [f"{self.label(stage.peer_id)} serves blocks {stage.span}" for stage in new]
        if serves:
            self.say("; ".join((*self._events, *serves)))
        self._events.clear()

    def _alive(self, opened: Sequence[Stage]) -> list[Stage]:
        """The stages in use and those just opened, in order, without those that are lost."""
        stages = (*self._stages, *opened)
        return sorted((stage for stage in stages if stage.lost is None), key=_by_span)

    def _close_soon(self, stages: Sequence[Stage]) -> None:
        """Close in the background: saying goodbye to a frozen peer takes a second."""
        if stages:
            self._nursery.start_soon(close_all, stages)

    async def _disconnect_strangers(self) -> None:
        """Leave the peers that a new map doesn't know."""
        for peer_id in self._host.connected() if self._host is not None else ():
            if self._host is not None and not self._allow.allows(peer_id):
                await self._host.disconnect(peer_id)

    def _wish(self) -> tuple[Hop, ...]:
        try:
            return self._planner.whole()
        except RouteError:
            return self._planner.wished()

    def _addrs(self, peer_id: str) -> tuple[str, ...]:
        entry = self.blocks_map.peer(peer_id) if self.blocks_map is not None else None
        more = self._more_addrs.get(peer_id, ())
        return more + tuple(addr for addr in (entry.addrs if entry else ()) if addr not in more)

    def _view(self, hop: Hop, stage: Stage | None) -> HopView:
        peer_id = stage.peer_id if stage is not None else self._opener.peer_of(hop)
        connected = frozenset(self._host.connected()) if self._host is not None else frozenset()
        own = self._host.peer_id if self._host is not None else None
        return HopView(
            self.label(peer_id),
            peer_id,
            stage.span if stage is not None else hop.span,
            "local" if peer_id is None else self._state(peer_id, connected),
            None if peer_id is None else self._round_trip_s(peer_id),
            tuple(self.label(other) for other in hop.peer_ids if other != (peer_id or own)),
        )

    def _state(self, peer_id: str, connected: frozenset[str]) -> str:
        if self._host is not None and peer_id == self._host.peer_id:
            return "local"
        trouble = self._planner.health.trouble(peer_id)
        if trouble is not None:
            return trouble.kind.value
        return "connected" if peer_id in connected else "idle"

    def _round_trip_s(self, peer_id: str) -> float | None:
        for stage in self._stages:
            if isinstance(stage, RemoteStage) and stage.peer_id == peer_id:
                return stage.round_trip_s
        return None


def _by_span(stage: Stage) -> Span:
    return stage.span
