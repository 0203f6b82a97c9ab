"""Resident memory over time: does it grow once a process is warm?"""

from __future__ import annotations

from dataclasses import dataclass, field

from proof.swarm import Reading

__all__ = ["FLAT_BYTES", "Memory"]

WARM_UP = 0.1
FLAT_BYTES = 64 << 20
"""What the allocator may keep after the warm-up."""


@dataclass
class Memory:
    """Readings of one server, each with its time."""

    readings: list[tuple[float, Reading]] = field(default_factory=list)

    def after_warm_up(self) -> list[tuple[float, int]]:
        """Seconds and resident bytes, without the first tenth."""
        skipped = round(len(self.readings) * WARM_UP)
        return [(at_s, reading.rss_bytes) for at_s, reading in self.readings[skipped:]]

    def growth_bytes(self) -> int:
        """The highest reading over the first one."""
        found = self.after_warm_up()
        return max(rss for _, rss in found) - found[0][1] if found else 0

    def slope_bytes_s(self) -> float:
        """Of the straight line that fits best."""
        found = self.after_warm_up()
        if len(found) < 2:
            return 0.0
        mean_s = sum(at_s for at_s, _ in found) / len(found)
        mean = sum(rss for _, rss in found) / len(found)
        below = sum((at_s - mean_s) ** 2 for at_s, _ in found)
        return sum((at_s - mean_s) * (rss - mean) for at_s, rss in found) / below
