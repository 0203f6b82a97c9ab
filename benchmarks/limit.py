"""The limit of a decode step: every weight and the keys and values so far are read once a token."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

from benchmarks.bandwidth import BandwidthMeter
from benchmarks.record import Series
from benchmarks.sides import Figures
from benchmarks.weights import KV_BYTES_PER_TOKEN

__all__ = ["BetweenReadings", "bytes_per_token"]

GB = 1e9


class BetweenReadings:
    """A side with a reading of the bandwidth right before and right after each measurement.

    ``bandwidth`` holds, for each round so far, the mean of the two in bytes a second.
    """

    def __init__(self, meter: BandwidthMeter, measure: Callable[[], Figures]) -> None:
        """``measure`` is the side."""
        self._meter = meter
        self._measure = measure
        self._ways: list[str] = []
        self.bandwidth: list[float] = []

    def __call__(self) -> Figures:
        """Measure once."""
        before = self._meter.measure()
        figures = self._measure()
        after = self._meter.measure()
        self._ways += [before.way, after.way]
        self.bandwidth.append(statistics.fmean((before.bytes_per_s, after.bytes_per_s)))
        return figures

    def limits(self, bytes_read: Sequence[int]) -> tuple[float, ...]:
        """Tokens a second that no engine can exceed, given the bytes that a token has to read."""
        return tuple(rate / read for rate, read in zip(self.bandwidth, bytes_read, strict=True))

    @property
    def series(self) -> Series:
        """The bandwidth in GB/s."""
        return Series("read bandwidth", "GB/s", tuple(rate / GB for rate in self.bandwidth))

    @property
    def note(self) -> str:
        """Which way of reading was the fastest."""
        return f"fastest way of reading: {statistics.mode(self._ways)}"


def bytes_per_token(figures: Figures, context_tokens: int) -> int:
    """Weights, and the keys and values of ``context_tokens``, that a decode step reads.

    The embedding is tied to the head, which reads all of it.
    """
    return figures.weight_bytes + context_tokens * KV_BYTES_PER_TOKEN
