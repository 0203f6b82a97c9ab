"""Which tokens of a chunk may look at which tokens of the context, as a mask to add to scores.

It knows positions only. A chunk at the start of a context and a single token need no mask;
everything else takes a slice of one matrix that grows with the context and is shared by all
blocks, so that a step allocates no mask.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["MASK_ROWS", "CausalMasks"]

MASK_ROWS = 256
"""The most tokens of a chunk that are attended to at a time: it bounds the mask's memory to
``MASK_ROWS * (context + MASK_ROWS)`` elements, 4 MiB for 8,192 tokens in bf16."""


class CausalMasks:
    """Masks for chunks that follow a history, all of them views of one matrix.

    Whether row ``i`` of a chunk may see a column depends only on how far the column is from the
    chunk's start, so the mask for any ``start`` is a run of columns of the matrix that is laid
    out around it. Not safe for use from several threads at once.
    """

    def __init__(self) -> None:
        """Start with no matrix."""
        self._matrix = torch.empty(0, 0)
        self._history = -1

    def mask(self, rows: int, start: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        """For ``rows`` tokens, the first at position ``start``: (rows, start + rows), 0 or -inf.

        A view: don't write to it.

        Raises:
            ValueError: more than ``MASK_ROWS`` rows.
        """
        if not 0 < rows <= MASK_ROWS:
            raise ValueError(f"a mask has 1 to {MASK_ROWS} rows, not {rows}")
        stale = (self._matrix.dtype, self._matrix.device) != (dtype, device)
        if stale or start > self._history:
            # Powers of two: a context that grows chunk by chunk rebuilds it seldom.
            self._history = max(MASK_ROWS, 1 << (start - 1).bit_length())
            columns = self._history + MASK_ROWS
            everything_hidden = torch.full((MASK_ROWS, columns), float("-inf"), dtype=dtype)
            self._matrix = everything_hidden.triu_(self._history + 1).to(device)
        return self._matrix[:rows, self._history - start : self._history + rows]
