"""The keyboard while an answer streams: Space or Ctrl-C stops it, other keys wait for the prompt.

POSIX terminals only. Nothing here knows what is being stopped.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from collections.abc import Set as AbstractSet
from contextlib import asynccontextmanager

import trio
from prompt_toolkit.input import Input
from prompt_toolkit.input.typeahead import store_typeahead
from prompt_toolkit.key_binding import KeyPress
from prompt_toolkit.keys import Keys

from gptnode.node.nursery import background_nursery

__all__ = ["CTRL_C", "SPACE_OR_CTRL_C", "stop_on_keys"]

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
