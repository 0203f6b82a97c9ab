"""The bytes of one tensor of a file: mapped as a tensor, cut into rows, sampled.

What they hold stands in a `TensorEntry`; it was checked when the header was read. Nothing here
knows what a tensor is for.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from gptnode.errors import ModelFileError
from gptnode.model.dtypes import STORED_DTYPES
from gptnode.model.safetensors_file import TensorEntry

__all__ = ["map_tensor", "row_slices", "sample_tensors"]

SAMPLE_BYTES: Final = 64
SLICE_BYTES: Final = 32 * 2**20


def map_tensor(entry: TensorEntry) -> Tensor:
    """The tensor as a mapping of just its own bytes, in its own dtype.

    Writing to it would change this process's copy alone. The tensor keeps the mapping alive.

    Raises:
        ModelFileError: the file is gone or shorter than it was.
    """
    dtype = STORED_DTYPES[entry.dtype]
    if entry.n_bytes == 0:
        return torch.empty(entry.shape, dtype=dtype)
    # Mappings begin at a page, tensors anywhere.
    before = entry.offset % mmap.ALLOCATIONGRANULARITY
    try:
        with entry.file.open("rb") as stream:
            pages = mmap.mmap(
                stream.fileno(),
                before + entry.n_bytes,
                access=mmap.ACCESS_COPY,
                offset=entry.offset - before,
            )
    except (OSError, ValueError) as error:
        raise ModelFileError(f"{entry.where} can't be mapped ({error})") from error
    count = math.prod(entry.shape)
    if before % dtype.itemsize:
        # A header of odd length: kernels want elements to be aligned.
        aligned = bytearray(memoryview(pages)[before:])
        return torch.frombuffer(aligned, dtype=dtype, count=count).view(entry.shape)
    return torch.frombuffer(pages, dtype=dtype, count=count, offset=before).view(entry.shape)


def row_slices(entry: TensorEntry) -> Iterator[tuple[int, TensorEntry]]:
    """A matrix (N, K) as parts of at most 32 MiB, or one row: the first row of each, and where.

    A part that was worked off and is dropped leaves this process's memory.
    """
    rows, width = entry.shape
    row_bytes = entry.n_bytes // max(rows, 1)
    step = max(1, SLICE_BYTES // max(row_bytes, 1))
    for start in range(0, rows, step):
        count = min(step, rows - start)
        offset = entry.offset + start * row_bytes
        yield (
            start,
            replace(entry, shape=(count, width), offset=offset, n_bytes=count * row_bytes),
        )


def sample_tensors(file: Path, entries: list[TensorEntry]) -> list[bytes]:
    """The first, middle and last bytes of each tensor, read without mapping the file.

    Raises:
        ModelFileError: the file can't be read, or has become shorter.
    """
    samples = []
    try:
        with file.open("rb", buffering=0) as stream:
            for entry in entries:
                size = min(SAMPLE_BYTES, entry.n_bytes)
                parts = []
                for start in (0, (entry.n_bytes - size) // 2, entry.n_bytes - size):
                    stream.seek(entry.offset + start)
                    parts.append(stream.read(size))
                sample = b"".join(parts)
                if len(sample) != 3 * size:
                    raise ModelFileError(f"{entry.where} has become shorter")
                samples.append(sample)
    except OSError as error:
        raise ModelFileError(f"{file}: can't be read ({error})") from error
    return samples
