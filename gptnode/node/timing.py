"""Where the time of a step went, hop by hop: plain numbers, all in seconds.

Knows nothing of who measures and who shows them. The parts of a hop always add up to the time that
passed for whoever waited for it, whatever a peer claims.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["HopTiming", "Tally", "TokenTiming"]


@dataclass(frozen=True, slots=True)
class HopTiming:
    """One step, or several added up, through one hop; the four parts are all of its time.

    ``queue_s``: waiting for the compute lane, and on this node for being woken by it.
    ``compute_s``: in the lane, to the end of the work on its device. A peer counts the reading,
    checking and writing of the tensors as well.
    ``serialise_s``: this node's tensors to bytes and back, and the check of what came.
    ``wire_s``: all the rest of a round trip. That is the network, encryption, scheduling, and what
    the protocol has no field for: the coding of messages on both sides.
    """

    queue_s: float = 0.0
    compute_s: float = 0.0
    serialise_s: float = 0.0
    wire_s: float = 0.0

    @property
    def total_s(self) -> float:
        """The sum of the four."""
        return self.queue_s + self.compute_s + self.serialise_s + self.wire_s

    def __add__(self, other: HopTiming) -> HopTiming:
        """Both, one after the other."""
        return HopTiming(
            self.queue_s + other.queue_s,
            self.compute_s + other.compute_s,
            self.serialise_s + other.serialise_s,
            self.wire_s + other.wire_s,
        )

    @classmethod
    def here(cls, total_s: float, compute_s: float) -> HopTiming:
        """Work in this node's lane that was waited for ``total_s`` in all."""
        return cls(max(0.0, total_s - compute_s), compute_s)

    @classmethod
    def round_trip(
        cls, total_s: float, *, queue_s: float, compute_s: float, serialise_s: float
    ) -> HopTiming:
        """A step at a peer that took ``total_s`` as seen from here.

        ``queue_s`` and ``compute_s`` are the peer's own word: what exceeds the time that passed
        is cut off, the end of the computation first.
        """
        away_s = max(0.0, total_s - serialise_s)
        queue_s = min(queue_s, away_s)
        compute_s = min(compute_s, away_s - queue_s)
        return cls(queue_s, compute_s, serialise_s, away_s - queue_s - compute_s)


@dataclass(frozen=True, slots=True)
class TokenTiming:
    """What one token cost a client: ``client`` and ``hops`` together are all of ``total_s``.

    But for a prompt of several chunks, on which the hops work at the same time: there the parts
    are what each was busy with, and together more than the time that passed.

    ``tokens`` went through the blocks for it (a prefill: many), after ``attempts``; more than one
    means that a hop failed on the way. ``client`` is the embedding, the head and the sampler, with
    opening or rewinding a pipeline and failed attempts counted as waiting.
    """

    total_s: float
    tokens: int
    attempts: int
    client: HopTiming
    hops: tuple[HopTiming, ...]


class Tally:
    """Adds up the chunks of one token."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.attempts = 0
        self._tokens = 0
        self._own_compute_s = 0.0
        self._hops: tuple[HopTiming, ...] = ()

    def begin(self) -> None:
        """A new attempt: what the failed one took is neither a hop's nor computation."""
        self.attempts += 1
        self._tokens = 0
        self._own_compute_s = 0.0
        self._hops = ()

    def own(self, compute_s: float) -> None:
        """Work of the client's own parts."""
        self._own_compute_s += compute_s

    def chunk(self, tokens: int, hops: Sequence[HopTiming]) -> None:
        """``tokens`` went through all hops."""
        self._tokens += tokens
        before = self._hops or (HopTiming(),) * len(hops)
        self._hops = tuple(a + b for a, b in zip(before, hops, strict=True))

    def done(self, total_s: float) -> TokenTiming:
        """The token is there, ``total_s`` after it was asked for."""
        own_s = max(self._own_compute_s, total_s - sum(hop.total_s for hop in self._hops))
        return TokenTiming(
            total_s,
            self._tokens,
            self.attempts,
            HopTiming.here(own_s, self._own_compute_s),
            self._hops,
        )
