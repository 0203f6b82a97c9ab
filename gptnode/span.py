"""Span: a contiguous run of Transformer blocks, the unit that routes, servers and caches share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["Span"]


@dataclass(frozen=True, order=True, slots=True)
class Span:
    """Half-open range of blocks ``[start, stop)`` of one model; never empty.

    People write and read spans inclusively (``"0-15"`` is sixteen blocks), as ``str()`` prints
    and ``parse`` takes them; code counts half-open.

    Raises:
        ValueError: ``start`` is negative or the span is empty.
    """

    start: int
    stop: int

    def __post_init__(self) -> None:
        """Reject a span that is empty or starts below block 0."""
        if self.start < 0 or self.stop <= self.start:
            raise ValueError(f"no such span of blocks: [{self.start}, {self.stop})")

    @classmethod
    def parse(cls, text: str) -> Span:
        """``"7"`` is block 7 alone, ``"0-15"`` the sixteen blocks 0 to 15; ValueError otherwise."""
        first, dash, last = text.strip().partition("-")
        if not (first.isascii() and first.isdigit()):
            raise ValueError(f"not a range of blocks: {text!r}")
        if dash and not (last.isascii() and last.isdigit()):
            raise ValueError(f"not a range of blocks: {text!r}")
        return cls(int(first), int(last if dash else first) + 1)

    def __len__(self) -> int:
        """How many blocks the span holds."""
        return self.stop - self.start

    def __iter__(self) -> Iterator[int]:
        """The block numbers in order."""
        return iter(range(self.start, self.stop))

    def __contains__(self, block: int) -> bool:
        """Whether ``block`` lies in the span."""
        return self.start <= block < self.stop

    def covers(self, other: Span) -> bool:
        """Whether every block of ``other`` lies in this span."""
        return self.start <= other.start and other.stop <= self.stop

    def __str__(self) -> str:
        """The inclusive form that people write: ``0-15``, or ``7`` for one block."""
        last = self.stop - 1
        return str(self.start) if last == self.start else f"{self.start}-{last}"
