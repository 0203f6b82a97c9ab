"""A context that this node serves: its cache, and a step of it from the wire and back.

Knows nothing of streams and of whose turn it is: see `gptnode.node.batching`.
"""

from __future__ import annotations

from torch import Tensor

from gptnode.errors import ContextError, GptNodeError, MismatchError
from gptnode.model.kv_cache import KVCache
from gptnode.model.shard import BlockStack
from gptnode.node.batching import Batcher
from gptnode.node.budget import Refusal
from gptnode.node.config import PREFILL_CHUNK_TOKENS
from gptnode.node.loading import ModelSource
from gptnode.node.step_work import StepWork
from gptnode.node.tensors import check_hidden, from_wire, to_wire
from gptnode.wire.messages import ErrorCode, Stepped, WireTensor

__all__ = ["MAX_CHUNK_TOKENS", "ServedContext"]

MAX_CHUNK_TOKENS = 2 * PREFILL_CHUNK_TOKENS


class ServedContext:
    """One session's context over the blocks of ``stack``; whoever made the cache closes it."""

    def __init__(
        self,
        peer_id: str,
        source: ModelSource,
        stack: BlockStack,
        cache: KVCache,
        batcher: Batcher,
        epoch: int,
    ) -> None:
        """``peer_id`` takes turns with others in ``batcher``; ``epoch`` is named in each answer."""
        self.cache = cache
        self._peer_id = peer_id
        self._source = source
        self._stack = stack
        self._batcher = batcher
        self._epoch = epoch

    async def step(self, position: int, sent: WireTensor) -> Stepped:
        """What the blocks make of ``sent`` (1, T, D), whose first token is at ``position``.

        Raises:
            Refusal: it doesn't continue the cache, is too long, or isn't what the model takes.
        """
        key, shape = self._source.key, sent.shape
        if position > self.cache.length:
            raise Refusal(
                ErrorCode.BAD_POSITION,
                f"step at position {position}, but the cache ends at {self.cache.length}",
            )
        if len(shape) != 3 or shape[0] != 1 or shape[1] > MAX_CHUNK_TOKENS:
            raise Refusal(ErrorCode.BAD_TENSOR, f"a step takes (1, T, D), not {shape}")
        tokens = shape[1]

        def read() -> Tensor:
            hidden = from_wire(sent, self._source.device)
            check_hidden(hidden, (1, tokens, key.d_model), key.dtype, "the client")
            return hidden

        def write(result: Tensor) -> WireTensor:
            check_hidden(result, (1, tokens, key.d_model), key.dtype, "the blocks")
            # In the lane: trio's thread must not wait for a device.
            return to_wire(result)

        work = StepWork(self._peer_id, self._stack, self.cache, position, tokens, read, write)
        try:
            ran = await self._batcher.run(work)
        except MismatchError as error:
            raise Refusal(ErrorCode.BAD_TENSOR, error.detail) from error
        except ContextError as error:
            raise Refusal(ErrorCode.TOO_LONG, error.detail) from error
        except GptNodeError as error:
            raise Refusal(ErrorCode.INTERNAL, error.detail) from error
        return Stepped(
            position,
            self._stack.span,
            key.fingerprint,
            self._epoch,
            ran.value,
            ran.queue_s,
            ran.compute_s,
        )
