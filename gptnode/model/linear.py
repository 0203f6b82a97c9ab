"""Linear layers over matrices in bf16, f16, f32, or in 8 or 4 bit.

Floats are torch's own business. Quantised matrices are multiplied in bf16: they are written out
into memory that all layers share, which costs little beside a product with many rows; few rows
are the business of the kernels (`gptnode.model.native`), which read the integers themselves.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor

from gptnode.model.native import binding as native
from gptnode.model.quantised import QuantisedWeight

__all__ = ["Linear", "Scratch", "one_row_products"]


WRITTEN_OUT: Final = 2**23
"""So many weights are in bf16 at a time, 16 MiB: more is no faster."""


class Scratch:
    """Memory for weights that are written out in bf16, kept from product to product.

    Not safe for use from several threads at once.
    """

    def __init__(self) -> None:
        """No memory yet."""
        self._buffer = torch.empty(0, dtype=torch.bfloat16)

    def product(self, x: Tensor, weight: QuantisedWeight) -> Tensor:
        """``x`` (..., K) in bf16 times ``weight`` (N, K) -> (..., N)."""
        outputs, inputs = weight.shape
        at_once = max(1, WRITTEN_OUT // inputs)
        if outputs <= at_once:
            return F.linear(x, self._written_out(weight))
        rows = x.reshape(-1, inputs)
        result = x.new_empty(rows.shape[0], outputs)
        for start in range(0, outputs, at_once):
            part = weight.part(start, start + at_once)
            columns = result[:, start : start + at_once]
            torch.mm(rows, self._written_out(part).T, out=columns)
        return result.view(*x.shape[:-1], outputs)

    def _written_out(self, weight: QuantisedWeight) -> Tensor:
        """``weight`` (N, K) in bf16, valid until the next call."""
        if weight.device.type != "cpu" or not native.available:
            return weight.dequantise(torch.bfloat16)
        count = weight.shape[0] * weight.shape[1]
        if self._buffer.numel() < count:
            self._buffer = torch.empty(count, dtype=torch.bfloat16)
        return native.dequantise(weight, self._buffer[:count].view(weight.shape))


@dataclass(frozen=True, slots=True)
class Linear:
    """``x @ weight.T + bias``; ``weight`` is (N, K), ``bias`` (N) or None."""

    weight: Tensor | QuantisedWeight
    bias: Tensor | None = None

    def __call__(self, x: Tensor, scratch: Scratch) -> Tensor:
        """(..., K) -> (..., N), of the dtype of ``x``."""
        if not isinstance(self.weight, QuantisedWeight):
            return F.linear(x, self.weight, self.bias)
        result = scratch.product(x, self.weight)
        return result if self.bias is None else result + self.bias

    @property
    def nbytes(self) -> int:
        """Bytes of weights and bias."""
        return self.weight.nbytes + (self.bias.nbytes if self.bias is not None else 0)


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
