"""Parts of a matrix that lies in a file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from gptnode.model import mapping
from gptnode.model.mapping import map_tensor, row_slices
from gptnode.model.safetensors_file import TensorEntry, read_safetensors_header

MATRIX = torch.arange(35, dtype=torch.float32).view(7, 5)


@pytest.fixture
def entry(tmp_path: Path) -> TensorEntry:
    """A matrix behind another tensor."""
    file = tmp_path / "model.safetensors"
    save_file({"a": torch.ones(3), "b": MATRIX}, file)
    (found,) = (entry for entry in read_safetensors_header(file) if entry.name == "b")
    return found


@pytest.mark.parametrize("slice_bytes", [1, 20, 45, 60, 139, 140, 10**6])
def test_parts_together_are_the_matrix(
    entry: TensorEntry, slice_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mapping, "SLICE_BYTES", slice_bytes)
    parts = list(row_slices(entry))
    assert all(part.n_bytes <= max(slice_bytes, 20) for _, part in parts)
    tensors = [map_tensor(part) for _, part in parts]
    assert torch.equal(torch.cat(tensors), MATRIX)
    firsts = [0]
    for tensor in tensors:
        firsts.append(firsts[-1] + len(tensor))
    assert [first for first, _ in parts] == firsts[:-1]


@pytest.mark.parametrize(
    "dtype", [torch.int8, torch.uint8, torch.bfloat16, torch.float16, torch.float32]
)
def test_all_that_a_model_may_hold_is_mapped(dtype: torch.dtype, tmp_path: Path) -> None:
    tensor = torch.arange(6).to(dtype).view(2, 3)
    save_file({"t": tensor}, tmp_path / "t.safetensors")
    (entry,) = read_safetensors_header(tmp_path / "t.safetensors")
    assert torch.equal(map_tensor(entry), tensor)


def test_a_matrix_without_rows_has_no_parts(tmp_path: Path) -> None:
    save_file({"t": torch.zeros(0, 4)}, tmp_path / "t.safetensors")
    (entry,) = read_safetensors_header(tmp_path / "t.safetensors")
    assert list(row_slices(entry)) == []
