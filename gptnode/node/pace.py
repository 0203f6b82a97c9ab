"""A peer's pace: is it only slow now, or so slow that a replica should take over?

Measured against the peer itself, so that a slow machine is no slow peer. Knows times alone.
"""

from __future__ import annotations

import math
import statistics
from collections import deque

__all__ = ["Pace"]

SLOW_TIMES = 20
SLOW_AT_LEAST_S = 1.0
SAMPLES = 33  # of the running median
ENOUGH_SAMPLES = 8
STRIKES = 3  # one hiccup is not slowness, and three in ten tokens are no hiccup
STRIKES_WITHIN = 10


class Pace:
    """Times of the steps of one token of one session.

    A step is slow if it takes more than 20 times the median of the last ones and more than a
    second. The peer is too slow as soon as the third step in ten is, or one takes as long as three.
    """

    def __init__(self) -> None:
        """Nothing is known, and nothing is slow."""
        self._usual: deque[float] = deque(maxlen=SAMPLES)
        self._slow: deque[bool] = deque(maxlen=STRIKES_WITHIN)

    @property
    def median_s(self) -> float:
        """Of the last steps that were not slow; 0 before the first."""
        return statistics.median(self._usual) if self._usual else 0.0

    @property
    def slow_s(self) -> float:
        """From when on a step is slow; infinite until enough is known."""
        if len(self._usual) < ENOUGH_SAMPLES:
            return math.inf
        return max(SLOW_AT_LEAST_S, SLOW_TIMES * self.median_s)

    @property
    def patience_s(self) -> float:
        """How long the next step may take before the peer is too slow."""
        return self.slow_s * max(1, STRIKES - sum(self._slow))

    def note(self, took_s: float) -> None:
        """A step of one token took that long."""
        slow = took_s > self.slow_s
        self._slow.append(slow)
        if not slow:
            self._usual.append(took_s)
