"""Activations in 8 bit: each row of numbers from -127 to 127, and what to multiply it with.

A row's scale is a 127th of its largest number, so that this one comes out as it went in. Therefore
rows that were sent once are sent again, by whoever got them, as the very same bytes: with q = x / s
rounded, q s in bf16 is off by less than a 256th of itself, and 127 / 256 is too little to make it
another number when it is rounded again. So rounding happens once, however many times a row travels:
from hop to hop through a client, in a ring, or again for a hop that is filled anew.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["as_travelled", "scale_down", "scale_up"]

LARGEST = 127
LEAST = 2.0**-100
"""Rows whose largest number is smaller are taken for zero: what is left of a scale has no bits."""


def scale_down(hidden: Tensor) -> tuple[Tensor, Tensor]:
    """Rows (..., D) in bf16 -> numbers (..., D) in int8 and scales (...) in f32.

    Rows with NaN or Inf get a scale that isn't finite, and so do what comes of them.
    """
    rows = hidden.to(torch.float32)
    largest = rows.abs().amax(dim=-1, keepdim=True)
    scales = torch.where(largest < LEAST, 0.0, largest / LARGEST)
    rows.div_(torch.where(scales == 0, torch.inf, scales)).round_()
    return rows.to(torch.int8), scales.squeeze(-1)


def scale_up(numbers: Tensor, scales: Tensor) -> Tensor:
    """What `scale_down` was given, but for rounding: rows (..., D) in bf16."""
    return numbers.to(torch.float32).mul_(scales.unsqueeze(-1)).to(torch.bfloat16)


def as_travelled(hidden: Tensor) -> Tensor:
    """Rows (..., D) in bf16 as they are once they were sent."""
    return scale_up(*scale_down(hidden))
