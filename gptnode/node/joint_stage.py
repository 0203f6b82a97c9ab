"""A stage of this node whose steps are joined with those of other contexts over the same blocks."""

from __future__ import annotations

import time

import trio
from torch import Tensor

from gptnode.model.shard import BlockStack
from gptnode.node.batching import Batcher
from gptnode.node.compute import ComputeLane
from gptnode.node.step_work import StepWork
from gptnode.node.timing import HopTiming
from gptnode.routing.entries import NO_ENDS
from gptnode.wire.messages import Draw

__all__ = ["JointStage"]


class JointStage:
    """Blocks of this node, and the cache of one context among several."""

    peer_id = None
    lost = None
    ends = NO_ENDS

    def __init__(
        self, stack: BlockStack, max_tokens: int, batcher: Batcher, lane: ComputeLane, owner: str
    ) -> None:
        """Reserve a cache for ``max_tokens``; ``aclose`` frees it. ``owner`` takes turns."""
        self.span = stack.span
        self.timing = HopTiming()
        self.cache = stack.new_cache(max_tokens)
        self._stack = stack
        self._batcher = batcher
        self._lane = lane
        self._owner = owner

    @property
    def kv_bytes(self) -> int:
        """Memory that holds keys and values now, in whole pages."""
        return self.cache.bytes_in_use

    async def forward(self, hidden: Tensor, position: int, draw: Draw | None = None) -> Tensor:
        """See ``Stage``."""
        asked_s = time.perf_counter()
        tokens = hidden.shape[1]
        work = StepWork(
            self._owner, self._stack, self.cache, position, tokens, lambda: hidden, _as_it_is
        )
        ran = await self._batcher.run(work)
        self.timing = HopTiming.here(time.perf_counter() - asked_s, ran.compute_s)
        return ran.value

    async def truncate(self, length: int) -> None:
        """See ``Stage``; in the lane, as a step that was cancelled may still be writing."""
        await self._lane.run(lambda: self.cache.truncate(min(length, self.cache.length)))

    async def aclose(self) -> None:
        """See ``Stage``; in the lane, as a step that was cancelled may still be writing."""
        self._lane.run_soon(self.cache.close)
        await trio.lowlevel.checkpoint()


def _as_it_is(result: Tensor) -> Tensor:
    return result
