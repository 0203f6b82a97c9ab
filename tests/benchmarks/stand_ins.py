"""Sides that answer at once, in the place of processes that take minutes."""

from __future__ import annotations

from pathlib import Path

from benchmarks.bandwidth import Bandwidth, BandwidthMeter
from benchmarks.bench import Bench
from benchmarks.record import Settings
from benchmarks.weights import Weights


class StubMeter(BandwidthMeter):
    """Reads the rates that it was given, one after another."""

    def __init__(self, *rates: float) -> None:
        self._rates = iter(rates)

    def measure(self) -> Bandwidth:
        return Bandwidth(next(self._rates), "stub")


def stub_bench(
    folder: Path, *rates: float, rounds: int = 2, reported: list[str] | None = None
) -> Bench:
    """A bench whose weights must not be touched."""
    lines = reported if reported is not None else []
    weights = Weights(folder / "work", folder / "python", lines.append)
    settings = Settings(rounds=rounds, prompt_tokens=512, tokens=64, threads=2)
    return Bench(weights, settings, StubMeter(*rates), folder / "results", lines.append)
