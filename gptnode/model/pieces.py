"""Steps that can be paused between their pieces, so that short ones needn't wait for long ones.

A piece is about as much as one large matrix product. Between two of them anything may run in the
same thread, over other caches; that changes no bit, because each product is made as it always is.
Knows nothing of blocks, nor of who waits.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager
from typing import TypeAlias

import torch
from torch import Tensor

__all__ = ["PausableStep", "Pieces", "finished"]

Pieces: TypeAlias = Generator[None, None, Tensor]
"""Work that may be paused wherever it yields, and returns a tensor in the end."""


def finished(work: Pieces) -> Tensor:
    """All of ``work`` without a pause."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            result: Tensor = end.value
            return result


class PausableStep:
    """A step under way.

    Resource handling: ``close``, or the last reference to it, gives up a step that isn't done; its
    cache is then as it was before.
    """

    def __init__(self, work: Pieces, around: Callable[[], AbstractContextManager[None]]) -> None:
        """``around``: what each piece runs in, besides inference mode."""
        self._work = work
        self._around = around

    def advance(self) -> Tensor | None:
        """Compute the next piece; the step's result if it was the last one.

        Raises:
            Exception: as the step does; there is nothing to advance after that.
        """
        with torch.inference_mode(), self._around():
            try:
                next(self._work)
            except StopIteration as end:
                result: Tensor = end.value
                return result
        return None

    def close(self) -> None:
        """Give up what isn't done."""
        self._work.close()
