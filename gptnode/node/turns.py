"""Who may go on: as many as there is room for, the others one after another, in order.

Knows neither what they do nor for how long.
"""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from gptnode.errors import ServiceBusyError

__all__ = ["Line", "Turns"]

LEAST_WAIT_S = 1.0
MOST_WAIT_S = 60.0
BLEND = 0.2


class Turns:
    """So many at once; first come, first served."""

    def __init__(self, at_once: int, most_waiting: int) -> None:
        """Nobody is there."""
        self._at_once = at_once
        self._most_waiting = most_waiting
        self._slots = trio.Semaphore(at_once, max_value=at_once)
        self._usual_s = LEAST_WAIT_S

    @property
    def busy(self) -> int:
        """How many have their turn."""
        return self._at_once - self._slots.value

    @property
    def waiting(self) -> int:
        """How many wait for it."""
        return self._slots.statistics().tasks_waiting

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a turn, which lasts as long as the block.

        Raises:
            ServiceBusyError: too many wait already.
        """
        try:
            self._slots.acquire_nowait()
        except trio.WouldBlock:
            if self.waiting >= self._most_waiting:
                raise ServiceBusyError(
                    f"{self.busy} answers are under way and {self.waiting} more wait",
                    self._wait_s(),
                ) from None
            await self._slots.acquire()
        began_s = trio.current_time()
        try:
            yield
        finally:
            self._usual_s += BLEND * (trio.current_time() - began_s - self._usual_s)
            self._slots.release()

    def _wait_s(self) -> float:
        """When whoever comes next would have a turn, about."""
        expected_s = self._usual_s * (self.waiting + 1) / self._at_once
        return min(MOST_WAIT_S, max(LEAST_WAIT_S, expected_s))


class Line:
    """Those who wait to be called, each by another one."""

    def __init__(self) -> None:
        """Nobody waits."""
        self._waiting: OrderedDict[object, trio.Event] = OrderedDict()
        self._called: weakref.WeakSet[object] = weakref.WeakSet()

    def __len__(self) -> int:
        """How many wait."""
        return len(self._waiting)

    async def wait(self, who: object) -> None:
        """Until ``who`` is called: after all others but, if it came to nothing, before them."""
        called = self._waiting[who] = trio.Event()
        if who in self._called:
            self._waiting.move_to_end(who, last=False)
        try:
            await called.wait()
        except BaseException:
            self._waiting.pop(who, None)
            if called.is_set():  # whoever called believes that somebody comes
                self.call()
            raise
        self._called.add(who)

    def call(self) -> None:
        """Call the first one, if anybody waits."""
        if self._waiting:
            self._waiting.popitem(last=False)[1].set()
