"""Rotations are those of transformers to the bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

from gptnode.model.config import ModelConfig
from gptnode.model.rope import Rope, rotate
from tests.model.test_parity import ROPES
from tests.model.tiny import CPU, tiny_config

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def theirs_and_ours(config: dict[str, Any]) -> tuple[LlamaRotaryEmbedding, Rope]:
    kept = {key: value for key, value in config.items() if key not in ("model_type", "dtype")}
    parsed = ModelConfig.from_json(config)
    return LlamaRotaryEmbedding(LlamaConfig(**kept)), Rope(parsed.rope, parsed.head_dim, CPU)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head_dim", [4, 8, 64, 80, 128])
@pytest.mark.parametrize("name", ROPES)
def test_angles_equal_transformers_to_the_bit(name: str, head_dim: int, dtype: torch.dtype) -> None:
    theirs, ours = theirs_and_ours(tiny_config(head_dim=head_dim, **ROPES[name]))
    # 64 positions are the original length: the last steps are past it.
    for start, tokens in [(0, 1), (0, 50), (50, 14), (64, 1), (65, 300), (100_000, 3)]:
        positions = torch.arange(start, start + tokens)[None]
        expected = theirs(torch.zeros(1, dtype=dtype), positions)
        for mine, other in zip(ours.angles(start, tokens, dtype), expected, strict=True):
            assert mine.dtype == dtype
            assert torch.equal(mine[:, 0], other[0])


@pytest.mark.parametrize("dtype", DTYPES)
def test_turning_equals_transformers_to_the_bit(dtype: torch.dtype) -> None:
    theirs, ours = theirs_and_ours(tiny_config(head_dim=64))
    x = torch.randn(2, 9, 3, 64, generator=torch.Generator().manual_seed(0)).to(dtype)
    angles = theirs(x, torch.arange(9)[None])
    expected, _ = apply_rotary_pos_emb(x.transpose(1, 2), x.transpose(1, 2), *angles)
    assert torch.equal(rotate(x, *ours.angles(0, 9, dtype)), expected.transpose(1, 2))
