"""One matrix serves every chunk of every context."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gptnode.model.masks import MASK_ROWS, CausalMasks

CPU = torch.device("cpu")
MASKS = CausalMasks()


@settings(max_examples=60, deadline=None)
@given(rows=st.integers(1, MASK_ROWS), start=st.integers(0, 3000))
def test_a_token_sees_itself_and_all_before_it(rows: int, start: int) -> None:
    mask = MASKS.mask(rows, start, torch.float32, CPU)
    assert mask.shape == (rows, start + rows)
    visible = torch.ones(rows, start + rows).tril(start).bool()
    assert torch.equal(mask == 0, visible)
    assert torch.equal(mask == float("-inf"), ~visible)


def test_masks_of_a_growing_context_share_memory() -> None:
    masks = CausalMasks()
    places = {
        masks.mask(1, start, torch.float32, CPU).untyped_storage().data_ptr()
        for start in range(600, 1024)
    }
    assert len(places) == 1


def test_the_matrix_is_bounded_by_the_context() -> None:
    masks = CausalMasks()
    for start in range(1, 5000, 97):
        mask = masks.mask(MASK_ROWS, start, torch.bfloat16, CPU)
    assert mask.untyped_storage().nbytes() <= MASK_ROWS * (8192 + MASK_ROWS) * 2


def test_another_dtype_gets_its_own_mask() -> None:
    masks = CausalMasks()
    masks.mask(4, 4, torch.float32, CPU)
    assert masks.mask(4, 4, torch.bfloat16, CPU).dtype == torch.bfloat16


@pytest.mark.parametrize("rows", [0, MASK_ROWS + 1])
def test_more_rows_than_the_matrix_has_are_refused(rows: int) -> None:
    with pytest.raises(ValueError, match="rows"):
        CausalMasks().mask(rows, 0, torch.float32, CPU)
