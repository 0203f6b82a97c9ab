"""A context that this node serves: its cache, and a step of it from the wire and back.

Knows nothing of streams and of whose turn it is: see `gptnode.node.batching`.
"""

from __future__ import annotations

import time

from torch import Tensor

from gptnode.errors import ContextError, GptNodeError, MismatchError
from gptnode.model.kv_cache import KVCache
from gptnode.model.shard import BlockStack, Embedding
from gptnode.node.batching import Batcher
from gptnode.node.budget import Refusal
from gptnode.node.config import PREFILL_CHUNK_TOKENS
from gptnode.node.drawing import NONE_DRAWN, draw_tokens, ids_tensor
from gptnode.node.head_batching import HeadBatcher
from gptnode.node.loading import ModelSource
from gptnode.node.meter import NO_METER, Meter
from gptnode.node.step_work import StepWork
from gptnode.node.tensors import check_hidden, from_wire, ids_from_wire, ids_to_wire, to_wire
from gptnode.wire.messages import Draw, ErrorCode, Stepped, WireTensor

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
        meter: Meter = NO_METER,
        *,
        embedding: Embedding | None = None,
        heads: HeadBatcher | None = None,
        scaled: bool = False,
    ) -> None:
        """``peer_id`` takes turns with others in ``batcher``; ``epoch`` is named in each answer.

        ``embedding`` and ``heads``, where the session is to have them, are the model's. ``scaled``:
        hidden states travel in 8 bit, both ways.
        """
        self._scaled = scaled
        self._embedding = embedding
        self._heads = heads
        self.cache = cache
        self._peer_id = peer_id
        self._source = source
        self._stack = stack
        self._batcher = batcher
        self._epoch = epoch
        self._meter = meter

    async def step(self, position: int, sent: WireTensor, draw: Draw | None = None) -> Stepped:
        """What the blocks make of ``sent`` (1, T, D), whose first token is at ``position``.

        With the embedding, ``sent`` is ids, (1, T). With the head, the answer is ids: what ``draw``
        asks for, or one -1.

        Raises:
            Refusal: it doesn't continue the cache, is too long, or isn't what the model takes.
        """
        key, shape = self._source.key, sent.shape
        embedding, heads = self._embedding, self._heads
        if position > self.cache.length:
            raise Refusal(
                ErrorCode.BAD_POSITION,
                f"step at position {position}, but the cache ends at {self.cache.length}",
            )
        dimensions = 3 if embedding is None else 2
        if len(shape) != dimensions or shape[0] != 1 or shape[1] > MAX_CHUNK_TOKENS:
            due = "(1, T, D)" if embedding is None else "ids (1, T)"
            raise Refusal(ErrorCode.BAD_TENSOR, f"a step takes {due}, not {shape}")
        tokens = shape[1]

        def read() -> Tensor:
            if embedding is not None:
                ids = ids_from_wire(sent, key.vocab_size, "the client")
                embedded: Tensor = embedding(ids_tensor(ids).to(self._source.device))
                return embedded
            hidden = from_wire(sent, self._source.device, scaled=self._scaled)
            check_hidden(hidden, (1, tokens, key.d_model), key.dtype, "the client")
            return hidden

        def write(result: Tensor) -> WireTensor | Tensor:
            check_hidden(result, (1, tokens, key.d_model), key.dtype, "the blocks")
            if heads is not None:
                return result
            # In the lane: trio's thread must not wait for a device.
            return to_wire(result, scaled=self._scaled)

        work = StepWork(self._peer_id, self._stack, self.cache, position, tokens, read, write)
        try:
            ran = await self._batcher.run(work)
            answer, queue_s, compute_s = ran.value, ran.queue_s, ran.compute_s
            if isinstance(answer, Tensor):
                answer, more_queue_s, more_compute_s = await self._drawn(answer, draw)
                queue_s, compute_s = queue_s + more_queue_s, compute_s + more_compute_s
        except MismatchError as error:
            raise Refusal(ErrorCode.BAD_TENSOR, error.detail) from error
        except ContextError as error:
            raise Refusal(ErrorCode.TOO_LONG, error.detail) from error
        except GptNodeError as error:
            raise Refusal(ErrorCode.INTERNAL, error.detail) from error
        self._meter.step(key.name, tokens, queue_s, compute_s)
        return Stepped(
            position,
            self._stack.span,
            key.fingerprint,
            self._epoch,
            answer,
            queue_s,
            compute_s,
        )

    async def _drawn(self, hidden: Tensor, draw: Draw | None) -> tuple[WireTensor, float, float]:
        """The tokens that ``draw`` asks for after ``hidden``, and the seconds in queue and lane."""
        if draw is None or self._heads is None:
            return ids_to_wire([NONE_DRAWN], (1, 1)), 0.0, 0.0
        asked_s = time.perf_counter()
        vocab_size = self._source.key.vocab_size
        tokens, compute_s = await draw_tokens(self._heads, hidden, draw, vocab_size)
        waited_s = max(0.0, time.perf_counter() - asked_s - compute_s)
        return ids_to_wire(tokens, (1, len(tokens))), waited_s, compute_s
