"""A queue in which everybody has a line of their own, and the lines take turns.

Knows neither what is waited for nor who waits.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["FairQueue"]

T = TypeVar("T")


class FairQueue(Generic[T]):
    """Items in lines: first come, first served within a line, and one item a line in turn.

    A line that was served goes behind all others. So whoever stands first in a line waits for at
    most one item of each other line, however long those are. Not safe for use from several threads.
    """

    def __init__(self) -> None:
        """Nobody waits."""
        self._lines: OrderedDict[str, deque[T]] = OrderedDict()
        self._size = 0

    def __len__(self) -> int:
        """How many items wait, in all lines."""
        return self._size

    def put(self, line: str, item: T) -> None:
        """Behind all other items of ``line``."""
        self._lines.setdefault(line, deque()).append(item)
        self._size += 1

    def take(self, fits: Callable[[T], bool] = lambda item: True) -> T | None:
        """The next item that ``fits``, which leaves the queue; None if there is none.

        Of a line it is the first that fits, even if it doesn't stand first.
        """
        for line, items in self._lines.items():
            place = next((place for place, item in enumerate(items) if fits(item)), None)
            if place is None:
                continue
            item = items[place]
            del items[place]
            self._size -= 1
            if items:
                self._lines.move_to_end(line)
            else:
                del self._lines[line]
            return item
        return None
