"""The parts that a model is cut into: Embedding, BlockStack, Head; each loads alone.

Modules are built without memory and take the tensors that `WeightIndex` maps, after names and
shapes were checked. Knows what a Llama checkpoint calls its tensors; not who runs the other parts.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gptnode.errors import ContextError, ModelFileError
from gptnode.model.config import ModelConfig
from gptnode.model.kv_cache import KVCache
from gptnode.model.layers import Block, RMSNorm, StepContext
from gptnode.model.masks import CausalMasks
from gptnode.model.rope import Rope
from gptnode.model.weights import WeightIndex
from gptnode.span import Span

__all__ = ["BlockStack", "Embedding", "Head", "load_blocks", "load_embedding", "load_head"]

EMBEDDING = "embed_tokens.weight"
NORM = "norm.weight"
HEAD = "lm_head.weight"


class Embedding(nn.Module):
    """Token ids to hidden states: a row of the table for each."""

    def __init__(self, weight: Tensor) -> None:
        """``weight`` is (V, D)."""
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)

    def forward(self, ids: Tensor) -> Tensor:
        """Ids (B, T), int64 or int32 -> (B, T, D) of the weights' dtype.

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
            return F.embedding(ids.to(self.weight.device), self.weight)


class BlockStack(nn.Module):
    """The blocks of ``span``, in order. Not safe for use from several threads at once."""

    def __init__(
        self,
        config: ModelConfig,
        span: Span,
        blocks: Sequence[nn.Module],
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        """``blocks`` are those of ``span``, of ``dtype`` on ``device``."""
        super().__init__()
        self.config = config
        self.span = span
        self.dtype = dtype
        self.device = device
        self.blocks = nn.ModuleList(blocks)
        self._rope = Rope(config.rope, config.head_dim, device)
        self._masks = CausalMasks()

    def part(self, span: Span) -> BlockStack:
        """The blocks of ``span``, which lies within this one; they share their weights."""
        if span == self.span:
            return self
        first = self.span.start
        blocks = [self.get_submodule(f"blocks.{number - first}") for number in span]
        return BlockStack(self.config, span, blocks, self.dtype, self.device)

    def new_cache(self, max_tokens: int) -> KVCache:
        """An empty cache over the span for a context of at most ``max_tokens``.

        Raises:
            ContextError: the system won't reserve room for it.
        """
        return KVCache(self.config, self.span, max_tokens, self.dtype, self.device)

    def forward(self, hidden: Tensor, cache: KVCache) -> Tensor:
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
        if cache.span != self.span:
            raise ValueError(f"a cache of blocks {cache.span} for blocks {self.span}")
        wanted = (cache.batch, hidden.shape[1], self.config.d_model)
        if hidden.shape != wanted or not hidden.shape[1] or hidden.dtype != self.dtype:
            raise ValueError(f"hidden states of {hidden.dtype} {tuple(hidden.shape)}")
        tokens = hidden.shape[1]
        with torch.inference_mode():
            hidden = hidden.to(self.device)
            cosines, sines = self._rope.angles(cache.length, tokens, hidden.dtype)
            step = StepContext(cache, cosines, sines, self._masks)
            for number, block in zip(self.span, self.blocks, strict=True):
                hidden = block(hidden, number, step)
        cache.advance(tokens)
        return hidden


class Head(nn.Module):
    """Hidden states to logits: the final norm and the output matrix."""

    def __init__(self, norm: RMSNorm, weight: Tensor) -> None:
        """``weight`` is (V, D)."""
        super().__init__()
        self.norm = norm
        self.weight = nn.Parameter(weight, requires_grad=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, T, D) -> logits (B, V) in f32 of the last position."""
        with torch.inference_mode():
            last = self.norm(hidden[:, -1].to(self.weight.device))
            return F.linear(last, self.weight).to(torch.float32)


def load_embedding(
    index: WeightIndex, config: ModelConfig, dtype: torch.dtype, device: torch.device
) -> Embedding:
    """The embedding of the model.

    Raises:
        ModelError: the tensor is missing or not what config.json implies.
    """
    return Embedding(index.load(EMBEDDING, (config.vocab_size, config.d_model), dtype, device))


def load_blocks(
    index: WeightIndex, config: ModelConfig, span: Span, dtype: torch.dtype, device: torch.device
) -> BlockStack:
    """The blocks of ``span``; no other tensor is touched.

    Raises:
        ModelError: a tensor is missing, not what config.json implies, or unknown to a Llama.
    """
    if span.stop > config.n_blocks:
        raise ModelFileError(
            f"{index.source}: blocks {span} were asked for, but the model has {config.n_blocks}"
        )
    blocks = [_load_block(index, config, number, dtype, device) for number in span]
    return BlockStack(config, span, blocks, dtype, device)


def load_head(
    index: WeightIndex,
    config: ModelConfig,
    dtype: torch.dtype,
    device: torch.device,
    *,
    tied: Embedding | None = None,
) -> Head:
    """The final norm and the output matrix, which is the embedding's where the model ties them.

    Args:
        index: The model's tensors.
        config: The model's configuration.
        dtype: Of the weights.
        device: Of the weights.
        tied: The model's embedding if it is loaded too: a tied head then shares its memory.

    Raises:
        ModelError: a tensor is missing or not what config.json implies.
    """
    norm = RMSNorm(config.d_model, config.norm_eps, torch.device("meta"))
    norm.weight = nn.Parameter(
        index.load(NORM, (config.d_model,), dtype, device), requires_grad=False
    )
    is_tied = config.tie_embeddings or HEAD not in index
    if is_tied and tied is not None:
        return Head(norm, tied.weight)
    name = EMBEDDING if is_tied else HEAD
    return Head(norm, index.load(name, (config.vocab_size, config.d_model), dtype, device))


def _load_block(
    index: WeightIndex, config: ModelConfig, number: int, dtype: torch.dtype, device: torch.device
) -> Block:
    block = Block(config, torch.device("meta"))
    prefix = f"layers.{number}."
    shapes = {name: tuple(tensor.shape) for name, tensor in block.state_dict().items()}
    # A tensor that the config doesn't know of (a bias, a scale) would be silently left out.
    for name in index.names_under(prefix):
        local = name.removeprefix(prefix)
        if local not in shapes and local != "self_attn.rotary_emb.inv_freq":
            raise ModelFileError(
                f"{index.entries[name].where} has no place in the network of config.json"
            )
    for local, shape in shapes.items():
        index.entry(prefix + local, shape)  # all of them before the first is loaded
    tensors = {
        local: index.load(prefix + local, shape, dtype, device) for local, shape in shapes.items()
    }
    block.load_state_dict(tensors, assign=True)
    return block
