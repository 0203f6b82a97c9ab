"""The client's swarm: which peers there are, how they are, and the stages in use over them.

``complete`` is the one answer to every trouble of the route, and to every edit of the map: it opens
what is missing and leaves alone what is there, and waits where nobody can help now.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from random import Random

import trio

from gptnode.errors import (
    GptNodeError,
    MapError,
    NetworkError,
    PeerBusyError,
    RouteError,
    UsageError,
)
from gptnode.model.shard import BlockStack
from gptnode.net.host import Host
from gptnode.net.identity import short_peer_id
from gptnode.node.allow_list import AllowList
from gptnode.node.commons import Commons
from gptnode.node.compute import ComputeLane
from gptnode.node.ended_stage import OwnStage
from gptnode.node.health import PeerHealth, TroubleKind
from gptnode.node.loading import ModelSource
from gptnode.node.meter import HopName, Meter
from gptnode.node.opening import Opener, OpenFailure, close_all
from gptnode.node.opinions import Opinions
from gptnode.node.patience import Patience
from gptnode.node.pipeline import HopFailure
from gptnode.node.planning import Planner
from gptnode.node.stages import Stage
from gptnode.node.swarm_views import HopView, PeerView, Views
from gptnode.node.verify import Verifier
from gptnode.routing.blocks_map import BlocksMap
from gptnode.routing.route import Hop
from gptnode.span import Span

__all__ = ["HopView", "PeerView", "Swarm"]

REPLAY_ROWS = 32
"""Steps of one token that are given again as one, where activations are bf16: the kernels for
steps of so few rows make each row the same to the bit, alone or among others. torch doesn't."""


NO_VERIFYING = (
    "routes: peers have the embedding or the head, and --verify compares activations, "
    "which takes both on this node; leave one of the two out"
)


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
        verify: float = 0.0,
        rng: Random | None = None,
        commons: Commons | None = None,
        owner: str = "",
        make_room: Callable[[str], Awaitable[bool]] | None = None,
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
            verify: The fraction of the peers' steps that others compute too.
            rng: Chooses those steps; by default nobody can know them before.
            commons: What it shares with other contexts; by default there are none.
            owner: Whose context it is, among those.
            make_room: Called with a peer that is busy; whether it is to be asked again at once.

        Raises:
            UsageError: ``verify`` is not from 0 to 1, or can't be where the map leaves ends of the
                model to peers.
        """
        if verify and blocks_map is not None and blocks_map.ends(source.key.name):
            raise UsageError(NO_VERIFYING)
        own_id = host.peer_id if host is not None else None
        self.say = report
        self._source = source
        self._nursery = nursery
        self._allow = allow
        self._host = host
        self._commons = commons if commons is not None else Commons(source, lane)
        self._make_room = make_room
        self._planner = Planner(source.key.name, source.config.n_blocks, own_id)
        self._planner.health = PeerHealth(self._commons.health)
        self._planner.blocks_map = blocks_map
        self._opener = Opener(
            source, self._commons, nursery, host, self.label, self._addrs, owner=owner
        )
        self._views = Views(self._planner, host, self.label)
        self._patience = Patience(self._planner, report, wait_s)
        rng = rng if rng is not None else Random()
        self.verifier = Verifier(
            verify,
            source.key,
            Opinions(source, lane, self._planner, self._opener, rng),
            label=self.label,
            say=report,
            distrust=self._distrust,
            rng=rng,
        )
        if self.verifier.on:
            self._opener.watch = self.verifier.watch
        self._stages: tuple[Stage, ...] = ()
        self._events: list[str] = []
        self._announced = False
        self._edits = 0  # of the routes, so far
        self._edits_in_force = 0  # up to which the stages follow them
        self._has_failed = False  # a hop, since the stages were complete
        self._commons.join(self)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages in use."""
        return self._stages

    @property
    def meter(self) -> Meter:
        """Hears what contexts of this node do."""
        return self._commons.meter

    @property
    def model_name(self) -> str:
        """What the swarm calls the model."""
        return self._source.key.name

    @property
    def blocks_map(self) -> BlocksMap | None:
        """The map in force."""
        return self._planner.blocks_map

    @property
    def own_blocks(self) -> tuple[BlockStack, ...]:
        """The blocks that this node itself has loaded so far."""
        return tuple(self._commons.own_blocks.values())

    @property
    def own_kv_bytes(self) -> int:
        """Memory of this node's caches of the pipeline in use, in whole pages."""
        return sum(stage.kv_bytes for stage in self._stages if isinstance(stage, OwnStage))

    @property
    def replay_rows(self) -> int:
        """How many steps of one token may be given again as one, to the bit."""
        return REPLAY_ROWS if self._source.key.activation_name == "bf16" else 1

    @property
    def complete_now(self) -> bool:
        """Whether stages are open for all blocks, alive, and as the map wants them."""
        return (
            self._edits == self._edits_in_force
            and not any(stage.lost for stage in self._stages)
            and not self._planner.gaps(stage.span for stage in self._stages)
        )

    @property
    def up_to_date(self) -> bool:
        """Whether the stages are those that the last edit of the routes wants."""
        return self._edits == self._edits_in_force

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
                alive = self._alive(opened)
                pool = {(stage.peer_id, stage.span, stage.ends): stage for stage in alive}
                found = [pool.get((self._opener.peer_of(hop), hop.span, hop.ends)) for hop in hops]
                if None not in found and edits == self._edits:
                    break
                missing = [hop for hop, stage in zip(hops, found, strict=True) if stage is None]
                stages, failures = await self._opener.open_all(missing, max_tokens)
                opened += stages
                for failure in failures:
                    if not await self._has_room_now(failure, opened):
                        self._note(failure.peer_id, failure.span, failure.cause, was_open=False)
        except BaseException:
            self._retire_soon(opened)
            raise
        chosen = tuple(stage for stage in found if stage is not None)
        if self._has_failed:
            self.meter.rerouted("failure")
        elif self._stages and self._stages != chosen:
            self.meter.rerouted("map_edit")
        self._has_failed = False
        before, self._stages, self._edits_in_force = self._stages, chosen, edits
        self._tell([stage for stage in opened if stage in chosen])
        self._retire_soon([stage for stage in (*before, *opened) if stage not in chosen])
        return chosen

    def blame(self, failure: HopFailure) -> None:
        """Remember whose hop failed, and do without it; `complete` says what came of it."""
        stage = failure.stage
        if stage.peer_id is None or stage not in self._stages:
            return
        self._stages = tuple(other for other in self._stages if other is not stage)
        self._retire_soon([stage])
        self._note(stage.peer_id, stage.span, failure.cause, was_open=True, slow=failure.slow)

    def progressed(self) -> None:
        """All hops have answered: whatever was waited for is there."""
        self._patience.has_worked = True
        self._patience.begin()

    def shun(self, peer_ids: Collection[str]) -> None:
        """Do without ``peer_ids``, which another context found to be wrong; begin anew."""
        if self._drop(peer_ids):
            self.verifier.spoil()

    def be_patient_anew(self) -> None:
        """Somebody asks: whoever waited before waits no more."""
        self._patience.begin()

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
        known = self._commons.more_addrs.get(peer_id, ())
        self._commons.more_addrs[peer_id] = (addr, *(other for other in known if other != addr))
        self._planner.health.forgive(peer_id)
        self.look_again()

    def look_again(self) -> None:
        """Something has changed at the peers: who waits for one asks again now."""
        self._patience.wake()

    def use_map(self, blocks_map: BlocksMap, *, fresh: bool = False) -> None:
        """Take ``blocks_map`` from the next token on.

        ``fresh``: a person asks for it, so every peer is asked anew and the best route is taken
        again even if nothing was edited.

        Raises:
            MapError: peers are verified, and it leaves ends of the model to them.
        """
        if self.verifier.on and blocks_map.ends(self.model_name):
            raise MapError(NO_VERIFYING)
        planner, before = self._planner, self._planner.layout()
        edited = blocks_map != planner.blocks_map
        planner.blocks_map = blocks_map
        self._allow.use_map(blocks_map)
        if fresh:
            planner.health.forgive_all(even_wrong=True)
        rerouted = planner.layout() != before
        if fresh or rerouted:
            self._edits += 1
        if edited:
            label, peer_of = self.label, self._opener.peer_of
            hops = ", ".join(f"{label(peer_of(hop))} {hop.span}" for hop in self._wish())
            new = "is now" if rerouted else "stays"
            self.say(f"the BlocksMap was edited: the route {new} {hops}")
            self._announced = rerouted
            self._retire_soon(())
        self._patience.wake()

    def replaceable(self, stage: Stage) -> bool:
        """Whether another peer that is well could take over from ``stage``."""
        return stage.peer_id is not None and self._planner.replaceable(stage.peer_id, stage.span)

    def label(self, peer_id: str | None) -> str:
        """What people call the peer."""
        if peer_id is None:
            return "this node"
        entry = self.blocks_map.peer(peer_id) if self.blocks_map is not None else None
        return entry.label if entry is not None else short_peer_id(peer_id)

    def hop_names(self) -> tuple[HopName, ...]:
        """What people call the hops in use, in their order."""
        return tuple(HopName(self.label(one.peer_id), str(one.span)) for one in self._stages)

    def hops(self) -> tuple[HopView, ...]:
        """The hops in use or, where there are none, those that would be used."""
        return self._views.hops(self._stages, self._wish())

    def peers(self) -> tuple[PeerView, ...]:
        """All peers of the map."""
        if self.blocks_map is None or self._host is None:
            return ()
        model = self._source.key.name
        return tuple(
            self._views.peer(
                entry.id,
                self._addrs(entry.id),
                self.blocks_map.spans_of(entry.id, model),
                self._commons.stages,
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
                    self._planner.hop(own if one.peer_id is None else (one.peer_id,), one.span)
                    for one in kept
                ]
                new = self._planner.around(hop.span for hop in hops)
                return sorted((*hops, *new), key=lambda hop: hop.span)
            except RouteError as no_route:
                follows = self._edits == self._edits_in_force
                lacks = self._planner.gaps(stage.span for stage in kept if follows)
                self._events.clear()  # the waiting, or the error, tells them
                await self._patience.wait(no_route, lacks)

    async def _has_room_now(self, failure: OpenFailure, opened: list[Stage]) -> bool:
        """Whether a peer that was busy is to be asked again at once; ends the ``opened``.

        Contexts that wait for each other's peers must not each hold what the other one needs.
        """
        if self._make_room is None or not isinstance(failure.cause, PeerBusyError):
            return False
        await close_all(opened)
        opened.clear()
        return await self._make_room(failure.peer_id)

    def _note(
        self, peer_id: str, span: Span, cause: GptNodeError, *, was_open: bool, slow: bool = False
    ) -> None:
        told = cause.about(f"{self.label(peer_id)} (blocks {span})")
        trouble = self._planner.health.note(peer_id, told, was_open=was_open, slow=slow)
        self.meter.hop_failed(self.label(peer_id), trouble.kind.value, was_open=was_open)
        self._has_failed |= was_open
        self._events.append(told.detail)

    def _distrust(self, peer_ids: Collection[str], cause: GptNodeError) -> bool:
        """Do without ``peer_ids`` from now on, and say why; whether one of them was in use."""
        for peer_id in peer_ids:
            self._planner.health.distrust(peer_id, cause)
        self._commons.shun(peer_ids, by=self)
        spoiled = self._drop(peer_ids)
        if spoiled:
            self._has_failed = True
            self._events.append(cause.detail)
        else:
            self.say(cause.detail)
        return spoiled

    def _drop(self, peer_ids: Collection[str]) -> bool:
        """Use no stage of ``peer_ids``, who were wrong, any more; whether there was one."""
        spoiled = [stage for stage in self._stages if stage.peer_id in peer_ids]
        self._stages = tuple(stage for stage in self._stages if stage not in spoiled)
        self._retire_soon(spoiled)
        for stage in spoiled:
            self.meter.hop_failed(self.label(stage.peer_id), TroubleKind.WRONG.value, was_open=True)
        return bool(spoiled)

    def _tell(self, opened: Sequence[Stage]) -> None:
        """One line for all that happened since the last one."""
        new = sorted((stage for stage in opened if stage.peer_id is not None), key=_by_span)
        serves = [f"{self.label(stage.peer_id)} serves blocks {stage.span}" for stage in new]
        told_already = self._announced and not self._events
        if serves and len(new) == len(self._stages) and not self._events:  # of a new context
            told_already |= self._commons.is_known_route("; ".join(serves))
        if (self._events or serves) and not told_already:
            self.say("; ".join((*self._events, *serves)))
        self._events.clear()
        self._announced = False

    def _alive(self, opened: Sequence[Stage]) -> list[Stage]:
        """The stages in use and those just opened, in order, without those that are lost."""
        stages = (*self._stages, *opened)
        return sorted((stage for stage in stages if stage.lost is None), key=_by_span)

    def _retire_soon(self, stages: Sequence[Stage]) -> None:
        """Close in the background: saying goodbye to a frozen peer takes a second."""
        self._nursery.start_soon(self._retire, stages)

    async def _retire(self, stages: Sequence[Stage]) -> None:
        """Close ``stages``, then leave the peers that the map no longer knows."""
        await close_all(stages)
        in_use = {stage.peer_id for stage in self._commons.stages}
        for peer_id in self._host.connected() if self._host is not None else ():
            if self._host is not None and not (self._allow.allows(peer_id) or peer_id in in_use):
                await self._host.disconnect(peer_id)

    def _wish(self) -> tuple[Hop, ...]:
        try:
            return self._planner.whole()
        except RouteError:
            return self._planner.wished()

    def _addrs(self, peer_id: str) -> tuple[str, ...]:
        entry = self.blocks_map.peer(peer_id) if self.blocks_map is not None else None
        more = self._commons.more_addrs.get(peer_id, ())
        return more + tuple(addr for addr in (entry.addrs if entry else ()) if addr not in more)


def _by_span(stage: Stage) -> Span:
    return stage.span
