"""A script that is stopped leaves nothing behind: a signal ends it the way Ctrl-C does.

Contexts are left then: servers are killed, folders removed. Knows signals only.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["stoppable"]


@contextmanager
def stoppable() -> Iterator[None]:
    """SIGTERM and SIGHUP are KeyboardInterrupt in the block, and so is SIGINT, even in a job that a
    shell started in the background."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        yield
    except BaseExceptionGroup as group:  # it may strike in any task
        if group.subgroup(KeyboardInterrupt) is None:
            raise
        raise KeyboardInterrupt from None


def _interrupt(number: int, frame: FrameType | None) -> None:
    """By way of SIGINT, which trio knows how to take."""
    signal.signal(number, signal.SIG_IGN)
    signal.raise_signal(signal.SIGINT)
