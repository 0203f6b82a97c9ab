"""A model folder whose weights were changed where its fingerprint doesn't look."""

from __future__ import annotations

import shutil
from pathlib import Path

from gptnode.model.safetensors_file import read_safetensors_header

SEEN_BYTES = 64
"""Of the beginning, the middle and the end of each tensor."""


def tampered_copy(folder: Path, copy: Path, tensor: str) -> Path:
    """``copy`` is ``folder``, but the numbers of a part of ``tensor`` have the other sign."""
    shutil.copytree(folder, copy)
    file = copy / "model.safetensors"
    (entry,) = [entry for entry in read_safetensors_header(file) if entry.name == tensor]
    size = {"F32": 4, "BF16": 2, "F16": 2}[entry.dtype]
    start = entry.offset + SEEN_BYTES
    stop = entry.offset + entry.n_bytes // 2 - SEEN_BYTES
    content = bytearray(file.read_bytes())
    for at in range(start + size - 1, stop, size):  # the byte that has the sign
        content[at] ^= 0x80
    file.write_bytes(content)
    return copy
