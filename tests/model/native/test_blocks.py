"""Steps of a few rows in the kernels against torch's own operators on the same blocks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gptnode.errors import ContextError
from gptnode.model.config import ModelConfig
from gptnode.model.native import binding
from gptnode.model.native.blocks import MAX_ROWS, NativeBlocks
from gptnode.model.parts import load_blocks
from gptnode.model.shard import BlockStack
from gptnode.model.weights import WeightIndex
from gptnode.span import Span
from tests.model.tiny import N_BLOCKS, random_reference, tensors_of, tiny_config, write_folder

CPU = torch.device("cpu")
SPAN = Span(0, N_BLOCKS)
DTYPES = ["bf16", "int8", "int4"]
MODELS: dict[str, dict[str, Any]] = {
    "grouped": {},
    "one key head": {"num_key_value_heads": 1},
    "a key head each, biases": {
        "num_key_value_heads": 4,
        "attention_bias": True,
        "mlp_bias": True,
    },
    "wide heads": {"head_dim": 80, "hidden_size": 160, "intermediate_size": 300},
    "long": {"max_position_embeddings": 12_000},
}


def stack_of(folder: Path, dtype_name: str, **changes: Any) -> BlockStack:
    config = tiny_config(**changes)
    if not (folder / "config.json").exists():
        write_folder(folder, config, tensors_of(random_reference(config)))
    index = WeightIndex.open(folder)
    return load_blocks(index, ModelConfig.from_folder(folder), SPAN, dtype_name, CPU)


def in_torch(stack: BlockStack) -> BlockStack:
    """The same blocks without the kernels for few rows."""
    plain = BlockStack(stack.config, stack.span, stack.blocks, stack.dtype, stack.device)
    plain._native = None
    return plain


def hidden(tokens: int, width: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, tokens, width, generator=generator).to(torch.bfloat16)


def far(found: Tensor, expected: Tensor) -> float:
    return float((found.double() - expected.double()).norm() / expected.double().norm())


@pytest.mark.parametrize("changes", MODELS.values(), ids=list(MODELS))
def test_the_kernels_are_as_near_to_exact_numbers_as_torch_is(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    stack, exact = (stack_of(tmp_path, name, **changes) for name in ("bf16", "f32"))
    x = hidden(100, stack.config.d_model)
    results = []
    for each, given in ((stack, x), (in_torch(stack), x), (exact, x.float())):
        cache = each.new_cache(200)
        each(given[:, :80], cache)
        results.append(each(given[:, 80:], cache))
    kernels, torchs, expected = results
    assert far(kernels, expected) <= 1.2 * far(torchs, expected)


@pytest.mark.parametrize("dtype_name", ["int8", "int4"])
def test_quantised_steps_stay_near_their_written_out_weights(
    dtype_name: str, tmp_path: Path
) -> None:
    stack = stack_of(tmp_path, dtype_name)
    x, ours, theirs = hidden(20, 32), stack.new_cache(64), stack.new_cache(64)
    # Beside the rounding of bf16: activations have 8 bits for each group of 32 in int4.
    limit = {"int8": 0.04, "int4": 0.08}[dtype_name]
    assert far(stack(x, ours), in_torch(stack)(x, theirs)) < limit


@pytest.mark.parametrize("dtype_name", DTYPES)
@pytest.mark.parametrize("context", [1, 255, 256, 257, 700, 9000])
def test_contexts_of_any_length_are_attended_to(
    context: int, dtype_name: str, tmp_path: Path
) -> None:
    stack = stack_of(tmp_path, dtype_name, **MODELS["long"])
    ours, theirs = stack.new_cache(context + 8), stack.new_cache(context + 8)
    x = hidden(context + 3, 32)
    stack(x[:, :context], ours)
    in_torch(stack)(x[:, :context], theirs)
    found, expected = stack(x[:, context:], ours), in_torch(stack)(x[:, context:], theirs)
    assert far(found, expected) < 0.08


@pytest.mark.parametrize("dtype_name", DTYPES)
def test_tokens_are_the_same_to_the_bit_one_by_one_and_together(
    dtype_name: str, tmp_path: Path
) -> None:
    stack, x = stack_of(tmp_path, dtype_name), hidden(MAX_ROWS, 32)
    together, one_by_one = stack.new_cache(64), stack.new_cache(64)
    expected = stack(x, together)
    found = [stack(x[:, i : i + 1], one_by_one) for i in range(MAX_ROWS)]
    assert torch.equal(torch.cat(found, 1), expected)
    more = hidden(1, 32, seed=1)
    assert torch.equal(stack(more, together), stack(more, one_by_one))


@pytest.mark.parametrize("dtype_name", DTYPES)
def test_contexts_in_one_batch_are_each_as_if_alone(dtype_name: str, tmp_path: Path) -> None:
    stack = stack_of(tmp_path, dtype_name)
    lengths, counts = (40, 3, 17, 1), (1, 4, 1, 2)
    alone, batched = ([stack.new_cache(64) for _ in lengths] for _ in "ab")
    for seed, (length, one, other) in enumerate(zip(lengths, alone, batched, strict=True)):
        stack(hidden(length, 32, seed), one)
        stack(hidden(length, 32, seed), other)
    steps = [hidden(count, 32, 100 + seed) for seed, count in enumerate(counts)]
    found = stack.batch(list(zip(steps, batched, strict=True)))
    for step, cache, other, result in zip(steps, alone, batched, found, strict=True):
        assert torch.equal(stack(step, cache), result)
        assert cache.length == other.length


def test_a_batch_that_one_cache_has_no_room_for_advances_none(tmp_path: Path) -> None:
    stack = stack_of(tmp_path, "bf16")
    roomy, full = stack.new_cache(64), stack.new_cache(2)
    stack(hidden(2, 32), full)
    stack(hidden(5, 32), roomy)
    with pytest.raises(ContextError):
        stack.batch([(hidden(1, 32), roomy), (hidden(1, 32), full)])
    assert (roomy.length, full.length) == (5, 2)
    fresh = stack.new_cache(64)
    stack(hidden(5, 32), fresh)
    assert torch.equal(stack(hidden(2, 32, 1), roomy), stack(hidden(2, 32, 1), fresh))


def test_threads_change_no_bit(tmp_path: Path) -> None:
    stack, x = stack_of(tmp_path, "bf16", **MODELS["wide heads"]), hidden(3, 160)
    before, results = torch.get_num_threads(), []
    for count in (1, 2, 5):
        torch.set_num_threads(count)
        results.append(stack(x, stack.new_cache(8)))
    torch.set_num_threads(before)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_more_rows_than_the_kernels_take_are_refused(tmp_path: Path) -> None:
    stack = stack_of(tmp_path, "bf16")
    blocks = NativeBlocks(stack.config, stack.blocks)
    cache, angles = stack.new_cache(64), torch.zeros(MAX_ROWS + 1, 8, dtype=torch.bfloat16)
    cache.claim(MAX_ROWS + 1)
    with pytest.raises(ValueError):
        blocks.step(hidden(MAX_ROWS + 1, 32)[0], [(cache, MAX_ROWS + 1)], angles, angles)


@pytest.mark.parametrize("dtype_name", DTYPES)
def test_without_kernels_torch_does_everything(
    dtype_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = hidden(60, 32)
    with_kernels = stack_of(tmp_path, dtype_name)
    expected = with_kernels(x, with_kernels.new_cache(64))
    monkeypatch.setattr(binding, "available", False)
    assert not NativeBlocks.supported(with_kernels.config, torch.bfloat16, CPU)
    stack = stack_of(tmp_path, dtype_name)
    cache = stack.new_cache(64)
    found = torch.cat([stack(x[:, :59], cache), stack(x[:, 59:], cache)], 1)
    assert far(found, expected) < 0.04
