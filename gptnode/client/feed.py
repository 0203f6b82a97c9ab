"""A queue from the node's thread to whoever waits for it: a plain thread, asyncio or trio."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Generic, TypeVar

import sniffio
import trio

__all__ = ["Feed"]

T = TypeVar("T")


class Feed(Generic[T]):
    """Items in their order, from one thread to another; one reader at a time."""

    def __init__(self) -> None:
        """Nothing came yet."""
        self._items: queue.SimpleQueue[T] = queue.SimpleQueue()
        self._wake: Callable[[], None] = _nobody

    def put(self, item: T) -> None:
        """From any thread; never waits."""
        self._items.put(item)
        self._wake()

    def get(self) -> T:
        """The next item; blocks the thread until it is there."""
        return self._items.get()

    async def aget(self) -> T:
        """The next item; other tasks run until it is there. Cancelled, it takes none."""
        while True:
            with suppress(queue.Empty):
                return self._items.get_nowait()
            woken, self._wake = _alarm()
            try:
                if self._items.empty():  # what came before the alarm was set rings no more
                    await woken()
            finally:
                self._wake = _nobody


def _alarm() -> tuple[Callable[[], Awaitable[object]], Callable[[], None]]:
    """What a task can wait for, and what ends the waiting from any thread."""
    if sniffio.current_async_library() == "trio":
        rung = trio.Event()
        token = trio.lowlevel.current_trio_token()

        def ring_trio() -> None:
            with suppress(trio.RunFinishedError):
                token.run_sync_soon(rung.set)

        return rung.wait, ring_trio
    loop, called = asyncio.get_running_loop(), asyncio.Event()

    def ring_asyncio() -> None:
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(called.set)

    return called.wait, ring_asyncio


def _nobody() -> None:
    """Nobody waits."""
