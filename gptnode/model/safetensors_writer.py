"""A safetensors file whose tensors are written one by one, after a header that names them all.

The format is described in `gptnode.model.safetensors_file`. So a file never has to be in memory as
a whole, and its tensors may be made in any order. Knows no tensor by name.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Final, Self

import torch
from torch import Tensor

from gptnode.model.dtypes import STORED_DTYPES
from gptnode.model.safetensors_file import ITEM_BYTES, TensorEntry

__all__ = ["SafetensorsWriter", "plan_file"]

ALIGNMENT: Final = 64
"""Tensors begin at a multiple of so many bytes, a cache line, if those before them let them."""


class SafetensorsWriter:
    """Writes the tensors of one file; to be used in a ``with`` block.

    Resource handling: the file is open for as long as the block lasts. At its regular end the bytes
    are on the disk; an error leaves an unfinished file to the caller.
    """

    def __init__(self, entries: Iterable[TensorEntry], header: bytes) -> None:
        """Both come from `plan_file`; the file is made, or made anew.

        Raises:
            OSError: it can't be written.
        """
        self._entries: Mapping[str, TensorEntry] = MappingProxyType(
            {entry.name: entry for entry in entries}
        )
        (file,) = {entry.file for entry in self._entries.values()}
        self._missing = set(self._entries)
        self._stream = file.open("wb")
        self._stream.write(header)

    def write(self, name: str, tensor: Tensor) -> None:
        """Write the tensor ``name``, of any device, in its place.

        Raises:
            ValueError: it isn't what was planned.
            OSError: it can't be written.
        """
        entry = self._entries[name]
        planned = STORED_DTYPES[entry.dtype], entry.shape
        if (tensor.dtype, tuple(tensor.shape)) != planned:
            raise ValueError(f"{entry.where} is {tensor.dtype} {tuple(tensor.shape)}")
        self._stream.seek(entry.offset)
        flat = tensor.detach().to("cpu").contiguous().view(-1).view(torch.uint8)
        self._stream.write(flat.numpy().data)
        self._missing.discard(name)

    def __enter__(self) -> Self:
        """The file is open already."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the file; ValueError if a tensor wasn't written."""
        try:
            if error is None:
                if self._missing:
                    raise ValueError(f"never written: {', '.join(sorted(self._missing))}")
                self._stream.flush()
                os.fsync(self._stream.fileno())
        finally:
            self._stream.close()


def plan_file(
    file: Path, tensors: Iterable[tuple[str, str, tuple[int, ...]]]
) -> tuple[tuple[TensorEntry, ...], bytes]:
    """Where each of ``tensors`` will lie in ``file``, and what stands before the first of them.

    Args:
        file: Need not exist.
        tensors: Name, safetensors dtype and shape of each, in the order of their bytes.
    """
    listed: dict[str, object] = {"__metadata__": {"format": "pt"}}
    places = []
    end = 0
    for name, dtype, shape in tensors:
        begin, end = end, end + math.prod(shape) * ITEM_BYTES[dtype]
        listed[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
        places.append((name, dtype, shape, begin, end))
    text = json.dumps(listed, separators=(",", ":")).encode()
    text += b" " * (-(len(text) + 8) % ALIGNMENT)
    start = len(text) + 8
    return tuple(
        TensorEntry(name, file, dtype, shape, start + begin, end - begin)
        for name, dtype, shape, begin, end in places
    ), len(text).to_bytes(8, "little") + text
