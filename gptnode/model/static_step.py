"""One token through the blocks of a stack, always in the same memory and with the same shapes.

The ordinary path allocates, slices the history to its length and so launches another sequence of
kernels for each token. Here nothing in Python depends on a number that lives on the device: the
position is a tensor, rotations are looked up in a table by it, keys and values are written to the
cache at it, and attention goes over the first N tokens of the cache with a mask made from it. What
a device did for one token it can therefore do again, without Python, for every next one whose
history fits in the same N.

It runs on every device. Who repeats it, and how, is in `gptnode.model.step_graphs`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from gptnode.model.config import ModelConfig, RopeConfig
from gptnode.model.kv_cache import KVCache
from gptnode.model.layers import Block
from gptnode.model.linear import Scratch
from gptnode.model.rope import Rope, rotate

__all__ = ["SMALLEST_BUCKET", "StaticStep", "bucket_tokens", "fixed_positions"]

SMALLEST_BUCKET: Final = 256
"""Tokens of history that are read at least: a step over fewer would hardly be faster."""


def bucket_tokens(length: int, max_tokens: int) -> int:
    """How many tokens of a cache for ``max_tokens`` are read when its context has ``length``.

    Powers of two: a context of any length has met few of them, and reads at most twice its history.
    """
    return min(max_tokens, max(SMALLEST_BUCKET, 1 << (length - 1).bit_length()))


def fixed_positions(rope: RopeConfig, max_tokens: int) -> int:
    """How many positions, from the first on, have a rotation that depends on nothing else.

    Dynamic scaling turns by the length of the context once that is past the original one.
    """
    return min(max_tokens, rope.original_max_positions) if rope.kind == "dynamic" else max_tokens


class StaticStep:
    """The buffers of one cache and what is done in them. Not safe for use from several threads.

    For each token: ``KVCache.wipe`` and ``claim``, `load`, `run`, ``KVCache.advance``.

    Resource handling: it holds the cache's regions until `close`.
    """

    def __init__(
        self,
        config: ModelConfig,
        blocks: Sequence[Block],
        rope: Rope,
        cache: KVCache,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        """``cache`` has one row, and all tensors are on ``device``.

        Besides buffers of one token this takes a table of ``4 * head_dim`` bytes a token (bf16).
        """
        if cache.batch != 1:
            raise ValueError(f"a cache of {cache.batch} rows for a step of one")
        self.positions = fixed_positions(config.rope, cache.max_tokens)
        """Tokens at positions from here on need the ordinary path."""
        self._config = config
        self._blocks = tuple(blocks)
        self._regions = cache.regions()
        self._scratch = Scratch()
        with torch.inference_mode():
            self._hidden = torch.zeros((1, 1, config.d_model), dtype=dtype, device=device)
            self._position = torch.zeros(1, dtype=torch.int64, device=device)
            self._slots = torch.arange(cache.max_tokens, device=device)
            self._seen = torch.zeros((), dtype=dtype, device=device)
            self._hidden_away = torch.full((), float("-inf"), dtype=dtype, device=device)
            self._cosines, self._sines = rope.angles(0, self.positions, dtype)

    def load(self, hidden: Tensor, position: int) -> None:
        """Put ``hidden`` (1, 1, D) and its position where `run` reads them.

        Raises:
            ValueError: there is no room or no fixed rotation for the position.
        """
        if not 0 <= position < self.positions:
            raise ValueError(f"position {position} of {self.positions}")
        self._hidden.copy_(hidden)
        self._position.fill_(position)

    def run(self, tokens: int) -> Tensor:
        """The loaded token after all blocks, with a history of at most ``tokens`` that holds it.

        Returns:
            (1, 1, D). Its keys and values are in the cache, which isn't advanced. Running it again
            changes nothing.
        """
        hidden = self._hidden
        cosines = self._cosines.index_select(0, self._position)
        sines = self._sines.index_select(0, self._position)
        mask = torch.where(
            self._slots[:tokens] > self._position, self._hidden_away, self._seen
        ).unsqueeze(0)
        for block, (keys, values) in zip(self._blocks, self._regions, strict=True):
            normed = block.input_layernorm(hidden)
            mixed = self._attention(block, normed, keys, values, cosines, sines, mask)
            hidden = hidden + block.self_attn.o_proj(mixed, self._scratch, "o")
            normed = block.post_attention_layernorm(hidden)
            hidden = hidden + block.mlp(normed, self._scratch)
        return hidden

    def close(self) -> None:
        """Let the cache's regions go; nothing can be run after."""
        self._regions = []

    def _attention(
        self,
        block: Block,
        x: Tensor,
        keys: Tensor,
        values: Tensor,
        cosines: Tensor,
        sines: Tensor,
        mask: Tensor,
    ) -> Tensor:
        """(1, 1, D) -> (1, 1, n_heads * head_dim) over as many tokens as ``mask`` (1, N) has."""
        parts, width = block.self_attn, self._config.head_dim
        new_keys = rotate(parts.k_proj(x, self._scratch, "k").view(1, 1, -1, width), cosines, sines)
        new_values = parts.v_proj(x, self._scratch, "v").view(1, 1, -1, width)
        keys.index_copy_(0, self._position, new_keys)
        values.index_copy_(0, self._position, new_values)
        queries = rotate(parts.q_proj(x, self._scratch, "q").view(1, 1, -1, width), cosines, sines)
        tokens = mask.shape[1]
        mixed = F.scaled_dot_product_attention(
            # The queries of a group become rows: its keys are read once for all of them.
            queries.view(1, self._config.n_kv_heads, -1, width),
            keys[:tokens].permute(1, 2, 0, 3),
            values[:tokens].permute(1, 2, 0, 3),
            attn_mask=mask,
        )
        return mixed.reshape(1, 1, -1)
