"""Attention against its definition in f32, and what it may allocate."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gptnode.model.layers import RMSNorm, attend
from gptnode.model.masks import MASK_ROWS, CausalMasks

HEAD_DIM = 16
SHAPES = [(1, 1), (1, 50), (5, 5), (5, 50), (50, 50), (MASK_ROWS + 3, MASK_ROWS + 70)]


def inputs(tokens: int, context: int, n_kv: int, dtype: torch.dtype) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(tokens + context)
    shapes = [(2, tokens, 4, HEAD_DIM), (2, context, n_kv, HEAD_DIM), (2, context, n_kv, HEAD_DIM)]
    return tuple(torch.randn(shape, generator=generator).to(dtype) for shape in shapes)


def explicit(queries: Tensor, keys: Tensor, values: Tensor, scores_in: torch.dtype) -> Tensor:
    """The definition, with scores rounded to ``scores_in`` before the softmax."""
    groups = queries.shape[2] // keys.shape[2]
    q, k, v = (x.float().transpose(1, 2) for x in (queries, keys, values))
    k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    scores = (q @ k.transpose(-1, -2)) / HEAD_DIM**0.5
    tokens, context = scores.shape[-2:]
    hidden = torch.ones(tokens, context).triu(context - tokens + 1).bool()
    scores = scores.to(scores_in).float().masked_fill(hidden, float("-inf"))
    return (scores.softmax(-1) @ v).transpose(1, 2)


@pytest.mark.parametrize("n_kv", [1, 2, 4])
@pytest.mark.parametrize(("tokens", "context"), SHAPES)
def test_attention_is_its_definition(tokens: int, context: int, n_kv: int) -> None:
    queries, keys, values = inputs(tokens, context, n_kv, torch.float32)
    ours = attend(queries, keys, values, CausalMasks())
    assert ours.shape == queries.shape
    expected = explicit(queries, keys, values, torch.float32)
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("tokens", "context"), SHAPES[1:])
def test_scores_are_f32_whatever_the_dtype(tokens: int, context: int, dtype: torch.dtype) -> None:
    queries, keys, values = inputs(tokens, context, 2, dtype)
    # All scores lie near 200, where halves are far apart: rounded to them, few would still differ.
    size = 200.0 if dtype == torch.bfloat16 else 3000.0
    queries[..., 0], keys[..., 0] = 8.0, size / 2
    ours = attend(queries, keys, values, CausalMasks()).float()
    exact = explicit(queries, keys, values, torch.float32)
    coarse = explicit(queries, keys, values, dtype)
    our_error, coarse_error = (ours - exact).abs().max(), (coarse - exact).abs().max()
    assert our_error < 4 * torch.finfo(dtype).eps
    if context > 1:
        assert coarse_error > 4 * our_error


def test_scores_past_the_range_of_f16_are_no_trouble() -> None:
    queries, keys, values = inputs(3, 40, 2, torch.float16)
    queries[..., 0], keys[..., 0] = 1000.0, 1000.0
    assert torch.isfinite(attend(queries, keys, values, CausalMasks())).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("tokens", [1, 8])
def test_keys_and_values_are_read_where_they_lie(tokens: int, dtype: torch.dtype) -> None:
    """Neither a copy nor a repetition: what is allocated does not grow with the history."""

    def allocated_bytes(context: int) -> int:
        queries, keys, values = inputs(tokens, context, 1, dtype)
        masks = CausalMasks()
        attend(queries, keys, values, masks)  # makes the mask
        activities = [torch.profiler.ProfilerActivity.CPU]
        with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
            attend(queries, keys, values, masks)
        events = profile.events()
        assert events is not None
        return sum(max(0, event.self_cpu_memory_usage) for event in events)

    assert allocated_bytes(4000) <= allocated_bytes(3500)


def test_the_norm_is_computed_in_f32() -> None:
    norm = RMSNorm(torch.ones(64), 1e-5)
    x = torch.full((1, 64), 3e4, dtype=torch.float16)  # its square is no f16
    torch.testing.assert_close(norm(x), torch.ones(1, 64, dtype=torch.float32), check_dtype=False)
