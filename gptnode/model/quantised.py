"""Matrices of 8-bit or 4-bit integers with a scale for each group: made, unpacked, looked up.

Rounding to nearest, weights only: a weight is an integer of its own times a scale that it shares
with its neighbours in the row. Plain torch; knows no files, no tensor names and no fast kernels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "GROUP_4",
    "GROUP_8",
    "PAD",
    "QuantisedWeight",
    "empty_quantised",
    "group_size",
    "padded_width",
    "quantise",
    "quantise_into",
]

PAD: Final = 128
"""Rows are filled with zeros to a multiple of so many weights."""

GROUP_8: Final = 128
"""Weights of one row that share a scale in 8 bit."""

GROUP_4: Final = 32
"""Weights of one row that share a scale in 4 bit."""

BLOCK_WEIGHTS: Final = 2**20
"""So many weights are in f32 at a time: they stay in a core's cache."""


@dataclass(frozen=True, slots=True, eq=False)
class QuantisedWeight:
    """A matrix (N, K) as integers and scales; K is padded with zeros to Kp, a multiple of PAD.

    8 bit: ``values`` is int8 (N, Kp), ``scales`` bf16 (N, Kp / GROUP_8).

    4 bit: ``values`` is uint8 (N, Kp / 2), ``scales`` bf16 (N, Kp / GROUP_4). Each run of 128
    weights of a row is 64 bytes: byte j holds weight j in its lower half and weight 64 + j in its
    upper half, each with 8 added. So one mask, or one shift, yields 64 weights in their order.

    A weight is its integer times its group's scale.

    Raises:
        ValueError: the tensors don't fit ``shape`` or each other.
    """

    values: Tensor
    scales: Tensor
    shape: tuple[int, int]

    def __post_init__(self) -> None:
        """Check dtypes and shapes; the numbers themselves are not looked at."""
        if self.values.dtype not in (torch.int8, torch.uint8):
            raise ValueError(f"values are {self.values.dtype}, neither int8 nor uint8")
        if self.scales.dtype != torch.bfloat16:
            raise ValueError(f"scales are {self.scales.dtype}, not bfloat16")
        rows, width = self.shape[0], padded_width(self.shape[1])
        due = (rows, width * self.bits // 8), (rows, width // self.group)
        if (tuple(self.values.shape), tuple(self.scales.shape)) != due:
            raise ValueError(
                f"values {tuple(self.values.shape)} and scales {tuple(self.scales.shape)} for a "
                f"matrix {self.shape} in {self.bits} bit, which takes {due[0]} and {due[1]}"
            )

    @property
    def bits(self) -> int:
        """Bits of one weight: 8 or 4."""
        return 8 if self.values.dtype == torch.int8 else 4

    @property
    def group(self) -> int:
        """Weights of a row that share a scale."""
        return group_size(self.bits)

    @property
    def nbytes(self) -> int:
        """Bytes of values and scales."""
        return self.values.nbytes + self.scales.nbytes

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.values.device

    def to(self, device: torch.device) -> QuantisedWeight:
        """The same matrix on ``device``; itself if it is there."""
        if device == self.device:
            return self
        return QuantisedWeight(self.values.to(device), self.scales.to(device), self.shape)

    def part(self, start: int, stop: int) -> QuantisedWeight:
        """Rows ``start`` to ``stop``, in the same memory."""
        values, scales = self.values[start:stop], self.scales[start:stop]
        return QuantisedWeight(values, scales, (values.shape[0], self.shape[1]))

    def dequantise(self, dtype: torch.dtype = torch.bfloat16) -> Tensor:
        """The matrix (N, K) in ``dtype``: products are exact in f32 and rounded once."""
        result = torch.empty(self.shape, dtype=dtype, device=self.device)
        rows = _block_rows(padded_width(self.shape[1]))
        for start in range(0, self.shape[0], rows):
            part = slice(start, start + rows)
            result[part] = _multiply(self.values[part], self.scales[part], self.shape[1])
        return result

    def rows(self, index: Tensor, dtype: torch.dtype = torch.bfloat16) -> Tensor:
        """Rows ``index`` (...), int32 or int64, as (..., K) in ``dtype``: an embedding's lookup.

        Raises:
            IndexError: there is no such row.
        """
        flat = index.reshape(-1).to(self.device)
        found = _multiply(self.values[flat], self.scales[flat], self.shape[1])
        return found.to(dtype).view(*index.shape, self.shape[1])


def group_size(bits: int) -> int:
    """Weights of a row that share a scale.

    Raises:
        ValueError: weights can't have ``bits`` bits.
    """
    if bits not in (8, 4):
        raise ValueError(f"weights of {bits} bits; there are 8 and 4")
    return GROUP_8 if bits == 8 else GROUP_4


def padded_width(width: int) -> int:
    """``width`` rounded up to a multiple of PAD."""
    return -(-width // PAD) * PAD


def quantise(weight: Tensor, bits: int) -> QuantisedWeight:
    """``weight`` (N, K) of any float dtype in 8 or 4 bit, on its device.

    8 bit: a group's scale is its largest magnitude / 127, rounded up to bf16, so that integers
    are -127 to 127. 4 bit: the scale is the element of the largest magnitude, with its sign, / -8,
    rounded to bf16 away from zero, so that this element becomes -8 and the others -8 to 7 (as
    llama.cpp's Q4_0 has it); of two such elements with opposite signs the negative one counts.
    Halves are rounded to even. A group of zeros has scale 0.

    Raises:
        ValueError: the weights hold NaN or Inf, aren't a matrix, or ``bits`` is neither 8 nor 4.
    """
    if weight.ndim != 2 or not weight.is_floating_point():
        raise ValueError(f"{weight.dtype} of shape {tuple(weight.shape)} is no matrix of floats")
    rows, width = weight.shape
    result = empty_quantised((rows, width), bits, weight.device)
    quantise_into(weight, result, 0)
    return result


def empty_quantised(shape: tuple[int, int], bits: int, device: torch.device) -> QuantisedWeight:
    """Room for a matrix (N, K), not yet written to.

    Raises:
        ValueError: ``bits`` is neither 8 nor 4.
    """
    rows, width = shape[0], padded_width(shape[1])
    return QuantisedWeight(
        torch.empty(
            (rows, width * bits // 8), dtype=torch.int8 if bits == 8 else torch.uint8, device=device
        ),
        torch.empty((rows, width // group_size(bits)), dtype=torch.bfloat16, device=device),
        shape,
    )


def quantise_into(weight: Tensor, result: QuantisedWeight, first: int) -> None:
    """Write ``weight`` (n, K) as rows ``first`` to ``first + n`` of ``result``; see `quantise`.

    So a matrix need never be in memory as a whole in its own dtype.

    Raises:
        ValueError: the weights hold NaN or Inf, or don't fit.
    """
    if weight.shape[1] != result.shape[1] or first + weight.shape[0] > result.shape[0]:
        raise ValueError(f"{tuple(weight.shape)} from row {first} on in a matrix {result.shape}")
    width = padded_width(weight.shape[1])
    rows = _block_rows(width)
    for start in range(0, weight.shape[0], rows):
        wide = weight[start : start + rows].to(torch.float32)
        if width > wide.shape[1]:
            wide = F.pad(wide, (0, width - wide.shape[1]))
        groups = wide.view(wide.shape[0], width // result.group, result.group)
        target = slice(first + start, first + start + wide.shape[0])
        if result.bits == 8:
            scales, values = _round_8(groups)
            result.values[target] = values.flatten(1)
        else:
            scales, values = _round_4(groups)
            result.values[target] = _pack(values)
        if not scales.isfinite().all():
            raise ValueError("the weights hold NaN or Inf")
        result.scales[target] = scales


def _block_rows(width: int) -> int:
    return max(1, BLOCK_WEIGHTS // max(1, width))


def _round_8(groups: Tensor) -> tuple[Tensor, Tensor]:
    """Groups f32 (n, G, 128) -> scales f32 (n, G) that bf16 holds, int8 of the groups' shape."""
    scales = _away_from_zero(groups.abs().amax(-1) / 127)
    return scales, _divide(groups, scales).round_().clamp_(-127, 127).to(torch.int8)


def _round_4(groups: Tensor) -> tuple[Tensor, Tensor]:
    """Groups f32 (n, G, 32) -> scales f32 (n, G) that bf16 holds, int8 of the groups' shape."""
    least, most = groups.amin(-1), groups.amax(-1)
    # Adding 0 turns -0.0, the scale of a group of zeros, into 0.0: one model, one fingerprint.
    scales = _away_from_zero(torch.where(most > -least, most, least) / -8 + 0.0)
    return scales, _divide(groups, scales).round_().clamp_(-8, 7).to(torch.int8)


def _away_from_zero(numbers: Tensor) -> Tensor:
    """f32 rounded to what bf16 holds, away from zero; its bits are the upper half of f32's."""
    bits = numbers.contiguous().view(torch.int32)
    return ((bits + 0xFFFF) & -0x10000).view(torch.float32)


def _divide(groups: Tensor, scales: Tensor) -> Tensor:
    """Groups (n, G, g) by their scales (n, G), 0 where the scale is 0."""
    return groups / torch.where(scales == 0, 1.0, scales).unsqueeze(-1)


def _pack(values: Tensor) -> Tensor:
    """int8 -8 to 7 (n, G, 32), four groups a run -> uint8 (n, 16 G)."""
    halves = (values + 8).view(torch.uint8).view(values.shape[0], -1, 2, PAD // 2)
    return (halves[:, :, 0] | (halves[:, :, 1] << 4)).flatten(1)


def _unpack(packed: Tensor) -> Tensor:
    """uint8 (n, Kp / 2) -> int8 -8 to 7 (n, Kp)."""
    runs = packed.view(packed.shape[0], -1, PAD // 2)
    return torch.stack((runs & 15, runs >> 4), -2).flatten(1).view(torch.int8) - 8


def _multiply(values: Tensor, scales: Tensor, width: int) -> Tensor:
    """Some rows of integers and their scales -> f32 (n, ``width``), exact."""
    integers = values if values.dtype == torch.int8 else _unpack(values)
    groups = integers.to(torch.float32).view(*scales.shape, -1) * scales.unsqueeze(-1)
    return groups.flatten(1)[:, :width]
