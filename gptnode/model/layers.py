"""The layers of a Llama block, with the parameter names of Hugging Face's checkpoints.

Written for inference over a cache. They know hidden states and positions; not where weights come
from, nor which other blocks there are. Rounding follows transformers: norms and rotations are
computed in f32 and cast, matrix products run in the activations' dtype.

Steps of a few rows in bf16 on the CPU don't come through here: see `gptnode.model.native.blocks`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from gptnode.model.config import ModelConfig
from gptnode.model.kv_cache import KVCache
from gptnode.model.linear import Linear, Scratch
from gptnode.model.masks import MASK_ROWS, CausalMasks
from gptnode.model.native import binding as native
from gptnode.model.pieces import Pieces, finished
from gptnode.model.quantised import QuantisedWeight
from gptnode.model.rope import rotate

__all__ = ["Attention", "Block", "FeedForward", "RMSNorm", "StepContext", "attend", "block_shapes"]


@dataclass(frozen=True, slots=True)
class StepContext:
    """What all blocks share in one step: cache, rotations of its tokens, masks, scratch memory."""

    cache: KVCache
    cosines: Tensor
    sines: Tensor
    masks: CausalMasks
    scratch: Scratch


@dataclass(frozen=True, slots=True)
class RMSNorm:
    """Zhang and Sennrich 2019 (arXiv 1910.07467): in f32, scaled by the weight after the cast.

    ``weight`` is (width,); ``eps`` keeps the root away from zero.
    """

    weight: Tensor
    eps: float

    def __call__(self, x: Tensor) -> Tensor:
        """(..., width) -> the same shape and dtype."""
        if native.usable(x, self.weight):
            return native.rmsnorm(x, self.weight, self.eps)
        wide = x.to(torch.float32)
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * wide.to(x.dtype)


@dataclass(frozen=True, slots=True)
class Attention:
    """Causal self-attention in which groups of query heads share keys and values.

    Grouped-query attention (Ainslie et al. 2023, arXiv 2305.13245); one group is multi-query, a
    group for each head multi-head attention. Heads are ``head_dim`` wide.
    """

    q_proj: Linear
    k_proj: Linear
    v_proj: Linear
    o_proj: Linear
    head_dim: int

    def __call__(self, x: Tensor, block: int, step: StepContext) -> Tensor:
        """(B, T, D) -> (B, T, D); appends the tokens' keys and values to the step's cache."""
        heads = (*x.shape[:2], -1, self.head_dim)
        queries = _turned(self.q_proj(x, step.scratch, "q").view(heads), step)
        keys = _turned(self.k_proj(x, step.scratch, "k").view(heads), step)
        values = self.v_proj(x, step.scratch, "v").view(heads)
        all_keys, all_values = step.cache.append(block, keys, values)
        mixed = attend(queries, all_keys, all_values, step.masks)
        return self.o_proj(mixed.flatten(2), step.scratch, "o")


def _turned(heads: Tensor, step: StepContext) -> Tensor:
    """(B, T, H, head_dim) by the step's angles."""
    fits = heads.shape[0] == 1 and heads.shape[3] <= native.MAX_HEAD_DIM
    if fits and native.usable(heads, step.cosines, step.sines):
        native.rotate(heads[0], step.cosines, step.sines)
        return heads
    return rotate(heads, step.cosines, step.sines)


def attend(queries: Tensor, keys: Tensor, values: Tensor, masks: CausalMasks) -> Tensor:
    """Causal attention of the last T tokens of a context over all S of it.

    Scores and softmax are f32 whatever the dtype is (torch's fused kernels accumulate so), and
    keys and values are read where they lie, never repeated for the queries that share them.

    Args:
        queries: (B, T, n_heads, head_dim), rotated.
        keys: (B, S, n_kv_heads, head_dim), rotated; S >= T.
        values: Like ``keys``.
        masks: Shared by all blocks of a step.

    Returns:
        (B, T, n_heads, head_dim).
    """
    batch, tokens, n_heads, head_dim = queries.shape
    if (
        batch == 1
        and native.usable(queries[0], keys[0], values[0])
        and native.attends(n_heads, keys.shape[2], head_dim)
    ):
        return native.attend(queries[0], keys[0], values[0])[None]
    k, v = keys.transpose(1, 2), values.transpose(1, 2)
    start = keys.shape[1] - tokens
    if tokens == 1:
        # The queries of a group become rows: its keys are read once for all of them.
        q = queries.view(batch, k.shape[1], -1, head_dim)
        return F.scaled_dot_product_attention(q, k, v).view(queries.shape)
    shared = k.shape[1] != n_heads
    q = queries.transpose(1, 2)
    if start == 0:
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=shared)
        return mixed.transpose(1, 2)
    parts = []
    for first in range(0, tokens, MASK_ROWS):
        last = min(first + MASK_ROWS, tokens)
        seen = start + last
        mask = masks.mask(last - first, start + first, queries.dtype, queries.device)
        parts.append(
            F.scaled_dot_product_attention(
                q[:, :, first:last],
                k[:, :, :seen],
                v[:, :, :seen],
                attn_mask=mask,
                enable_gqa=shared,
            )
        )
    return torch.cat(parts, dim=2).transpose(1, 2)


@dataclass(frozen=True, slots=True)
class FeedForward:
    """SwiGLU (Shazeer 2020, arXiv 2002.05202): ``down(silu(gate(x)) * up(x))``."""

    gate_proj: Linear
    up_proj: Linear
    down_proj: Linear

    def __call__(self, x: Tensor, scratch: Scratch) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        return finished(self.pieces(x, scratch))

    def pieces(self, x: Tensor, scratch: Scratch) -> Pieces:
        """The same with a pause after each product; meanwhile ``scratch`` is nobody else's."""
        gate = self.gate_proj(x, scratch, "gate")
        yield
        up = self.up_proj(x, scratch, "up")
        yield
        if native.usable(gate, up):
            return self.down_proj(native.silu_mul(gate, up), scratch, "down")
        return self.down_proj(F.silu(gate) * up, scratch, "down")


@dataclass(frozen=True, slots=True)
class Block:
    """One Transformer block: attention, then feed-forward, each after a norm and added on."""

    input_layernorm: RMSNorm
    self_attn: Attention
    post_attention_layernorm: RMSNorm
    mlp: FeedForward

    @classmethod
    def of(
        cls,
        config: ModelConfig,
        matrices: Mapping[str, Tensor | QuantisedWeight],
        vectors: Mapping[str, Tensor],
    ) -> Block:
        """A block of the tensors that `block_shapes` names, matrices and vectors apart."""

        def linear(name: str) -> Linear:
            return Linear(matrices[f"{name}.weight"], vectors.get(f"{name}.bias"))

        def norm(name: str) -> RMSNorm:
            return RMSNorm(vectors[f"{name}.weight"], config.norm_eps)

        q, k, v, o = (linear(f"self_attn.{name}_proj") for name in "qkvo")
        gate, up, down = (linear(f"mlp.{name}_proj") for name in ("gate", "up", "down"))
        return cls(
            norm("input_layernorm"),
            Attention(q, k, v, o, config.head_dim),
            norm("post_attention_layernorm"),
            FeedForward(gate, up, down),
        )

    def __call__(self, x: Tensor, block: int, step: StepContext) -> Tensor:
        """(B, T, D) -> (B, T, D); ``block`` is its number in the model."""
        return finished(self.pieces(x, block, step))

    def pieces(self, x: Tensor, block: int, step: StepContext) -> Pieces:
        """The same with pauses; meanwhile cache and scratch of ``step`` are nobody else's."""
        x = x + self.self_attn(self.input_layernorm(x), block, step)
        yield
        normed = self.post_attention_layernorm(x)
        return x + (yield from self.mlp.pieces(normed, step.scratch))

    @property
    def linears(self) -> tuple[Linear, ...]:
        """q, k, v, o, gate, up, down."""
        attention, mlp = self.self_attn, self.mlp
        return (
            *(attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj),
            *(mlp.gate_proj, mlp.up_proj, mlp.down_proj),
        )

    @property
    def nbytes(self) -> int:
        """Bytes of all weights."""
        norms = (self.input_layernorm, self.post_attention_layernorm)
        return sum(each.nbytes for each in self.linears) + sum(n.weight.nbytes for n in norms)


def block_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """The name of each tensor of a block -> its shape."""
    query_width = config.n_heads * config.head_dim
    kv_width = config.n_kv_heads * config.head_dim
    width = config.d_model
    matrices = {
        "self_attn.q_proj": (query_width, width, config.attention_bias),
        "self_attn.k_proj": (kv_width, width, config.attention_bias),
        "self_attn.v_proj": (kv_width, width, config.attention_bias),
        "self_attn.o_proj": (width, query_width, config.attention_bias),
        "mlp.gate_proj": (config.d_ff, width, config.mlp_bias),
        "mlp.up_proj": (config.d_ff, width, config.mlp_bias),
        "mlp.down_proj": (width, config.d_ff, config.mlp_bias),
    }
    shapes: dict[str, tuple[int, ...]] = {
        "input_layernorm.weight": (width,),
        "post_attention_layernorm.weight": (width,),
    }
    for name, (outputs, inputs, biased) in matrices.items():
        shapes[f"{name}.weight"] = (outputs, inputs)
        if biased:
            shapes[f"{name}.bias"] = (outputs,)
    return shapes
