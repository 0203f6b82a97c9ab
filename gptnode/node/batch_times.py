"""How long batches take by the number of their rows, as seen so far, and what joining two saves.

How much of a batch's time is the reading of the weights differs between dtypes, and with what else
runs on the same cores: so it is measured, not reckoned.
"""

from __future__ import annotations

from weakref import WeakKeyDictionary

from gptnode.model.shard import BlockStack

__all__ = ["BatchTimes"]

NEW_SHARE = 0.25
"""The weight of the last batch in what one of its size usually takes."""

ROWS_A_READING = 4
"""For sizes not seen yet: so many rows take as long as reading the weights, which any batch costs."""


class BatchTimes:
    """Times of batches, in seconds. Not safe for use from several threads. Keeps no stack alive."""

    def __init__(self) -> None:
        """Nothing was seen yet."""
        self._usual_s: WeakKeyDictionary[BlockStack, dict[int, float]] = WeakKeyDictionary()

    def took(self, stack: BlockStack, rows: int, time_s: float) -> None:
        """A batch of ``rows`` rows over ``stack`` took ``time_s``."""
        usual_s = self._usual_s.setdefault(stack, {})
        before_s = usual_s.get(rows, time_s)
        usual_s[rows] = before_s + NEW_SHARE * (time_s - before_s)

    def usual_s(self, stack: BlockStack, rows: int) -> float:
        """What a batch of ``rows`` rows takes, judged by the size seen that is nearest; 0 without."""
        seen = self._usual_s.get(stack)
        if not seen:
            return 0.0
        nearest = min(seen, key=lambda size: abs(size - rows))
        return seen[nearest] * (ROWS_A_READING + rows) / (ROWS_A_READING + nearest)

    def saved_s(self, stack: BlockStack, rows: int, more: int) -> float:
        """What one batch of all rows saves beside a batch of ``rows`` and one of ``more``."""
        apart_s = self.usual_s(stack, rows) + self.usual_s(stack, more)
        return max(0.0, apart_s - self.usual_s(stack, rows + more))
