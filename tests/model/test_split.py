"""A model cut anywhere, or fed in pieces of any length, is the same model."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch

from gptnode.model.linear import Linear
from gptnode.model.masks import MASK_ROWS
from tests.model.test_parity import ROPES
from tests.model.tiny import (
    N_BLOCKS,
    Parts,
    load_parts,
    random_ids,
    random_reference,
    tensors_of,
    tiny_config,
    write_folder,
)

CUTS = [cuts for n in range(1, N_BLOCKS) for cuts in combinations(range(1, N_BLOCKS), n)]


def folder_of(tmp_path: Path, **changes: Any) -> Path:
    config = tiny_config(**changes)
    return write_folder(tmp_path, config, tensors_of(random_reference(config)))


def run(parts: Parts, ids: torch.Tensor, schedule: list[int], room: int = 128) -> torch.Tensor:
    """Hidden states of every position, computed in steps of these lengths."""
    caches = parts.caches(room)
    return torch.cat([parts.hidden(step, caches) for step in ids.split(schedule, dim=1)], dim=1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("cuts", CUTS)
def test_split_equals_whole_to_the_bit_for_every_cut(
    cuts: tuple[int, ...], dtype: torch.dtype, tmp_path: Path
) -> None:
    folder, ids = folder_of(tmp_path), random_ids(30)
    schedule = [16, 10, 1, 1, 2]
    whole = run(load_parts(folder, dtype=dtype), ids, schedule)
    assert torch.equal(run(load_parts(folder, cuts, dtype), ids, schedule), whole)


@pytest.mark.parametrize("name", ROPES)
@pytest.mark.parametrize("schedule", [[1] * 40, [39, 1], [7] * 5 + [5], [1, 39]], ids=str)
def test_chunked_prefill_equals_one_shot(name: str, schedule: list[int], tmp_path: Path) -> None:
    parts, ids = load_parts(folder_of(tmp_path, **ROPES[name])), random_ids(40)
    torch.testing.assert_close(
        run(parts, ids, schedule), run(parts, ids, [40]), atol=1e-4, rtol=1e-4
    )


def test_chunks_longer_than_a_mask_equal_one_shot(tmp_path: Path) -> None:
    tokens = 2 * MASK_ROWS + 40
    parts = load_parts(folder_of(tmp_path, max_position_embeddings=1024))
    ids = random_ids(tokens)
    chunked = run(parts, ids, [3, tokens - 3], room=tokens)
    torch.testing.assert_close(chunked, run(parts, ids, [tokens], tokens), atol=1e-4, rtol=1e-4)


def test_dynamic_scaling_past_the_original_length_holds_for_the_same_steps_only(
    tmp_path: Path,
) -> None:
    """What `Rope` documents: another schedule is another computation, the same one is equal."""
    folder = folder_of(tmp_path, max_position_embeddings=16, **ROPES["dynamic"])
    parts, ids = load_parts(folder), random_ids(40)
    within = run(parts, ids[:, :16], [16])
    torch.testing.assert_close(run(parts, ids[:, :16], [5, 11]), within, atol=1e-4, rtol=1e-4)
    steps = [12, 12, 1, 15]
    assert torch.equal(run(parts, ids, steps), run(load_parts(folder, (1, 3)), ids, steps))
    assert (run(parts, ids, steps) - run(parts, ids, [40])).abs().max() > 1e-2


def test_a_truncated_context_goes_on_as_if_the_rest_had_never_been(tmp_path: Path) -> None:
    parts, ids, other = load_parts(folder_of(tmp_path)), random_ids(20), random_ids(9, seed=5)
    caches = parts.caches()
    parts.hidden(ids, caches)
    parts.hidden(other, caches)
    for cache in caches:
        cache.truncate(20)
    again = parts.hidden(other[:, :4], caches)
    fresh = parts.caches()
    parts.hidden(ids, fresh)
    assert torch.equal(again, parts.hidden(other[:, :4], fresh))


def test_a_failed_step_leaves_the_context_as_it_was(tmp_path: Path) -> None:
    parts, ids = load_parts(folder_of(tmp_path)), random_ids(10)
    stack, cache = parts.stacks[0], parts.stacks[0].new_cache(64)
    stack(parts.embedding(ids), cache)
    blocks, hidden = stack.blocks, parts.embedding(random_ids(3, seed=2))
    broken = replace(blocks[2], mlp=replace(blocks[2].mlp, up_proj=Linear(torch.ones(7, 7))))
    stack.blocks = (*blocks[:2], broken, *blocks[3:])
    with pytest.raises(RuntimeError):
        stack(hidden, cache)
    stack.blocks = blocks
    assert cache.length == 10
    fresh = stack.new_cache(64)
    stack(parts.embedding(ids), fresh)
    assert torch.equal(stack(hidden, cache), stack(hidden, fresh))
