"""The layers of a Llama block, with the parameter names of Hugging Face's checkpoints.

Written for inference over a cache. They know hidden states and positions; not where weights come
from, nor which other blocks there are. Rounding follows transformers: norms and rotations are
computed in f32 and cast, matrix products run in the weights' dtype.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gptnode.model.config import ModelConfig
from gptnode.model.kv_cache import KVCache
from gptnode.model.masks import MASK_ROWS, CausalMasks
from gptnode.model.rope import rotate

__all__ = ["Attention", "Block", "FeedForward", "RMSNorm", "StepContext", "attend"]


@dataclass(frozen=True, slots=True)
class StepContext:
    """What all blocks share in one step: the cache, the rotations of its tokens, the masks."""

    cache: KVCache
    cosines: Tensor
    sines: Tensor
    masks: CausalMasks


class RMSNorm(nn.Module):
    """Zhang and Sennrich 2019 (arXiv 1910.07467): in f32, scaled by the weight after the cast."""

    def __init__(self, width: int, eps: float, device: torch.device | None = None) -> None:
        """``eps`` keeps the root away from zero."""
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width, device=device), requires_grad=False)
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) -> the same shape and dtype."""
        wide = x.to(torch.float32)
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * wide.to(x.dtype)


class Attention(nn.Module):
    """Causal self-attention in which ``n_heads`` queries share ``n_kv_heads`` keys and values.

    Grouped-query attention (Ainslie et al. 2023, arXiv 2305.13245); one group is multi-query, a
    group for each head multi-head attention.
    """

    def __init__(self, config: ModelConfig, device: torch.device | None = None) -> None:
        """Four projections, with biases if the model has them."""
        super().__init__()
        self.head_dim = config.head_dim
        query_width = config.n_heads * config.head_dim
        kv_width = config.n_kv_heads * config.head_dim
        bias = config.attention_bias
        self.q_proj = _linear(config.d_model, query_width, bias, device)
        self.k_proj = _linear(config.d_model, kv_width, bias, device)
        self.v_proj = _linear(config.d_model, kv_width, bias, device)
        self.o_proj = _linear(query_width, config.d_model, bias, device)

    def forward(self, x: Tensor, block: int, step: StepContext) -> Tensor:
        """(B, T, D) -> (B, T, D); appends the tokens' keys and values to the step's cache."""
        heads = (*x.shape[:2], -1, self.head_dim)
        queries = rotate(self.q_proj(x).view(heads), step.cosines, step.sines)
        keys = rotate(self.k_proj(x).view(heads), step.cosines, step.sines)
        values = self.v_proj(x).view(heads)
        all_keys, all_values = step.cache.append(block, keys, values)
        mixed = attend(queries, all_keys, all_values, step.masks)
        attended: Tensor = self.o_proj(mixed.flatten(2))
        return attended


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


class FeedForward(nn.Module):
    """SwiGLU (Shazeer 2020, arXiv 2002.05202): ``down(silu(gate(x)) * up(x))``."""

    def __init__(self, config: ModelConfig, device: torch.device | None = None) -> None:
        """Three projections, with biases if the model has them."""
        super().__init__()
        self.gate_proj = _linear(config.d_model, config.d_ff, config.mlp_bias, device)
        self.up_proj = _linear(config.d_model, config.d_ff, config.mlp_bias, device)
        self.down_proj = _linear(config.d_ff, config.d_model, config.mlp_bias, device)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        down: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return down


class Block(nn.Module):
    """One Transformer block: attention, then feed-forward, each after a norm and added on."""

    def __init__(self, config: ModelConfig, device: torch.device | None = None) -> None:
        """Parameters are uninitialised: they are loaded, never trained."""
        super().__init__()
        self.input_layernorm = RMSNorm(config.d_model, config.norm_eps, device)
        self.self_attn = Attention(config, device)
        self.post_attention_layernorm = RMSNorm(config.d_model, config.norm_eps, device)
        self.mlp = FeedForward(config, device)

    def forward(self, x: Tensor, block: int, step: StepContext) -> Tensor:
        """(B, T, D) -> (B, T, D); ``block`` is its number in the model."""
        x = x + self.self_attn(self.input_layernorm(x), block, step)
        summed: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return summed


def _linear(d_in: int, d_out: int, bias: bool, device: torch.device | None) -> nn.Linear:
    linear = nn.Linear(d_in, d_out, bias=bias, device=device)
    linear.requires_grad_(False)
    return linear
