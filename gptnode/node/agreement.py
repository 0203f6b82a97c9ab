"""When two answers for the same step are the same, but for rounding.

Knows tensors and dtypes; no peers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import torch
from torch import Tensor

from gptnode.span import Span

__all__ = ["MAX_TOLERANCE", "TOLERANCES", "distance", "tolerance"]

TOLERANCES: Final[Mapping[str, float]] = MappingProxyType(
    {"f32": 5e-4, "f16": 5e-3, "bf16": 0.03, "int8": 0.05, "int4": 0.06}
)
"""How far apart, as `distance` has it, two honest answers for one block may be; see `tolerance`.

The same step comes out otherwise in another kernel, on another processor, or among other rows. Of
the 600 rows of a text on the bundled model, alone and 256 at once, which is two sets of kernels,
the worst were apart, for 1, 4 and all 8 blocks: f32 7e-7, 1.3e-6, 2.6e-6; f16 0.0006, 0.0015,
0.0029; bf16 0.0035, 0.011, 0.021; int8 0.008, 0.015, 0.032; int4 0.013, 0.023, 0.05. For 16 blocks
of 1.2e9 weights it was 0.023 in bf16 and 0.063 in int4. What is allowed is three times that at
least. A quarter of one matrix of four blocks with the other sign makes 0.66 and more."""

SCALED_TOLERANCE: Final = 0.05
"""How much more where activations travel in 8 bit: two answers that are a little apart are rounded
to neighbouring numbers. On the bundled model 0.016 became 0.024; rows of a few large numbers among
many small ones are rounded more coarsely."""

MAX_TOLERANCE: Final = 0.3
"""However many blocks: two answers that have nothing in common are 1.4 apart."""


def tolerance(dtype_name: str, span: Span, *, scaled: bool = False) -> float:
    """How far apart two honest answers may be; ``scaled``: they travelled in 8 bit.

    Each block rounds on its own: errors add up as the square root of their number.
    """
    more = SCALED_TOLERANCE if scaled else 0.0
    return min(MAX_TOLERANCE, TOLERANCES[dtype_name] * math.sqrt(len(span)) + more)


def distance(left: Tensor, right: Tensor) -> float:
    """How far two answers (B, T, D) are apart: 0 for the same ones, up to 2.

    For each row the length of the difference, in lengths of the longer of the two; the largest of
    all rows, as a single wrong row is a wrong answer.
    """
    a, b = (rows.detach().to("cpu", torch.float64) for rows in (left, right))
    lengths = torch.maximum(a.norm(dim=-1), b.norm(dim=-1)).clamp_min(torch.finfo(a.dtype).tiny)
    found = float(((a - b).norm(dim=-1) / lengths).max())
    return found if math.isfinite(found) else math.inf
