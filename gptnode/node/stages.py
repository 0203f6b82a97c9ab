"""Stages: a span of blocks with the cache of one context, here or on a peer.

A caller can't tell a local stage, which is here, from a remote one (design law 4).
"""

from __future__ import annotations

import time
from typing import Protocol

import trio
from torch import Tensor

from gptnode.errors import GptNodeError
from gptnode.model.kv_cache import KVCache
from gptnode.model.shard import BlockStack
from gptnode.node.compute import ComputeLane
from gptnode.node.step_work import rewind
from gptnode.node.timing import HopTiming
from gptnode.routing.entries import NO_ENDS, PlacedEnds
from gptnode.span import Span
from gptnode.wire.messages import Draw

__all__ = ["HopFailure", "LocalStage", "Stage", "step_blocks"]


class Stage(Protocol):
    """A span of blocks that holds the keys and values of one context."""

    @property
    def span(self) -> Span:
        """The blocks it runs."""
        ...

    @property
    def peer_id(self) -> str | None:
        """Who runs it; None for this node."""
        ...

    @property
    def ends(self) -> PlacedEnds:
        """The ends of the model that it has besides: it is given ids, or gives ids."""
        ...

    @property
    def lost(self) -> GptNodeError | None:
        """Why its cache is gone, if it is."""
        ...

    @property
    def timing(self) -> HopTiming:
        """Where the time of the last ``forward`` went; all zero before the first."""
        ...

    async def forward(self, hidden: Tensor, position: int, draw: Draw | None = None) -> Tensor:
        """Run ``hidden`` (B, T, D), whose first token is at ``position``, through the span.

        What the cache held from ``position`` on is replaced, so a step may be repeated. A stage
        with the embedding is given ids, (1, T) int32; one with the head gives ids, those that it
        is asked to ``draw``, or one -1.
        """
        ...

    async def truncate(self, length: int) -> None:
        """Forget all tokens from position ``length`` on."""
        ...

    async def aclose(self) -> None:
        """Give the cache back."""
        ...


class HopFailure(Exception):
    """The hop of a peer failed with ``cause``: the route has to be made again without it."""

    def __init__(self, stage: Stage, cause: GptNodeError, *, slow: bool = False) -> None:
        """``slow``: it works, but a replica will do better."""
        super().__init__(f"blocks {stage.span} at {stage.peer_id}: {cause}")
        self.stage = stage
        self.cause = cause
        self.slow = slow


def step_blocks(stack: BlockStack, cache: KVCache, hidden: Tensor, position: int) -> Tensor:
    """One step (B, T, D) -> (B, T, D) at ``position``; in the lane, for sessions here and remote.

    Raises:
        MismatchError: there is a gap between the cache and ``position``.
        ContextError: the step ends past the cache's room.
    """
    rewind(cache, position)
    return stack(hidden, cache)


class LocalStage:
    """Blocks of this node."""

    peer_id = None
    lost = None
    ends = NO_ENDS

    def __init__(self, stack: BlockStack, max_tokens: int, lane: ComputeLane) -> None:
        """Reserve a cache for ``max_tokens``; it is freed with the stage."""
        self.span = stack.span
        self.timing = HopTiming()
        self._stack = stack
        self._cache = stack.new_cache(max_tokens)
        self._lane = lane

    @property
    def kv_bytes(self) -> int:
        """Memory that holds keys and values now, in whole pages."""
        return self._cache.bytes_in_use

    async def forward(self, hidden: Tensor, position: int, draw: Draw | None = None) -> Tensor:
        """See ``Stage``."""
        asked_s = time.perf_counter()
        work = await self._lane.run(lambda: step_blocks(self._stack, self._cache, hidden, position))
        self.timing = HopTiming.here(time.perf_counter() - asked_s, work.compute_s)
        return work.value

    async def truncate(self, length: int) -> None:
        """See ``Stage``."""
        await self._lane.run(lambda: self._cache.truncate(min(length, self._cache.length)))

    async def aclose(self) -> None:
        """See ``Stage``; in the lane, as a step that was cancelled may still be writing."""
        self._lane.run_soon(self._cache.close)
        await trio.lowlevel.checkpoint()
