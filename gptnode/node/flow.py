"""Items through workers in a row, all at work at once: while one has an item, the next item is
with the worker before it.

Knows nothing of what an item is. Order is kept, and no worker holds more items than it has room for
and the one it works on.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Generic, TypeVar

import trio

__all__ = ["Worker", "flow"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Worker(Generic[T]):
    """``work`` is done on one item at a time; ``room`` items may wait for it."""

    work: Callable[[T], Awaitable[None]]
    room: int = 0


async def flow(
    items: AsyncGenerator[T],
    workers: Sequence[Worker[T]],
    done: Callable[[T], None],
) -> None:
    """Hand every item to all workers, one after another, and then to ``done``, in order.

    Error handling: the first error of ``items``, a worker or ``done`` cancels all others and is
    raised as it is. Items that ``done`` has seen went through all workers; of the others some
    workers have seen some.

    Resource handling: ``items`` is closed, however it ends.
    """
    errors: list[Exception] = []

    async def belt(
        source: AsyncIterator[T],
        work: Callable[[T], Awaitable[None]] | None,
        sink: trio.MemorySendChannel[T] | None,
    ) -> None:
        try:
            async for item in source:
                if work is not None:
                    await work(item)
                if sink is not None:
                    await sink.send(item)
                else:
                    done(item)
            if sink is not None:
                await sink.aclose()
        except Exception as error:
            errors.append(error)
            nursery.cancel_scope.cancel()

    async with aclosing(items), trio.open_nursery() as nursery:
        source: AsyncIterator[T] = items
        work = None
        for worker in workers:
            sink, following = trio.open_memory_channel[T](worker.room)
            nursery.start_soon(belt, source, work, sink)
            source, work = following, worker.work
        nursery.start_soon(belt, source, work, None)
    if errors:
        raise errors[0]
