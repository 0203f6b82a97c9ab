"""The client's swarm: the peers of a map and this node's own blocks, as one context sees them.

Follows the map, the peers' health and what is found out about them; the route that comes of it is
kept whole by `OpenRoute`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from random import Random

import trio

from gptnode.errors import GptNodeError, MapError, UsageError
from gptnode.model.shard import BlockStack
from gptnode.net.host import Host
from gptnode.node.allow_list import AllowList
from gptnode.node.commons import Commons
from gptnode.node.compute import ComputeLane
from gptnode.node.ended_stage import OwnStage
from gptnode.node.health import PeerHealth
from gptnode.node.loading import ModelSource
from gptnode.node.meter import HopName, Meter
from gptnode.node.open_route import OpenRoute
from gptnode.node.opening import Opener
from gptnode.node.opinions import Opinions
from gptnode.node.patience import Patience
from gptnode.node.peer_book import PeerBook
from gptnode.node.planning import Planner
from gptnode.node.route_news import RouteNews
from gptnode.node.stages import HopFailure, Stage
from gptnode.node.swarm_views import HopView, PeerView, Views
from gptnode.node.verify import Verifier
from gptnode.routing.blocks_map import BlocksMap

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
        self._allow = allow
        self._commons = commons if commons is not None else Commons(source, lane)
        self._planner = Planner(source.key.name, source.config.n_blocks, own_id)
        self._planner.health = PeerHealth(self._commons.health)
        self._planner.blocks_map = blocks_map
        self._book = PeerBook(self._planner, self._commons, allow, host)
        self._news = RouteNews(self._commons, self._book.label, report)
        self._opener = Opener(
            source, self._commons, nursery, host, self.label, self._book.addrs, owner=owner
        )
        self._views = Views(self._planner, host, self._book)
        self._patience = Patience(self._planner, report, wait_s)
        self._route = OpenRoute(
            self._planner,
            self._opener,
            self._patience,
            self._book,
            self._news,
            nursery,
            make_room,
        )
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
        self._commons.join(self)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages in use."""
        return self._route.stages

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
        return sum(stage.kv_bytes for stage in self.stages if isinstance(stage, OwnStage))

    @property
    def replay_rows(self) -> int:
        """How many steps of one token may be given again as one, to the bit."""
        return REPLAY_ROWS if self._source.key.activation_name == "bf16" else 1

    @property
    def complete_now(self) -> bool:
        """Whether stages are open for all blocks, alive, and as the map wants them."""
        return self._route.is_whole

    @property
    def up_to_date(self) -> bool:
        """Whether the stages are those that the last edit of the routes wants."""
        return self._route.up_to_date

    async def complete(self, max_tokens: int) -> tuple[Stage, ...]:
        """The stages in use, with those opened that are missing; see ``OpenRoute.complete``.

        Raises:
            GptNodeError: some blocks have no live peer, and none came in time.
        """
        return await self._route.complete(max_tokens)

    def blame(self, failure: HopFailure) -> None:
        """Remember whose hop failed, and do without it; `complete` says what came of it."""
        self._route.blame(failure)

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
        await self._route.close()

    async def connect(self, peer_id: str, addr: str) -> None:
        """Dial ``peer_id`` at ``addr`` and keep the address beside those of the map.

        Raises:
            NetworkError: it can't be reached, or this node is local only.
        """
        await self._book.connect(peer_id, addr)
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
            self._route.edited()
        if edited:
            label, peer_of = self.label, self._opener.peer_of
            hops = (f"{label(peer_of(hop))} {hop.span}" for hop in planner.outlook())
            self._news.edited(", ".join(hops), rerouted=rerouted)
            self._route.retire_soon(())
        self._patience.wake()

    def replaceable(self, stage: Stage) -> bool:
        """Whether another peer that is well could take over from ``stage``."""
        return stage.peer_id is not None and self._planner.replaceable(stage.peer_id, stage.span)

    def label(self, peer_id: str | None) -> str:
        """What people call the peer."""
        return self._book.label(peer_id)

    def hop_names(self) -> tuple[HopName, ...]:
        """What people call the hops in use, in their order."""
        return tuple(HopName(self.label(one.peer_id), str(one.span)) for one in self.stages)

    def hops(self) -> tuple[HopView, ...]:
        """The hops in use or, where there are none, those that would be used."""
        return self._views.hops(self.stages)

    def peers(self) -> tuple[PeerView, ...]:
        """All peers of the map."""
        return self._views.peers(self.model_name, self._commons.stages)

    def _distrust(self, peer_ids: Collection[str], cause: GptNodeError) -> bool:
        """Do without ``peer_ids`` from now on, and say why; whether one of them was in use."""
        for peer_id in peer_ids:
            self._planner.health.distrust(peer_id, cause)
        self._commons.shun(peer_ids, by=self)
        spoiled = self._drop(peer_ids)
        self._news.distrusted(cause, spoiled=spoiled)
        return spoiled

    def _drop(self, peer_ids: Collection[str]) -> bool:
        """Use no stage of ``peer_ids``, who were wrong, any more; whether there was one."""
        spoiled = [stage for stage in self.stages if stage.peer_id in peer_ids]
        self._route.take_out(spoiled)
        self._news.dropped(spoiled)
        return bool(spoiled)
