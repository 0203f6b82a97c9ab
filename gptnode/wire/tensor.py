"""WireTensor: the bytes of an array with their dtype and shape, as they travel.

Knows no torch: gptnode.node.tensors makes tensors of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from gptnode.errors import LocalProtocolError
from gptnode.wire.checks import check_integer

__all__ = [
    "ITEMSIZE_BYTES",
    "MAX_RANK",
    "MAX_TENSOR_BYTES",
    "SCALED",
    "WireTensor",
    "tensor_bytes",
]

SCALED: Final = "int8"
"""Numbers from -127 to 127 and, behind all of them, an f32 for each row to multiply it with."""

ITEMSIZE_BYTES: Final = MappingProxyType({"f32": 4, "f16": 2, "bf16": 2, "i32": 4, SCALED: 1})
"""What each number takes, without the scales of its row."""

SCALE_BYTES: Final = 4
MAX_TENSOR_BYTES: Final = 64 * 2**20
MAX_RANK: Final = 4


def tensor_bytes(dtype: str, shape: tuple[int, ...]) -> int:
    """What a tensor of that dtype and shape (at least one dimension) takes.

    A row is what the last dimension counts.
    """
    scales_bytes = SCALE_BYTES * math.prod(shape[:-1]) if dtype == SCALED else 0
    return math.prod(shape) * ITEMSIZE_BYTES[dtype] + scales_bytes


@dataclass(frozen=True, slots=True)
class WireTensor:
    """A tensor as it travels: row-major, little endian, without padding.

    ``dtype`` is one of ITEMSIZE_BYTES, ``shape`` has 1 to MAX_RANK dimensions of 1 or more, and
    ``data`` exactly the `tensor_bytes` that both imply. ``data`` isn't copied: as a memoryview it
    may look into a buffer of its owner (who leaves it alone until the message was written) or,
    received, into the frame's own buffer, which is writable and belongs to the receiver alone.

    Raises:
        LocalProtocolError: any of this doesn't hold.
    """

    dtype: str
    shape: tuple[int, ...]
    data: bytes | memoryview

    def __post_init__(self) -> None:
        """Check dtype, shape and length; see a memoryview as plain bytes."""
        if type(self.dtype) is not str or self.dtype not in ITEMSIZE_BYTES:
            raise LocalProtocolError(f"a tensor's dtype must be one of {', '.join(ITEMSIZE_BYTES)}")
        if type(self.shape) is not tuple or not 1 <= len(self.shape) <= MAX_RANK:
            raise LocalProtocolError(f"a tensor must have 1 to {MAX_RANK} dimensions")
        # Python's integers don't overflow; the bound on each keeps the product small.
        for size in self.shape:
            check_integer("a tensor's dimension", size, least=1, most=MAX_TENSOR_BYTES)
        due_bytes = tensor_bytes(self.dtype, self.shape)
        if due_bytes > MAX_TENSOR_BYTES:
            raise LocalProtocolError(f"a tensor may have {MAX_TENSOR_BYTES} bytes, not {due_bytes}")
        if isinstance(self.data, memoryview):
            if not self.data.c_contiguous:
                raise LocalProtocolError("a tensor's data must be contiguous")
            if self.data.format != "B" or self.data.ndim != 1:
                object.__setattr__(self, "data", self.data.cast("B"))
        elif type(self.data) is not bytes:
            raise LocalProtocolError("a tensor's data must be bytes or a memoryview")
        if len(self.data) != due_bytes:
            raise LocalProtocolError(
                f"a tensor of {self.dtype} {list(self.shape)} has {due_bytes} bytes,"
                f" not {len(self.data)}"
            )
