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


class BatchTimes:
    """Times of batches, in seconds. Not safe for use from several threads. Keeps no stack alive."""

    def __init__(self) -> None:
        """Nothing was seen yet."""
        self._seen: WeakKeyDictionary[BlockStack, dict[int, float]] = WeakKeyDictionary()
        self._usual: WeakKeyDictionary[BlockStack, dict[int, float]] = WeakKeyDictionary()

    def took(self, stack: BlockStack, rows: int, time_s: float) -> None:
        """A batch of ``rows`` rows over ``stack`` took ``time_s``.

        One that was slow for another reason may not be thought slow for ever: smaller batches take
        no longer than larger ones, and larger ones no longer than several smaller ones.
        """
        self._usual.pop(stack, None)
        seen = self._seen.setdefault(stack, {})
        before_s = seen.get(rows, time_s)
        usual_s = seen[rows] = before_s + NEW_SHARE * (time_s - before_s)
        for size in seen:
            seen[size] = min(seen[size], usual_s * max(1.0, size / rows))

    def usual_s(self, stack: BlockStack, rows: int) -> float:
        """What a batch of ``rows`` rows takes: between two sizes seen, what lies between them.

        Beyond all of them it is what the nearest took, as if more rows were free: so a larger batch
        is tried once, and is known from then on. 0 where nothing was seen.
        """
        usual = self._usual.setdefault(stack, {})
        if rows not in usual:
            usual[rows] = _between(self._seen.get(stack, {}), rows)
        return usual[rows]

    def saved_s(self, stack: BlockStack, rows: int, more: int) -> float:
        """What one batch of all rows saves beside a batch of ``rows`` and one of ``more``.

        At most what a batch of ``rows`` takes: a larger one is never thought to take less.
        """
        apart_s = self.usual_s(stack, rows) + self.usual_s(stack, more)
        return max(0.0, apart_s - self.usual_s(stack, rows + more))


def _between(seen: dict[int, float], rows: int) -> float:
    below = max((size for size in seen if size <= rows), default=None)
    above = min((size for size in seen if size >= rows), default=None)
    if below is None or above is None or below == above:
        nearest = above if below is None else below
        return 0.0 if nearest is None else seen[nearest]
    share = (rows - below) / (above - below)
    return seen[below] + share * (seen[above] - seen[below])
