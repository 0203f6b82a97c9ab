"""Medians, ratios round by round, a straight line: all the statistics that a row needs.

Knows numbers only, not what was measured.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

__all__ = ["Line", "Summary", "differences", "fit_line", "ratios"]


@dataclass(frozen=True, slots=True)
class Summary:
    """Median, least and greatest of the values of all rounds."""

    median: float
    least: float
    greatest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """Of at least one value.

        Raises:
            ValueError: there is none.
        """
        if not values:
            raise ValueError("nothing was measured")
        return cls(statistics.median(values), min(values), max(values))


@dataclass(frozen=True, slots=True)
class Line:
    """``y = intercept + slope * x``, and by which share of y the worst point is off it."""

    slope: float
    intercept: float
    worst_deviation: float

    def at(self, x: float) -> float:
        """The line's y."""
        return self.intercept + self.slope * x


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, ...]:
    """Ours over theirs, for each round: what drifts for both sides cancels.

    Raises:
        ValueError: the sides have not the same number of rounds.
    """
    return tuple(a / b for a, b in zip(ours, theirs, strict=True))


def differences(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, ...]:
    """Ours less theirs, for each round.

    Raises:
        ValueError: the sides have not the same number of rounds.
    """
    return tuple(a - b for a, b in zip(ours, theirs, strict=True))


def fit_line(xs: Sequence[float], ys: Sequence[float]) -> Line:
    """The line of least squares through at least two points with different x and positive y.

    Raises:
        statistics.StatisticsError: there is no such line.
    """
    slope, intercept = statistics.linear_regression(xs, ys)
    worst = max(abs(intercept + slope * x - y) / y for x, y in zip(xs, ys, strict=True))
    return Line(slope, intercept, worst)
