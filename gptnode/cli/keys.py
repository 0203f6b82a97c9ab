"""The keyboard while an answer streams: Space or Ctrl-C stops it, other keys wait for the prompt.

POSIX terminals only. Nothing here knows what is being stopped.
"""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Callable, Iterator
from collections.abc import Set as AbstractSet
from contextlib import asynccontextmanager, contextmanager

import trio
from prompt_toolkit.input import Input
from prompt_toolkit.input.typeahead import store_typeahead
from prompt_toolkit.key_binding import KeyPress
from prompt_toolkit.keys import Keys

from gptnode.node.nursery import background_nursery

__all__ = ["CTRL_C", "SPACE_OR_CTRL_C", "Interrupt", "call_on_signals", "stop_on_keys"]

CTRL_C = frozenset({Keys.ControlC})
"""The key that stops everything."""

SPACE_OR_CTRL_C = CTRL_C | {" "}
"""The keys that stop an answer."""

NOISE = frozenset({Keys.CPRResponse, Keys.Vt100MouseEvent, Keys.WindowsMouseEvent, Keys.SIGINT})
"""What a terminal sends on its own: no typing."""


@asynccontextmanager
async def stop_on_keys(
    keyboard: Input, stop: Callable[[], None], stops: AbstractSet[str] = SPACE_OR_CTRL_C
) -> AsyncIterator[None]:
    """Calls ``stop`` for every key of ``stops`` that is pressed inside the block.

    The terminal is in raw mode inside (no echo; Ctrl-C is a key, not a signal) and as it was
    before afterwards, however the block ends. Other keys are kept for the next prompt on
    ``keyboard``. *Errors* of the block come out as they are, never in an exception group.
    """
    typed: list[KeyPress] = []
    with keyboard.raw_mode():
        try:
            async with background_nursery() as nursery:
                nursery.start_soon(_watch, keyboard, stop, stops, typed)
                yield
        finally:
            typed.extend(key for key in keyboard.flush_keys() if key.key not in stops)
            store_typeahead(keyboard, typed)


async def _watch(
    keyboard: Input, stop: Callable[[], None], stops: AbstractSet[str], typed: list[KeyPress]
) -> None:
    """Reads keys until it is cancelled or the terminal is gone."""
    while not keyboard.closed:
        await trio.lowlevel.wait_readable(keyboard.fileno())
        for key in keyboard.read_keys():
            if key.key in stops:
                stop()
            elif key.key not in NOISE:
                typed.append(key)


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
