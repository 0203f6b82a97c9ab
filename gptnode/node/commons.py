"""What the contexts of one node have in common: their own blocks, what they know of peers.

Each context has a swarm and caches of its own. Weights are loaded once, steps over them are joined,
a peer that failed one context is avoided by all, and one that some context uses stays connected.
"""

from __future__ import annotations

import weakref
from collections.abc import Collection
from typing import Protocol

from gptnode.model.shard import BlockStack
from gptnode.node.batching import Batcher
from gptnode.node.compute import ComputeLane
from gptnode.node.ended_stage import EndedStage
from gptnode.node.ends import OwnEnds
from gptnode.node.health import PeerHealth
from gptnode.node.joint_stage import JointStage
from gptnode.node.loading import ModelSource
from gptnode.node.meter import NO_METER, Meter
from gptnode.node.stages import LocalStage, Stage
from gptnode.routing.entries import NO_ENDS, PlacedEnds
from gptnode.span import Span

__all__ = ["Commons", "UsesStages"]


class UsesStages(Protocol):
    """A context, as the others see it."""

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Those in use now."""
        ...

    def shun(self, peer_ids: Collection[str]) -> None:
        """Do without ``peer_ids``, which were found to be wrong, and what came of them."""
        ...


class Commons:
    """Shared by the contexts of one node over one model.

    Resource handling: it holds weights; caches belong to whoever asked for a stage.
    """

    def __init__(
        self,
        source: ModelSource,
        lane: ComputeLane,
        *,
        joint: bool = False,
        meter: Meter = NO_METER,
    ) -> None:
        """Nothing is loaded, and all peers are well.

        Args:
            source: The model.
            lane: Where this node's own blocks run.
            joint: Whether steps of several contexts are joined to batches.
            meter: Hears what they do.
        """
        self.meter = meter
        self.health = PeerHealth()
        self.own_blocks: dict[Span, BlockStack] = {}
        self.ends = OwnEnds(source, lane)
        self.more_addrs: dict[str, tuple[str, ...]] = {}
        self._source = source
        self._lane = lane
        self._batcher = Batcher(lane) if joint else None
        self._told_route = ""
        self._contexts: weakref.WeakSet[UsesStages] = weakref.WeakSet()

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages that are in use by some context."""
        return tuple(stage for context in self._contexts for stage in context.stages)

    def is_known_route(self, route: str) -> bool:
        """Whether the last of several contexts that was opened said that it has this ``route``."""
        known, self._told_route = self._told_route, route
        return self._batcher is not None and known == route

    def shun(self, peer_ids: Collection[str], by: UsesStages) -> None:
        """Have all contexts do without ``peer_ids``; ``by`` knows already."""
        for context in self._contexts:
            if context is not by:
                context.shun(peer_ids)

    def join(self, context: UsesStages) -> None:
        """One context more; it leaves by being forgotten."""
        self._contexts.add(context)

    async def open_own(
        self, span: Span, max_tokens: int, owner: str, ends: PlacedEnds = NO_ENDS
    ) -> Stage:
        """A stage over this node's own ``span``, which is loaded if it isn't yet.

        Args:
            span: The blocks.
            max_tokens: Room in the cache.
            owner: Takes turns with other owners.
            ends: The ends of the model that it is to have besides.

        Raises:
            GptNodeError: the blocks, or the ends, can't be loaded.
        """
        stack = (await self._lane.run(lambda: self._loaded(span))).value
        await self.ends.load(embedding=ends.embed, head=ends.head)
        blocks = (
            LocalStage(stack, max_tokens, self._lane)
            if self._batcher is None
            else JointStage(stack, max_tokens, self._batcher, self._lane, owner)
        )
        if not ends:
            return blocks
        return EndedStage(blocks, ends, self.ends, self._source.key.vocab_size)

    def _loaded(self, span: Span) -> BlockStack:
        """In the lane, where nobody else can be loading the same."""
        if span not in self.own_blocks:
            self.own_blocks[span] = self._source.load_blocks(span)
        return self.own_blocks[span]
