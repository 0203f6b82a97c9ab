"""Steps in pieces: the same numbers, whatever runs in the pauses."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from gptnode.errors import ContextError
from gptnode.model.config import ModelConfig
from gptnode.model.parts import load_blocks
from gptnode.model.pieces import PausableStep
from gptnode.model.shard import BlockStack
from gptnode.model.weights import WeightIndex
from gptnode.span import Span
from tests.model.tiny import N_BLOCKS, random_reference, tensors_of, tiny_config, write_folder

CPU = torch.device("cpu")
SPAN = Span(0, N_BLOCKS)
DTYPES = ["f32", "bf16", "int8", "int4"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = tiny_config()
    return write_folder(
        tmp_path_factory.mktemp("pieces"), config, tensors_of(random_reference(config))
    )


def stack_of(folder: Path, dtype_name: str) -> BlockStack:
    index = WeightIndex.open(folder)
    return load_blocks(index, ModelConfig.from_folder(folder), SPAN, dtype_name, CPU)


def hidden(stack: BlockStack, tokens: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, tokens, stack.config.d_model, generator=generator).to(stack.dtype)


def finish(step: PausableStep) -> tuple[Tensor, int]:
    """The result and how many pieces were left."""
    pieces = 1
    while (result := step.advance()) is None:
        pieces += 1
    return result, pieces


@pytest.mark.parametrize("dtype_name", DTYPES)
@pytest.mark.parametrize("tokens", [1, 33, 60])
def test_a_step_in_pieces_is_the_step_to_the_bit(
    dtype_name: str, tokens: int, folder: Path
) -> None:
    stack = stack_of(folder, dtype_name)
    x, more = hidden(stack, tokens), hidden(stack, 40, seed=1)
    whole, pieces = stack.new_cache(128), stack.new_cache(128)
    expected = [stack(x, whole), stack(more, whole)]
    found = [finish(stack.in_pieces(each, pieces))[0] for each in (x, more)]
    assert all(map(torch.equal, found, expected))
    assert pieces.length == whole.length == tokens + 40


@pytest.mark.parametrize("dtype_name", DTYPES)
def test_what_runs_in_the_pauses_changes_no_bit_and_is_not_changed(
    dtype_name: str, folder: Path
) -> None:
    """The same blocks, the same scratch memory: short steps, and another long one in pieces."""
    stack = stack_of(folder, dtype_name)
    x, y, one = (hidden(stack, tokens, seed=tokens) for tokens in (60, 50, 1))
    alone = [stack(each, stack.new_cache(128)) for each in (x, y, one)]
    first = stack.in_pieces(x, stack.new_cache(128))
    second = stack.in_pieces(y, stack.new_cache(128))
    results: list[Tensor | None] = [None, None]
    pieces = 0
    while None in results:
        results = [
            before if before is not None else step.advance()
            for before, step in zip(results, (first, second), strict=True)
        ]
        pieces += 1
        assert torch.equal(stack(one, stack.new_cache(8)), alone[2])
    assert all(torch.equal(a, b) for a, b in zip(results, alone, strict=False) if a is not None)
    assert pieces >= 4 * N_BLOCKS


@pytest.mark.parametrize("after", [0, 1, 5])
def test_a_step_that_is_given_up_leaves_the_cache_as_it_was(after: int, folder: Path) -> None:
    stack = stack_of(folder, "bf16")
    cache, other = stack.new_cache(128), stack.new_cache(128)
    for each in (cache, other):
        stack(hidden(stack, 7), each)
    step = stack.in_pieces(hidden(stack, 40, seed=3), cache)
    for _ in range(after):
        assert step.advance() is None
    step.close()
    assert cache.length == 7
    x = hidden(stack, 50, seed=4)
    assert torch.equal(stack(x, cache), stack(x, other))


def test_a_step_without_room_raises_and_leaves_the_cache_as_it_was(folder: Path) -> None:
    stack = stack_of(folder, "f32")
    cache = stack.new_cache(50)
    stack(hidden(stack, 20), cache)
    with pytest.raises(ContextError):
        finish(stack.in_pieces(hidden(stack, 40), cache))
    assert cache.length == 20


def test_all_who_ask_for_a_part_get_the_same_one_while_somebody_has_it(folder: Path) -> None:
    stack = stack_of(folder, "bf16")
    part = stack.part(Span(1, 2))
    assert stack.part(Span(1, 2)) is part
    assert stack.part(Span(0, 1)) is not part
    assert stack.part(SPAN) is stack
    kept = part.blocks
    del part
    assert stack.part(Span(1, 2)).blocks == kept
    assert len(stack._parts) == 0, "nobody has it any more"
