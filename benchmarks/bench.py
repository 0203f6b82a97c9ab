"""What every row is given: the weights, how much to measure, and the sides in turn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from benchmarks.bandwidth import BandwidthMeter
from benchmarks.record import Outcome, Settings
from benchmarks.weights import Weights

__all__ = ["Bench", "Row"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Bench:
    """How to measure; ``results`` is where plots go beside the records."""

    weights: Weights
    settings: Settings
    meter: BandwidthMeter
    results: Path
    report: Callable[[str], None]

    def in_turn(self, sides: Mapping[str, Callable[[], T]]) -> dict[str, list[T]]:
        """Measure the sides one after another, round by round: A, B, A, B, ...

        Machines are shared and drift by tens of percent within minutes. What is compared is
        therefore measured side by side, and compared within its round.

        Returns:
            For each side, what it returned in each round.
        """
        found: dict[str, list[T]] = {name: [] for name in sides}
        for number in range(1, self.settings.rounds + 1):
            for name, measure in sides.items():
                self.report(f"round {number} of {self.settings.rounds}: {name}")
                found[name].append(measure())
        return found


@dataclass(frozen=True, slots=True)
class Row:
    """One command: its name, what it measures in one line, and how.

    ``rivals`` tells whether the rivals' environment is needed.
    """

    name: str
    title: str
    measure: Callable[[Bench], Outcome]
    rivals: bool = False
