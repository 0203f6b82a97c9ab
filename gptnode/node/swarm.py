"""The client's swarm: which peers there are, how they are, and pipelines over them.

Opening a pipeline is the one answer to every trouble of the route: plan it around the peers that
failed, dial, open sessions, and let the generator fill the caches from the token ids.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import trio

from gptnode.errors import GptNodeError, NetworkError, PeerUnreachableError, RouteError
from gptnode.model.shard import BlockStack
from gptnode.net.host import Host
from gptnode.net.identity import short_peer_id
from gptnode.node.allow_list import AllowList
from gptnode.node.compute import ComputeLane
from gptnode.node.health import PeerHealth, TroubleKind
from gptnode.node.loading import ModelSource
from gptnode.node.pipeline import HopFailure, Pipeline
from gptnode.node.stages import LocalStage, RemoteStage, Stage
from gptnode.routing.blocks_map import BlocksMap
from gptnode.routing.route import Hop, Route, plan_route
from gptnode.span import Span

__all__ = ["HopView", "PeerView", "Swarm"]

BUSY_PATIENCE_S = 30.0


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
    """Opens pipelines over this node's own blocks and the peers of a map.

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
    ) -> None:
        """``nursery`` owns the sessions' tasks; ``report`` shows a line of progress or trouble."""
        self.blocks_map = blocks_map
        self._source = source
        self._lane = lane
        self._nursery = nursery
        self._report = report
        self._allow = allow
        self._host = host
        self._health = PeerHealth()
        self._stages: tuple[Stage, ...] = ()
        self._own_blocks: dict[Span, BlockStack] = {}
        self._more_addrs: dict[str, tuple[str, ...]] = {}

    @property
    def own_blocks(self) -> tuple[BlockStack, ...]:
        """The blocks that this node itself has loaded so far."""
        return tuple(self._own_blocks.values())

    @property
    def own_kv_bytes(self) -> int:
        """Memory of this node's caches of the pipeline in use, in whole pages."""
        return sum(stage.kv_bytes for stage in self._stages if isinstance(stage, LocalStage))

    async def open_pipeline(self, max_tokens: int) -> Pipeline:
        """Open a stage for each hop of the best route there is, in caches of ``max_tokens``.

        Raises:
            GptNodeError: some blocks have no live peer: what the peer that was asked last failed
                with, or RouteError where several did.
        """
        deadline_s = trio.current_time() + BUSY_PATIENCE_S
        while True:
            route = await self._plan(deadline_s)
            stages, failures = await self._open_stages(route, max_tokens)
            if not failures:
                self._stages = stages
                return Pipeline(stages)
            await Pipeline(stages).aclose()
            for failure in failures:
                self.blame(failure)

    def blame(self, failure: HopFailure) -> None:
        """Remember which peer failed, and say so."""
        who = f"{self.label(failure.peer_id)} (blocks {failure.span})"
        cause = failure.cause.about(who)
        self._health.note(failure.peer_id, cause, was_open=failure.was_open)
        self._stages = ()
        self._report(cause.detail)

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
        self._health.forgive(peer_id)

    def use_map(self, blocks_map: BlocksMap) -> None:
        """Take ``blocks_map`` from the next pipeline on; every peer gets a fresh start."""
        self.blocks_map = blocks_map
        self._allow.use_map(blocks_map)
        self._health.forgive_all()

    def label(self, peer_id: str | None) -> str:
        """What people call the peer."""
        if peer_id is None:
            return "this node"
        entry = self.blocks_map.peer(peer_id) if self.blocks_map is not None else None
        return entry.label if entry is not None else short_peer_id(peer_id)

    def hops(self) -> tuple[HopView, ...]:
        """The hops in use or, before the first token, those that would be used."""
        route = self._best_route()
        if not self._stages:
            return tuple(self._view(hop, None) for hop in route.hops) if route else ()
        replicas = {block: hop for hop in (route.hops if route else ()) for block in hop.span}
        return tuple(
            self._view(replicas.get(stage.span.start, Hop((), stage.span)), stage)
            for stage in self._stages
        )

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

    async def _plan(self, deadline_s: float) -> Route:
        """The best route; waits for peers that are busy where no others serve their blocks."""
        while True:
            for kinds in (tuple(TroubleKind), (TroubleKind.BUSY, TroubleKind.DOWN)):
                try:
                    return self._route(self._health.avoid(*kinds))
                except RouteError as error:
                    no_route = error
            busy = self._health.avoid(TroubleKind.BUSY)
            causes = self._causes()
            waits = [t.until_s for peer in busy if (t := self._health.trouble(peer)) is not None]
            if not waits or min(waits) > deadline_s or not self._way_but_for(busy):
                self._health.forgive_all()  # who tries again wants every peer asked again
                raise _why(causes, no_route)
            await trio.sleep_until(min(waits))

    def _way_but_for(self, busy: frozenset[str]) -> bool:
        try:
            self._route(self._health.avoid(TroubleKind.DOWN) - busy)
        except RouteError:
            return False
        return True

    def _causes(self) -> list[GptNodeError]:
        troubled = self._health.avoid(*TroubleKind)
        return [t.cause for peer in troubled if (t := self._health.trouble(peer)) is not None]

    def _route(self, down: frozenset[str]) -> Route:
        n_blocks = self._source.config.n_blocks
        if self.blocks_map is None:
            return Route(self._source.key.name, (Hop((), Span(0, n_blocks)),))
        own_id = self._host.peer_id if self._host is not None else None
        return plan_route(self.blocks_map, self._source.key.name, n_blocks, down=down, local=own_id)

    def _best_route(self) -> Route | None:
        try:
            return self._route(self._health.avoid(*TroubleKind))
        except RouteError:
            return None

    async def _open_stages(
        self, route: Route, max_tokens: int
    ) -> tuple[tuple[Stage, ...], list[HopFailure]]:
        """Open all hops at once; the stages that opened, in order, and the failures."""
        stages: dict[int, Stage] = {}
        failures: list[HopFailure] = []
        own_errors: list[GptNodeError] = []

        async def open_one(index: int, hop: Hop) -> None:
            peer_id = hop.peer_ids[0] if hop.peer_ids else None
            try:
                stages[index] = await self._open_stage(hop.span, peer_id, max_tokens)
            except GptNodeError as error:
                if peer_id is None or self._is_own(peer_id):
                    own_errors.append(error)
                else:
                    failures.append(HopFailure(peer_id, hop.span, error, was_open=False))

        complete = False
        try:
            async with trio.open_nursery() as nursery:
                for index, hop in enumerate(route.hops):
                    nursery.start_soon(open_one, index, hop)
            complete = not own_errors
        finally:
            if not complete:  # cancelled, or no peer can help: no session may be left behind
                await Pipeline(tuple(stages.values())).aclose()
        if own_errors:
            raise own_errors[0]
        return tuple(stages[index] for index in sorted(stages)), failures

    async def _open_stage(self, span: Span, peer_id: str | None, max_tokens: int) -> Stage:
        if peer_id is None or self._is_own(peer_id):
            if span not in self._own_blocks:
                loaded = await self._lane.run(lambda: self._source.load_blocks(span))
                self._own_blocks[span] = loaded.value
            return LocalStage(self._own_blocks[span], max_tokens, self._lane)
        if self._host is None:
            raise NetworkError("this node has no identity to dial peers with")
        label = self.label(peer_id)
        addrs = self._addrs(peer_id)
        if not addrs:
            raise PeerUnreachableError(f"no address of {label} is known")
        if peer_id not in self._host.connected():
            self._report(f"dialling {label} at {addrs[0]} for blocks {span}")
        await self._host.connect(peer_id, addrs)
        stage = await RemoteStage.open(
            self._host, peer_id, label, span, self._source.key, max_tokens, self._nursery
        )
        self._report(f"{label} serves blocks {span}")
        return stage

    def _is_own(self, peer_id: str) -> bool:
        return self._host is not None and peer_id == self._host.peer_id

    def _addrs(self, peer_id: str) -> tuple[str, ...]:
        entry = self.blocks_map.peer(peer_id) if self.blocks_map is not None else None
        more = self._more_addrs.get(peer_id, ())
        return more + tuple(addr for addr in (entry.addrs if entry else ()) if addr not in more)

    def _view(self, hop: Hop, stage: Stage | None) -> HopView:
        peer_id = stage.peer_id if stage is not None else next(iter(hop.peer_ids), None)
        own = peer_id is None or self._is_own(peer_id)
        connected = frozenset(self._host.connected()) if self._host is not None else frozenset()
        return HopView(
            self.label(None if own else peer_id),
            None if own else peer_id,
            stage.span if stage is not None else hop.span,
            "local" if own or peer_id is None else self._state(peer_id, connected),
            None if own or peer_id is None else self._round_trip_s(peer_id),
            tuple(self.label(other) for other in hop.peer_ids if other != peer_id),
        )

    def _state(self, peer_id: str, connected: frozenset[str]) -> str:
        if self._is_own(peer_id):
            return "local"
        trouble = self._health.trouble(peer_id)
        if trouble is not None:
            return trouble.kind.value
        return "connected" if peer_id in connected else "idle"

    def _round_trip_s(self, peer_id: str) -> float | None:
        for stage in self._stages:
            if isinstance(stage, RemoteStage) and stage.peer_id == peer_id:
                return stage.round_trip_s
        return None


def _why(causes: list[GptNodeError], no_route: RouteError) -> GptNodeError:
    """The one error to show: a trouble that all peers share (they refuse, say) or each peer's."""
    kinds = {type(cause) for cause in causes}
    if len(causes) == 1 or (len(kinds) == 1 and PeerUnreachableError not in kinds):
        return causes[0]
    reasons = "; ".join(cause.detail for cause in causes)
    return RouteError(f"{no_route.detail}: {reasons}") if reasons else no_route
