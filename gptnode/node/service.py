"""A service: many contexts at once over one model, for any front end.

What contexts can share they do: weights, peers' connections, what is known of peers, the steps of
this node's own parts. What makes an answer they don't: each has caches of its own on every hop, so
its tokens are those that it would have alone. A context outlives its answer for a while, so that a
conversation that goes on, or another one that begins alike, finds its beginning computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import trio

from gptnode.model.config import ModelConfig
from gptnode.model.own_sampling import own_sampling
from gptnode.node.commons import Commons
from gptnode.node.config import ServiceLimits
from gptnode.node.context_pool import ContextPool, MakeRoom
from gptnode.node.ended_stage import OwnStage
from gptnode.node.events import EventLog, SwarmEvent
from gptnode.node.generator import Generator
from gptnode.node.loading import ModelSource
from gptnode.node.map_taking import MapTaker
from gptnode.node.service_context import Context, WorkDone
from gptnode.node.swarm import HopView, PeerView, Swarm
from gptnode.routing.blocks_map import BlocksMap
from gptnode.text.template import ChatTemplate
from gptnode.text.tokenizer import Tokenizer

__all__ = ["Context", "MakesContexts", "Service", "ServiceLimits", "ServiceLoad", "ServiceModel"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceLoad:
    """What a service does now, and has done so far."""

    answering: int
    waiting: int
    idle: int
    own_kv_bytes: int
    answers: int
    prompt_tokens: int
    completion_tokens: int
    reused_tokens: int
    tokens_per_s: float


@dataclass(frozen=True, slots=True)
class ServiceModel:
    """The model of a service, without its weights."""

    source: ModelSource
    tokenizer: Tokenizer
    template: ChatTemplate
    default_stop: tuple[str | tuple[int, ...], ...]


class MakesContexts(Protocol):
    """Makes the parts of contexts that share weights, host and lane."""

    def swarm(self, owner: str, blocks_map: BlocksMap | None, make_room: MakeRoom | None) -> Swarm:
        """A swarm without stages; ``make_room``: see ``Swarm``."""
        ...

    def generator(self, swarm: Swarm) -> Generator:
        """A generator over ``swarm``."""
        ...


class Service:
    """Contexts over one model; made by ``runtime.open_service``.

    ``sampling`` is how the model itself asks to be sampled, ``default_stop`` what ends a chat's
    answers besides the model's own end-of-text tokens. Not safe for use from several threads.
    """

    def __init__(
        self,
        model: ServiceModel,
        commons: Commons,
        makes: MakesContexts,
        nursery: trio.Nursery,
        limits: ServiceLimits,
        events: EventLog,
        *,
        blocks_map: BlocksMap | None,
        map_path: Path | None,
        peer_id: str | None,
        context_tokens: int,
    ) -> None:
        """Every part is ready to be used; there are no contexts yet.

        Args:
            model: Answers are its.
            commons: What contexts share.
            makes: Makes them.
            nursery: Closes them in the background.
            limits: How many.
            events: Told what happens.
            blocks_map: The map in force; None when all blocks are local.
            map_path: Its file.
            peer_id: This node's.
            context_tokens: The longest context.
        """
        self.tokenizer = model.tokenizer
        self.template = model.template
        self.default_stop = model.default_stop
        self.sampling = own_sampling(model.source.paths.folder)
        self.peer_id = peer_id
        self.limits = limits
        self.context_limit_tokens = context_tokens
        self._source = model.source
        self._commons = commons
        self._makes = makes
        self._events = events
        self._end_ids = model.tokenizer.eos_ids | frozenset(model.source.config.eos_ids)
        self._overview = makes.swarm("overview", blocks_map, None)  # opens nothing
        self._map = MapTaker(
            map_path,
            self.model_name,
            self.model_config.n_blocks,
            self,
            events.say,
            meter=commons.meter,
        )
        self._done = WorkDone()
        self._pool = ContextPool(self._new, nursery, limits)

    @property
    def model_name(self) -> str:
        """What the swarm calls the model."""
        return self._source.key.name

    @property
    def fingerprint(self) -> str:
        """Of weights and configuration: 32 hex characters."""
        return self._source.key.fingerprint

    @property
    def dtype_name(self) -> str:
        """Of weights and activations."""
        return self._source.key.dtype_name

    @property
    def model_config(self) -> ModelConfig:
        """The model's own numbers."""
        return self._source.config

    @property
    def model_folder(self) -> Path:
        """Where the model's files are on this machine."""
        return self._source.paths.folder

    @property
    def blocks_map(self) -> BlocksMap | None:
        """The map in force; None when all blocks are local."""
        return self._overview.blocks_map

    @property
    def map_path(self) -> Path | None:
        """The file of the map."""
        return self._map.path

    def peers(self) -> tuple[PeerView, ...]:
        """All peers of the map."""
        return self._overview.peers()

    def hops(self) -> tuple[HopView, ...]:
        """The route of the context that was used last; what the next one's would be, before the
        first and after an edit of the routes."""
        last = self._pool.last
        shown = last is not None and last.swarm.stages and last.swarm.up_to_date
        return (last.swarm if last is not None and shown else self._overview).hops()

    def load(self) -> ServiceLoad:
        """How much there is to do, and what was done so far."""
        own = [s for s in self._commons.stages if isinstance(s, OwnStage)]
        done = self._done
        return ServiceLoad(
            answering=self._pool.answering,
            waiting=self._pool.waiting,
            idle=self._pool.idle,
            own_kv_bytes=sum(stage.kv_bytes for stage in own),
            answers=done.answers,
            prompt_tokens=done.prompt_tokens,
            completion_tokens=done.completion_tokens,
            reused_tokens=done.reused_tokens,
            tokens_per_s=done.tokens_per_s,
        )

    def events(self) -> tuple[SwarmEvent, ...]:
        """The last things that happened, oldest first."""
        return self._events.events()

    def context(self, ids: Sequence[int]) -> AbstractAsyncContextManager[Context]:
        """A context for a prompt of ``ids``, when it is its turn: an idle one that holds a good
        part of them, else a new one. Peers are asked with the first token.

        *Resource handling*: when the block ends it becomes idle. On an error, or cancelled, its
        sessions are ended at once, in the background, and peers free its caches.

        Raises:
            ServiceBusyError: too many wait already.
        """
        return self._pool.context(ids)

    async def reload(self) -> None:
        """Read the map again; all contexts take the new route with their next token.

        Raises:
            MapError: the file is wrong; the old map stays in force.
            UsageError: there is no map.
        """
        await trio.lowlevel.checkpoint()
        self._map.reload()

    async def connect(self, peer_id: str, addr: str) -> None:
        """Dial a peer at an address that the map doesn't have.

        Raises:
            NetworkError: it can't be reached or refuses.
        """
        await self._overview.connect(peer_id, addr)
        for context in self._pool:
            context.swarm.look_again()

    def use_map(self, blocks_map: BlocksMap, *, fresh: bool = False) -> None:
        """Take ``blocks_map`` for all contexts; ``fresh``: every peer is asked anew."""
        self._overview.use_map(blocks_map, fresh=fresh)
        for context in self._pool:
            context.swarm.use_map(blocks_map, fresh=fresh)
        allowed = blocks_map.allowed()

        def stray(context: Context) -> bool:
            peers = {stage.peer_id for stage in context.swarm.stages}
            return not allowed.issuperset(peers - {None})

        self._pool.end_idle(stray)

    async def run(self) -> None:
        """Follow the map's file, and end contexts that were idle for too long; for ever."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._map.follow)
            nursery.start_soon(self._pool.expire)

    async def aclose(self) -> None:
        """End all contexts."""
        await self._pool.aclose()

    def _new(self, owner: str, make_room: MakeRoom) -> Context:
        swarm = self._makes.swarm(owner, self.blocks_map, make_room)
        generator = self._makes.generator(swarm)
        return Context(generator, swarm, self.tokenizer, self._end_ids, self._done)
