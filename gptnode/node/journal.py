"""What one hop was given since its context began, row by row, to give it to somebody else too.

Beside the pipeline's ReplayLog, which keeps whole steps for the hops that failed and loses what was
never answered: this one is of one session alone, and is complete while a step is still under way.
"""

from __future__ import annotations

from bisect import bisect_right

import torch
from torch import Tensor

__all__ = ["Journal"]

LIMIT_BYTES = 256 << 20


class Journal:
    """The rows that a hop's cache was made of.

    Resource handling: holds at most ``limit_bytes``. Beyond that, it lets all of them go and is
    ``over`` until a context begins anew.
    """

    def __init__(self, *, limit_bytes: int = LIMIT_BYTES) -> None:
        """Nothing was given yet."""
        self.over = False
        self._limit_bytes = limit_bytes
        self._starts: list[int] = []
        self._rows: list[Tensor] = []
        self._length = 0
        self._bytes = 0

    def __len__(self) -> int:
        """How many rows there are: the position of the next one."""
        return self._length

    def record(self, position: int, hidden: Tensor) -> None:
        """The hop is given ``hidden`` (1, T, D) at ``position``, in place of all from there on."""
        self.cut(position)
        if self.over:
            return
        # A copy: what came out of a stage may be memory that its next step writes to.
        rows = hidden.detach().to("cpu", copy=True)
        self._starts.append(position)
        self._rows.append(rows)
        self._bytes += rows.nbytes
        if position > self._length or self._bytes > self._limit_bytes:
            self._forget()
            self.over = True
        else:
            self._length = position + rows.shape[1]

    def cut(self, length: int) -> None:
        """All rows from position ``length`` on are taken back."""
        while self._starts and self._starts[-1] >= length:
            self._starts.pop()
            self._bytes -= self._rows.pop().nbytes
        if self._starts and length < self._length:
            last = self._rows[-1]
            self._rows[-1] = last[:, : length - self._starts[-1]].clone()
            self._bytes -= last.nbytes - self._rows[-1].nbytes
        self._length = min(self._length, length)
        if length == 0:
            self.over = False

    def rows(self, start: int, stop: int) -> Tensor:
        """Rows ``start`` to ``stop`` (not included), which are there: (1, T, D)."""
        first = bisect_right(self._starts, start) - 1
        last = bisect_right(self._starts, stop - 1)
        found = torch.cat(self._rows[first:last], dim=1)
        offset = start - self._starts[first]
        return found[:, offset : offset + stop - start]

    def _forget(self) -> None:
        self._starts.clear()
        self._rows.clear()
        self._length = self._bytes = 0
