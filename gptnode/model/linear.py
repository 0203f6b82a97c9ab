"""Linear layers over matrices in bf16, f16, f32, or in 8 or 4 bit.

Floats are torch's own business. Quantised matrices are multiplied in bf16: they are written out
into memory that all layers share, which costs little beside a product with many rows; few rows
are the business of the kernels (`gptnode.model.native`), which read the integers themselves.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from gptnode.model.native import binding as native
from gptnode.model.quantised import QuantisedWeight

__all__ = ["Linear", "Scratch", "one_row_products"]


WRITTEN_OUT: Final = 2**22
"""So many weights are in bf16 at a time, 8 MiB: more is no faster."""


class Scratch:
    """Memory that products are made in, kept from block to block and from step to step.

    Memory that comes from the system anew for each product costs a page fault for every 4 KiB.
    Not safe for use from several threads at once.
    """

    def __init__(self) -> None:
        """No memory yet."""
        self._buffers: dict[str, Tensor] = {}

    def take(self, slot: str, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Memory of ``shape``, in dtype and on the device of ``like``; what was there is lost.

        It is the same memory for the same ``slot``, so a result is valid until the next one.
        """
        count = math.prod(shape)
        buffer = self._buffers.get(slot)
        stale = buffer is None or (buffer.dtype, buffer.device) != (like.dtype, like.device)
        if buffer is None or stale or buffer.numel() < count:
            buffer = self._buffers[slot] = like.new_empty(count)
        return buffer[:count].view(shape)


@dataclass(frozen=True, slots=True)
class Linear:
    """``x @ weight.T + bias``; ``weight`` is (N, K), ``bias`` (N) or None."""

    weight: Tensor | QuantisedWeight
    bias: Tensor | None = None

    def __call__(self, x: Tensor, scratch: Scratch, slot: str) -> Tensor:
        """(..., K) -> (..., N), of the dtype of ``x``, in the memory ``slot`` of ``scratch``."""
        outputs, inputs = self.weight.shape
        rows = x.reshape(-1, inputs)
        result = scratch.take(slot, (rows.shape[0], outputs), x)
        if not isinstance(self.weight, QuantisedWeight):
            _multiply(rows, self.weight, self.bias, result)
            return result.view(*x.shape[:-1], outputs)
        at_once = max(1, WRITTEN_OUT // inputs)
        for start in range(0, outputs, at_once):
            stop = min(start + at_once, outputs)
            weight = _written_out(self.weight.part(start, stop), scratch)
            bias = self.bias[start:stop] if self.bias is not None else None
            _multiply(rows, weight, bias, result[:, start:stop])
        return result.view(*x.shape[:-1], outputs)

    @property
    def nbytes(self) -> int:
        """Bytes of weights and bias."""
        return self.weight.nbytes + (self.bias.nbytes if self.bias is not None else 0)


def _multiply(rows: Tensor, weight: Tensor, bias: Tensor | None, result: Tensor) -> None:
    """``result`` (T, N) = ``rows`` (T, K) times ``weight`` (N, K), plus ``bias`` (N)."""
    if bias is None:
        torch.mm(rows, weight.T, out=result)
    else:
        torch.addmm(bias, rows, weight.T, out=result)


def _written_out(weight: QuantisedWeight, scratch: Scratch) -> Tensor:
    """``weight`` (N, K) in bf16, valid until the next call."""
    if weight.device.type != "cpu" or not native.available:
        return weight.dequantise(torch.bfloat16)
    return native.dequantise(weight, scratch.take("weights", weight.shape, weight.scales))


@contextmanager
def one_row_products(x: Tensor, rows: int) -> Iterator[None]:
    """In here, products of ``rows`` rows like ``x`` run on torch's fastest operators for them.

    oneDNN reads bf16 weights at half the bandwidth of torch's own matrix-vector product. The switch
    counts for the whole process: products belong to one thread.
    """
    if rows != 1 or x.dtype != torch.bfloat16 or x.device.type != "cpu":
        yield
        return
    switches: Any = torch.backends.mkldnn  # without types
    before = switches.set_flags(False)
    try:
        yield
    finally:
        switches.set_flags(before[0])
