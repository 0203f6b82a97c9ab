"""What signals do to a command that holds things which have to be closed.

Only from the main thread, as Python has it.
"""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import trio

from gptnode.node.nursery import background_nursery

__all__ = ["TERMINATED", "Interrupt", "call_on_signals", "until_terminated"]

TERMINATED = 143
"""What a shell reports for a process that SIGTERM ended."""


async def until_terminated(run: Callable[[], Awaitable[None]]) -> bool:
    """``run``; SIGTERM and SIGHUP cancel it, so that it closes all, and make this True."""
    with trio.CancelScope() as everything:
        async with background_nursery() as nursery:
            await nursery.start(call_on_signals, everything.cancel, signal.SIGTERM, signal.SIGHUP)
            await run()
    return everything.cancelled_caught


class Interrupt:
    """What a SIGINT does at the moment: nothing, or one call."""

    def __init__(self) -> None:
        """Nothing, to begin with."""
        self._action: Callable[[], None] | None = None

    def __call__(self) -> None:
        """The signal came."""
        if self._action is not None:
            self._action()

    @contextmanager
    def calls(self, action: Callable[[], None] | None) -> Iterator[None]:
        """Inside the block, the signal calls ``action`` (or does nothing)."""
        before, self._action = self._action, action
        try:
            yield
        finally:
            self._action = before


async def call_on_signals(
    call: Callable[[], None],
    *signals: signal.Signals,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Calls ``call`` for each of ``signals`` that the process gets, until it is cancelled.

    For SIGINT needed beside `stop_on_keys`: another process may send the signal, and a terminal
    that isn't raw turns Ctrl-C into it. Only from the main thread.
    """
    with trio.open_signal_receiver(*signals) as received:
        task_status.started()
        async for _ in received:
            call()
