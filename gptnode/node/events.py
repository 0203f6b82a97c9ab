"""What happened to a service, as lines for people: the last ones are kept, and all are told once.

Knows lines and the clock; who makes them and who shows them is others' business.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["EventLog", "SwarmEvent"]

MAX_EVENTS = 100
MAX_EVENT_CHARS = 500
SAME_WITHIN_S = 10.0
"""Several contexts notice the same thing; what is said again so soon is the same event."""


@dataclass(frozen=True, slots=True)
class SwarmEvent:
    """One line. ``number`` counts from 1 and never comes twice; ``at_s`` is in Unix time."""

    number: int
    at_s: float
    text: str


class EventLog:
    """Hands lines on, each once within ``SAME_WITHIN_S``, and keeps the last ``MAX_EVENTS``."""

    def __init__(
        self, report: Callable[[str], None], *, clock: Callable[[], float] = time.time
    ) -> None:
        """No lines yet.

        Args:
            report: Shows a line.
            clock: Unix time in seconds.
        """
        self._report = report
        self._clock = clock
        self._events: deque[SwarmEvent] = deque(maxlen=MAX_EVENTS)
        self._count = 0

    def say(self, line: str) -> None:
        """Something happened."""
        now_s = self._clock()
        text = line if len(line) <= MAX_EVENT_CHARS else f"{line[: MAX_EVENT_CHARS - 1]}…"
        for event in reversed(self._events):
            if not 0 <= now_s - event.at_s < SAME_WITHIN_S:
                break
            if event.text == text:
                return
        self._count += 1
        self._events.append(SwarmEvent(self._count, now_s, text))
        self._report(line)

    def events(self) -> tuple[SwarmEvent, ...]:
        """The last lines, oldest first."""
        return tuple(self._events)
