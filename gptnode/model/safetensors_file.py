"""The header of a safetensors file: which tensors it holds, and at which bytes.

The format is 8 bytes of little-endian header length, a JSON header, then the tensors' bytes
without holes (https://github.com/huggingface/safetensors#format). Every number in the header is
checked against the file before anyone relies on it. No tensor is read here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypeGuard

from gptnode.errors import ModelFileError

__all__ = ["TensorEntry", "read_safetensors_header"]

MAX_HEADER_BYTES: Final = 100_000_000  # as the format's reference implementation
ITEM_BYTES: Final[Mapping[str, int]] = MappingProxyType(
    {
        "BOOL": 1,
        "U8": 1,
        "I8": 1,
        "F8_E5M2": 1,
        "F8_E4M3": 1,
        "F8_E8M0": 1,
        "I16": 2,
        "U16": 2,
        "F16": 2,
        "BF16": 2,
        "I32": 4,
        "U32": 4,
        "F32": 4,
        "I64": 8,
        "U64": 8,
        "F64": 8,
        "C64": 8,
    }
)


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """Where one tensor lies: ``n_bytes`` bytes, row-major, from byte ``offset`` of ``file``.

    ``name`` is the name in the file and ``dtype`` safetensors' name of it (``"BF16"``).
    """

    name: str
    file: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int
    n_bytes: int

    @property
    def where(self) -> str:
        """``"FILE: tensor NAME"``, as errors begin."""
        return f"{self.file}: tensor {self.name}"


def read_safetensors_header(file: Path) -> tuple[TensorEntry, ...]:
    """The tensors of ``file`` in the order of their bytes.

    Raises:
        ModelFileError: the file is missing, truncated, or its header contradicts itself or the
            file's size. The error names the file, and the tensor if it is about one.
    """
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            prefix = stream.read(8)
            header_bytes = int.from_bytes(prefix, "little")
            if len(prefix) < 8:
                raise ModelFileError(f"{file}: only {size} bytes, not a safetensors file")
            if header_bytes > min(size - 8, MAX_HEADER_BYTES):
                raise ModelFileError(
                    f"{file}: claims a header of {header_bytes} bytes in a file of {size} bytes"
                )
            header = stream.read(header_bytes)
    except FileNotFoundError:
        raise ModelFileError(f"{file}: no such file") from None
    except OSError as error:
        raise ModelFileError(f"{file}: can't be read ({error})") from error
    return _parse_header(file, header, data_start=8 + header_bytes, size=size)


def _parse_header(file: Path, header: bytes, data_start: int, size: int) -> tuple[TensorEntry, ...]:
    try:
        tensors = json.loads(header.decode("utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{file}: the header is not valid JSON ({error})") from error
    if not isinstance(tensors, dict):
        raise ModelFileError(f"{file}: the header is not an object")
    entries = [
        _parse_entry(file, name, fields, data_start)
        for name, fields in tensors.items()
        if name != "__metadata__"
    ]
    # Empty tensors lie before the one that begins at the same byte.
    entries.sort(key=lambda entry: (entry.offset, entry.n_bytes))
    end = data_start
    for entry in entries:
        if entry.offset < end:
            raise ModelFileError(f"{entry.where} overlaps the tensor before it")
        if entry.offset > end:
            raise ModelFileError(
                f"{entry.where} leaves {entry.offset - end} bytes unused before it"
            )
        end += entry.n_bytes
        if end > size:
            raise ModelFileError(f"{entry.where} ends at byte {end}, but the file has {size} bytes")
    if end != size:
        raise ModelFileError(f"{file}: {size - end} bytes after the last tensor")
    return tuple(entries)


def _parse_entry(file: Path, name: str, fields: object, data_start: int) -> TensorEntry:
    where = f"{file}: tensor {name}"
    if not isinstance(fields, dict):
        raise ModelFileError(f"{where} is not described by an object")
    dtype, shape, offsets = (fields.get(key) for key in ("dtype", "shape", "data_offsets"))
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        raise ModelFileError(f"{where} has dtype {dtype!r}, which is unknown")
    if not _are_sizes(shape):
        raise ModelFileError(f"{where} has no valid shape")
    if not _are_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise ModelFileError(f"{where} has no valid data_offsets")
    begin, end = offsets
    wanted = math.prod(shape) * ITEM_BYTES[dtype]
    if end - begin != wanted:
        raise ModelFileError(
            f"{where} has {end - begin} bytes, but {dtype} of shape {tuple(shape)} takes {wanted}"
        )
    return TensorEntry(name, file, dtype, tuple(shape), data_start + begin, end - begin)


def _are_sizes(value: object) -> TypeGuard[list[int]]:
    """Whether it is a list of whole numbers from 0 to what a file can have."""
    return isinstance(value, list) and all(
        isinstance(item, int) and not isinstance(item, bool) and 0 <= item < 2**63 for item in value
    )


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object in which no name comes twice, as JSON parsers would let pass."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name comes twice")
    return found
