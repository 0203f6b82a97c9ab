"""A span's blocks as the kernels run them: a whole step of a few rows in one call.

The rows may belong to one context or to several. They are bf16 on the CPU; each is computed as if
it were alone, to the bit. Knows blocks and caches; what is done in which order is in step.c.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gptnode.model.config import ModelConfig
from gptnode.model.kv_cache import KVCache
from gptnode.model.layers import Block
from gptnode.model.native import binding
from gptnode.model.native.binding import MAX_ROWS

__all__ = ["MAX_ROWS", "NativeBlocks"]


class NativeBlocks:
    """The blocks of a span. Not safe for use from several threads at once."""

    def __init__(self, config: ModelConfig, blocks: Sequence[Block]) -> None:
        """``blocks`` are kept alive; use `supported` first."""
        ffi = binding.kernels.ffi
        self._blocks = tuple(blocks)
        self._shape = ffi.new(
            "gpt_shape *",
            {
                "d_model": config.d_model,
                "n_heads": config.n_heads,
                "n_kv_heads": config.n_kv_heads,
                "head_dim": config.head_dim,
                "d_ff": config.d_ff,
                "norm_eps": config.norm_eps,
            },
        )
        self._array = ffi.new("gpt_block[]", len(self._blocks))
        for target, block in zip(self._array, self._blocks, strict=True):
            names = ("q", "k", "v", "o", "gate", "up", "down")
            for name, linear in zip(names, block.linears, strict=True):
                setattr(target, name, binding.matrix(linear.weight, linear.bias)[0])
            target.attention_norm = binding.bf16_pointer(block.input_layernorm.weight)
            target.mlp_norm = binding.bf16_pointer(block.post_attention_layernorm.weight)
        self._rows = ffi.new("gpt_row[]", MAX_ROWS)
        self._scratch = torch.empty(0, dtype=torch.uint8)

    @staticmethod
    def supported(config: ModelConfig, dtype: torch.dtype, device: torch.device) -> bool:
        """Whether the kernels can run blocks of such a model."""
        return (
            binding.available
            and dtype == torch.bfloat16
            and device.type == "cpu"
            and binding.attends(config.n_heads, config.n_kv_heads, config.head_dim)
        )

    def step(
        self, hidden: Tensor, caches: Sequence[tuple[KVCache, int]], cosines: Tensor, sines: Tensor
    ) -> Tensor:
        """Run T rows, at most MAX_ROWS, through all blocks.

        Args:
            hidden: (T, D) in bf16.
            caches: For each context its cache of one row and how many of the T rows are its next
                tokens, in the order of ``hidden``. The caches have claimed room for them.
            cosines: (T, head_dim) in bf16, of the rows' positions.
            sines: Like ``cosines``.

        Returns:
            (T, D); the keys and values are in the caches, which aren't advanced.

        Raises:
            ValueError: the rows don't fit each other or the kernels.
        """
        rows = sum(tokens for _, tokens in caches)
        if not 0 < rows <= MAX_ROWS or hidden.shape != (rows, self._shape.d_model):
            raise ValueError(f"{rows} tokens for hidden states {tuple(hidden.shape)}")
        if {cosines.numel(), sines.numel()} != {rows * self._shape.head_dim}:
            raise ValueError(f"{cosines.numel()} cosines for {rows} tokens")
        ffi, lib = binding.kernels.ffi, binding.kernels.lib
        at = 0
        for cache, tokens in caches:
            keys = ffi.cast("uint16_t *const *", cache.key_addresses.data_ptr())
            values = ffi.cast("uint16_t *const *", cache.value_addresses.data_ptr())
            for position in range(cache.length, cache.length + tokens):
                self._rows[at] = (keys, values, position)
                at += 1
        result = hidden.clone()
        failed = lib.gpt_step(
            self._shape,
            self._array,
            len(self._blocks),
            self._rows,
            rows,
            binding.bf16_pointer(cosines),
            binding.bf16_pointer(sines),
            binding.bf16_pointer(result),
            self._scratch_for(rows),
            torch.get_num_threads(),
        )
        if failed:
            raise ValueError(f"the kernels refuse {rows} rows")
        return result

    def _scratch_for(self, rows: int) -> binding.Handle:
        ffi, lib = binding.kernels.ffi, binding.kernels.lib
        wanted = lib.gpt_scratch_bytes(self._shape, rows)
        if self._scratch.numel() < wanted:
            self._scratch = torch.empty(wanted, dtype=torch.uint8)
        return ffi.cast("void *", self._scratch.data_ptr())
