"""What a measurement found, and the figures that are made of it.

Everything that was measured is kept, token by token; a figure is a property. Knows neither how the
times were taken nor how they are shown.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from gptnode.node.bench_machine import MachineInfo, Versions
from gptnode.node.timing import HopTiming, TokenTiming
from gptnode.span import Span

__all__ = [
    "BenchReport",
    "BenchRun",
    "MeasuredHop",
    "Together",
    "Waterfall",
    "median_timing",
    "percentile",
]


@dataclass(frozen=True, slots=True)
class MeasuredHop:
    """A hop of the route; ``label`` is ``local``, and ``peer_id`` None, for this node's blocks."""

    label: str
    peer_id: str | None
    span: Span


@dataclass(frozen=True, slots=True)
class BenchRun:
    """One prefill into empty caches, and the decode steps after it."""

    prefill: TokenTiming
    steps: tuple[TokenTiming, ...]


@dataclass(frozen=True, slots=True)
class Together:
    """What all users together needed: for their prefills, and then for their decode steps."""

    prefill_s: float
    decode_s: float


@dataclass(frozen=True, slots=True)
class Waterfall:
    """Medians over tokens: what the client itself did, and what each hop did."""

    client: HopTiming
    hops: tuple[HopTiming, ...]

    @property
    def total_s(self) -> float:
        """All parts together: close to the median of the totals, but medians don't add up."""
        return self.client.total_s + sum(hop.total_s for hop in self.hops)


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchReport:
    """One measurement: its circumstances, its runs (at least one, of at least one step each).

    ``context_tokens`` were in the caches when the first decode step began. ``load_s`` is the time
    from the names of the files to open sessions with loaded weights. The three sizes are of this
    process alone, after the last step; a peer's memory isn't known here.

    With several ``users`` each has a run of its own in each repetition, and ``together`` says how
    long all of them took; what is counted in tokens per second is then what all got.
    """

    model: str
    dtype: str
    device: str
    threads: int
    prompt_tokens: int
    tokens: int
    context_tokens: int
    load_s: float
    hops: tuple[MeasuredHop, ...]
    runs: tuple[BenchRun, ...]
    resident_bytes: int
    weight_bytes: int
    kv_bytes: int
    versions: Versions
    machine: MachineInfo
    users: int = 1
    together: tuple[Together, ...] = ()

    @property
    def steps_s(self) -> tuple[float, ...]:
        """All decode steps of all runs, in the order in which they were taken."""
        return tuple(step.total_s for run in self.runs for step in run.steps)

    @property
    def ttft_s(self) -> float:
        """Time to first token: from the prompt's ids to the next one, sessions being open."""
        return median(run.prefill.total_s for run in self.runs)

    @property
    def prefill_tokens_per_s(self) -> float:
        """Prompt tokens over the time to first token; head and sampler are part of that."""
        if self.together:
            return (
                self.users * self.prompt_tokens / median(each.prefill_s for each in self.together)
            )
        return self.prompt_tokens / self.ttft_s

    @property
    def decode_tokens_per_s(self) -> float:
        """What the median step comes to; of several users, all tokens over all of the time."""
        if self.together:
            return self.users * self.tokens / median(each.decode_s for each in self.together)
        return 1 / median(self.steps_s)

    @property
    def decode(self) -> Waterfall:
        """Where the time of a decode step goes."""
        return _waterfall([step for run in self.runs for step in run.steps])

    @property
    def prefill(self) -> Waterfall:
        """Where the time of the prefill goes, its chunks added up."""
        return _waterfall([run.prefill for run in self.runs])


def percentile(values: Sequence[float], percent: float) -> float:
    """``percent`` of ``values`` (at least one) are at most this; linear between neighbours."""
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    below, above = math.floor(place), math.ceil(place)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def median_timing(timings: Sequence[HopTiming]) -> HopTiming:
    """The median of each part by itself."""
    return HopTiming(
        median(timing.queue_s for timing in timings),
        median(timing.compute_s for timing in timings),
        median(timing.serialise_s for timing in timings),
        median(timing.wire_s for timing in timings),
    )


def _waterfall(tokens: Sequence[TokenTiming]) -> Waterfall:
    hops = zip(*(token.hops for token in tokens), strict=True)
    return Waterfall(
        median_timing([token.client for token in tokens]),
        tuple(median_timing(timings) for timings in hops),
    )
