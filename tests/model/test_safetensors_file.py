"""Headers that lie are found out before a byte of a tensor is used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from gptnode.errors import ModelFileError
from gptnode.model.safetensors_file import read_safetensors_header

F32 = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}


def write(path: Path, header: object, data: bytes, claimed: int | None = None) -> Path:
    """A file with any header; ``claimed`` is a length that lies."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(
        (len(text) if claimed is None else claimed).to_bytes(8, "little") + text + data
    )
    return path


def test_the_header_of_the_reference_implementation_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    tensors = {
        "b": torch.ones(3, 5, dtype=torch.bfloat16),
        "a": torch.zeros(7),
        "none": torch.zeros(0, 4),
        "scalar": torch.tensor(1, dtype=torch.int64),
    }
    save_file(tensors, path, metadata={"format": "pt"})
    entries = {entry.name: entry for entry in read_safetensors_header(path)}
    assert set(entries) == set(tensors)
    data = path.read_bytes()
    for name, tensor in tensors.items():
        entry = entries[name]
        assert entry.shape == tuple(tensor.shape)
        assert entry.n_bytes == tensor.nbytes
        raw = tensor.reshape(-1).view(torch.uint8).numpy().tobytes()
        assert data[entry.offset : entry.offset + entry.n_bytes] == raw


@pytest.mark.parametrize(
    ("header", "size", "message"),
    [
        ({"t": F32}, 23, "tensor t ends at byte"),
        ({"t": F32}, 25, "1 bytes after the last tensor"),
        ({"t": F32, "u": F32}, 24, "tensor u overlaps the tensor before it"),
        (
            {"t": F32, "u": {**F32, "data_offsets": [28, 52]}},
            52,
            "tensor u leaves 4 bytes unused before it",
        ),
        ({"t": {**F32, "data_offsets": [0, 20]}}, 20, "tensor t has 20 bytes, but F32 of shape"),
        ({"t": {**F32, "data_offsets": [24, 0]}}, 24, "tensor t has no valid data_offsets"),
        ({"t": {**F32, "data_offsets": [0, 24, 48]}}, 48, "tensor t has no valid data_offsets"),
        ({"t": {**F32, "shape": [2, -3]}}, 24, "tensor t has no valid shape"),
        ({"t": {**F32, "shape": [2, True]}}, 24, "tensor t has no valid shape"),
        ({"t": {**F32, "shape": [2**62, 2**62]}}, 24, "tensor t has 24 bytes, but F32 of shape"),
        ({"t": {**F32, "dtype": "Q4"}}, 24, "tensor t has dtype 'Q4', which is unknown"),
        ({"t": {**F32, "dtype": ["F32"]}}, 24, "tensor t has dtype ['F32'], which is unknown"),
        ({"t": []}, 24, "tensor t is not described by an object"),
        ([], 0, "the header is not an object"),
        (b"{", 0, "the header is not valid JSON"),
        (b'{"\xff": 1}', 0, "the header is not valid JSON"),
        (b"[" * 100_000, 0, "the header is not valid JSON"),
        (b'{"t": {}, "t": {}}', 0, "the header is not valid JSON (a name comes twice)"),
    ],
)
def test_a_header_that_contradicts_the_file_is_named(
    header: object, size: int, message: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "a.safetensors", header, bytes(size))
    with pytest.raises(ModelFileError) as caught:
        read_safetensors_header(path)
    assert caught.value.detail.startswith(f"{path}: {message}")


@pytest.mark.parametrize("claimed", [100, 10**9, 2**64 - 1])
def test_a_header_that_lies_about_its_length_is_named(claimed: int, tmp_path: Path) -> None:
    path = write(tmp_path / "a.safetensors", {"t": F32}, b"", claimed)
    with pytest.raises(ModelFileError, match=f"claims a header of {claimed} bytes in a file of"):
        read_safetensors_header(path)


@pytest.mark.parametrize("size", [0, 7])
def test_a_file_too_short_for_a_header_is_named(size: int, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(bytes(size))
    with pytest.raises(ModelFileError, match=f"only {size} bytes, not a safetensors file"):
        read_safetensors_header(path)


def test_a_file_that_is_not_there_or_not_a_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="no such file"):
        read_safetensors_header(tmp_path / "a.safetensors")
    with pytest.raises(ModelFileError, match="can't be read"):
        read_safetensors_header(tmp_path)


def _offsets(file: Path) -> list[tuple[Any, ...]]:
    size = file.stat().st_size
    entries = read_safetensors_header(file)
    assert all(0 < entry.offset <= entry.offset + entry.n_bytes <= size for entry in entries)
    return sorted((entry.name, list(entry.shape)) for entry in entries)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_a_damaged_file_is_refused_where_the_reference_implementation_refuses_it(
    tmp_path: Path, data: st.DataObject
) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"one": torch.ones(2, 3), "two": torch.zeros(4, dtype=torch.float16)}, path)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    del content[data.draw(st.integers(0, len(content)) | st.just(len(content))) :]
    path.write_bytes(content)
    try:
        with safe_open(path, "pt") as reference:
            names = list(reference.keys())
            theirs = sorted((name, reference.get_slice(name).get_shape()) for name in names)
    except Exception:
        theirs = None
    try:
        ours = _offsets(path)
    except ModelFileError as error:
        assert error.detail.startswith(str(path))
    else:
        assert ours == theirs
