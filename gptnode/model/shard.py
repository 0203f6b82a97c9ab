"""The parts that a model is cut into: Embedding, BlockStack, Head.

They know tensors and contexts; not which files the tensors came from (`gptnode.model.parts`), nor
who runs the other parts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from weakref import WeakValueDictionary

import torch
import torch.nn.functional as F
from torch import Tensor

from gptnode.errors import ContextError
from gptnode.model.config import ModelConfig
from gptnode.model.cuda_graphs import CudaRecorder
from gptnode.model.kv_cache import KVCache
from gptnode.model.layers import Block, RMSNorm, StepContext
from gptnode.model.linear import Linear, Scratch, one_row_products
from gptnode.model.masks import CausalMasks
from gptnode.model.native import binding as native
from gptnode.model.native.blocks import MAX_ROWS, NativeBlocks
from gptnode.model.pieces import PausableStep, Pieces, finished
from gptnode.model.quantised import QuantisedWeight
from gptnode.model.rope import Rope
from gptnode.model.step_graphs import GraphMaker, StepGraphs
from gptnode.span import Span

__all__ = ["BlockStack", "Embedding", "Head"]


class Embedding:
    """Token ids to hidden states: a row of the table for each."""

    def __init__(self, weight: Tensor | QuantisedWeight) -> None:
        """``weight`` is (V, D)."""
        self.weight = weight

    def __call__(self, ids: Tensor) -> Tensor:
        """Ids (B, T), int64 or int32 -> (B, T, D) of the activations' dtype.

        Raises:
            ContextError: an id is outside of the vocabulary.
        """
        with torch.inference_mode():
            wrong = ids[(ids < 0) | (ids >= self.weight.shape[0])]
            if wrong.numel():
                raise ContextError(
                    f"token {int(wrong[0])} is outside of the vocabulary of "
                    f"{self.weight.shape[0]} tokens"
                )
            if isinstance(self.weight, QuantisedWeight):
                return self.weight.rows(ids)
            return F.embedding(ids.to(self.weight.device), self.weight)

    @property
    def weight_bytes(self) -> int:
        """Of the table."""
        return self.weight.nbytes


class BlockStack:
    """The blocks of ``span``, in order. Not safe for use from several threads at once."""

    def __init__(
        self,
        config: ModelConfig,
        span: Span,
        blocks: Sequence[Block],
        dtype: torch.dtype,
        device: torch.device,
        graphs: GraphMaker | None = None,
    ) -> None:
        """``blocks`` are those of ``span``, on ``device``; activations are of ``dtype``.

        Steps of one token are recorded by ``graphs``, on cuda by one of its own if that is None.
        """
        if graphs is None and device.type == "cuda":
            graphs = GraphMaker(CudaRecorder(device))
        self.config = config
        self.span = span
        self.dtype = dtype
        self.device = device
        self.blocks = tuple(blocks)
        self._rope = Rope(config.rope, config.head_dim, device)
        self._masks = CausalMasks()
        self._spare_scratch: Scratch | None = None
        self._parts: WeakValueDictionary[Span, BlockStack] = WeakValueDictionary()
        self._native = (
            NativeBlocks(config, self.blocks)
            if NativeBlocks.supported(config, dtype, device)
            else None
        )
        self._maker = graphs
        self._graphs = (
            StepGraphs(config, self.blocks, self._rope, dtype, device, graphs)
            if graphs is not None
            else None
        )

    def part(self, span: Span) -> BlockStack:
        """The blocks of ``span``, which lies within this one; they share their weights.

        The same object for all who ask, as long as somebody has it: their steps can be joined.
        """
        if span == self.span:
            return self
        part = self._parts.get(span)
        if part is None:
            first = self.span.start
            blocks = self.blocks[span.start - first : span.stop - first]
            part = BlockStack(self.config, span, blocks, self.dtype, self.device, self._maker)
            self._parts[span] = part
        return part

    def new_cache(self, max_tokens: int) -> KVCache:
        """An empty cache over the span for a context of at most ``max_tokens``.

        Raises:
            ContextError: the system won't reserve room for it.
        """
        return KVCache(self.config, self.span, max_tokens, self.dtype, self.device)

    @property
    def joint_rows(self) -> int:
        """How many rows, of whatever contexts, `batch` computes as one; 1 where each is alone.

        Joined or alone, a row is the same to the bit. Only the kernels can do that: products of
        torch round by their shape.
        """
        return MAX_ROWS if self._native is not None else 1

    @property
    def weight_bytes(self) -> int:
        """Of all blocks."""
        return sum(block.nbytes for block in self.blocks)

    def __call__(self, hidden: Tensor, cache: KVCache) -> Tensor:
        """Run the next T tokens of a context through the span.

        Args:
            hidden: (B, T, D) of the stack's dtype, for positions ``cache.length`` and on.
            cache: Over the same span; it is T tokens longer afterwards. A step that raises
                leaves it as it was.

        Returns:
            (B, T, D).

        Raises:
            ContextError: the cache has no room for T more tokens.
        """
        self._check(hidden, cache)
        with torch.inference_mode():
            result = self._at_once(hidden, cache)
            if result is None:
                with one_row_products(hidden, hidden.shape[0] * hidden.shape[1]):
                    result = finished(self._pieces(hidden, cache))
            return result

    def in_pieces(self, hidden: Tensor, cache: KVCache) -> PausableStep:
        """The step that a call would make, to the bit, but with pauses for other contexts' steps.

        Nothing is computed yet. The cache is nobody else's until the step is done or given up.

        Raises:
            ContextError: by the step, where the cache has no room for T more tokens.
        """
        self._check(hidden, cache)
        rows = hidden.shape[0] * hidden.shape[1]
        return PausableStep(self._paused(hidden, cache), partial(one_row_products, hidden, rows))

    def batch(self, steps: Sequence[tuple[Tensor, KVCache]]) -> list[Tensor]:
        """Run the next tokens of several contexts, as one matrix product a layer where it pays.

        Each context's numbers are those that it would have alone.

        Args:
            steps: Hidden states (1, T, D) and the cache of one row, for each context; a context
                comes once.

        Returns:
            (1, T, D) for each.

        Raises:
            ContextError: a cache has no room; then no context has advanced.
        """
        for hidden, cache in steps:
            self._check(hidden, cache)
        rows = sum(hidden.shape[1] for hidden, _ in steps)
        if self._native is None or rows > MAX_ROWS or any(cache.batch != 1 for _, cache in steps):
            return [self(hidden, cache) for hidden, cache in steps]
        with torch.inference_mode():
            return self._few_rows(self._native, [(hidden[0], cache) for hidden, cache in steps])

    def _at_once(self, hidden: Tensor, cache: KVCache) -> Tensor | None:
        """What a recording or the kernels make of a step; None if they don't do such steps."""
        if self._graphs is not None and cache.batch == 1 and hidden.shape[1] == 1:
            return self._graphs.step(hidden.to(self.device), cache)
        if self._native is not None and cache.batch == 1 and hidden.shape[1] <= MAX_ROWS:
            return self._few_rows(self._native, [(hidden[0], cache)])[0]
        return None

    def _paused(self, hidden: Tensor, cache: KVCache) -> Pieces:
        result = self._at_once(hidden, cache)
        if result is None:
            result = yield from self._pieces(hidden, cache)
        return result

    def _pieces(self, hidden: Tensor, cache: KVCache) -> Pieces:
        """Hidden states (B, T, D) through all blocks in torch, with pauses."""
        tokens = hidden.shape[1]
        hidden = hidden.to(self.device)
        cosines, sines = self._rope.angles(cache.length, tokens, hidden.dtype)
        with self._lent_scratch() as scratch:
            step = StepContext(cache, cosines, sines, self._masks, scratch)
            for number, block in zip(self.span, self.blocks, strict=True):
                hidden = yield from block.pieces(hidden, number, step)
                yield
        cache.advance(tokens)
        return hidden

    @contextmanager
    def _lent_scratch(self) -> Iterator[Scratch]:
        """Scratch memory that is nobody else's, also while the step that has it is paused.

        One is kept for the next step: that of the step that ended last, so of the long one.
        """
        scratch, self._spare_scratch = self._spare_scratch or Scratch(), None
        try:
            yield scratch
        finally:
            self._spare_scratch = scratch

    def _few_rows(
        self, native_blocks: NativeBlocks, steps: Sequence[tuple[Tensor, KVCache]]
    ) -> list[Tensor]:
        """Hidden states (T, D) of each context -> (1, T, D), in the kernels."""
        counts = [hidden.shape[0] for hidden, _ in steps]
        angles = [
            self._rope.angles(cache.length, count, self.dtype)
            for (_, cache), count in zip(steps, counts, strict=True)
        ]
        cosines, sines = (torch.cat(sides) for sides in zip(*angles, strict=True))
        for (_, cache), count in zip(steps, counts, strict=True):
            cache.claim(count)
        result = native_blocks.step(
            torch.cat([hidden for hidden, _ in steps]),
            [(cache, count) for (_, cache), count in zip(steps, counts, strict=True)],
            cosines,
            sines,
        )
        for (_, cache), count in zip(steps, counts, strict=True):
            cache.advance(count)
        return [part.unsqueeze(0) for part in torch.split(result, counts)]

    def _check(self, hidden: Tensor, cache: KVCache) -> None:
        if cache.span != self.span:
            raise ValueError(f"a cache of blocks {cache.span} for blocks {self.span}")
        wanted = (cache.batch, hidden.shape[1], self.config.d_model)
        if hidden.shape != wanted or not hidden.shape[1] or hidden.dtype != self.dtype:
            raise ValueError(f"hidden states of {hidden.dtype} {tuple(hidden.shape)}")


class Head:
    """Hidden states to logits: the final norm and the output matrix."""

    def __init__(
        self, norm: RMSNorm, weight: Tensor | QuantisedWeight, *, tied: bool = False
    ) -> None:
        """``weight`` is (V, D), and the embedding's own if ``tied``."""
        self.norm = norm
        self.weight = weight
        self._tied = tied
        self._linear, self._scratch = Linear(weight), Scratch()
        stored = weight.scales if isinstance(weight, QuantisedWeight) else weight
        self._native = native.matrix(weight) if native.usable(stored, norm.weight) else None

    def __call__(self, hidden: Tensor) -> Tensor:
        """(B, T, D) -> logits (B, V) in f32 of the last position."""
        with torch.inference_mode():
            last = hidden[:, -1].to(self.weight.device)
            if self._native is not None and last.dtype == torch.bfloat16:
                return native.head(self._native, self.norm.weight, self.norm.eps, last.contiguous())
            with one_row_products(last, last.shape[0]):
                logits = self._linear(self.norm(last), self._scratch, "logits")
                return logits.to(torch.float32, copy=True)

    @property
    def joint_rows(self) -> int:
        """How many rows a call may have so that each is as if alone, to the bit."""
        return MAX_ROWS if self._native is not None else 1

    @property
    def weight_bytes(self) -> int:
        """Of the matrix, if it isn't the embedding's, and the norm."""
        return self.norm.weight.nbytes + (0 if self._tied else self.weight.nbytes)
