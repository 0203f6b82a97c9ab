"""What a decode step costs as the context grows: it should be a straight line.

The slope is the cost of reading one more token's keys and values; whatever copies history would
bend the line or make it steep. As the machine drifts meanwhile, each step is also held against its
own limit, with the bandwidth read beside it: a straight line has the same share of it everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from benchmarks.bench import Bench, Row
from benchmarks.limit import BetweenReadings, bytes_per_token
from benchmarks.plot import Points, line_plot
from benchmarks.record import Finding, Outcome, Series
from benchmarks.sides import Figures, gptnode_bench
from benchmarks.stats import Line, Summary, fit_line, ratios
from benchmarks.weights import KV_BYTES_PER_TOKEN

__all__ = ["CONTEXT_CURVE", "CurvePoint", "curve_outcome", "line_of"]

CONTEXTS_TOKENS = (1024, 2048, 4096, 8192, 16384)
STRAIGHT = 0.05
"""How far, as a share of a step, medians may be off a line whose slope means something."""
NAME = "context-curve"


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """One length: for each round tokens a second, and those that the bandwidth would allow."""

    context_tokens: int
    rates: tuple[float, ...]
    limits: tuple[float, ...]

    @property
    def steps_ms(self) -> tuple[float, ...]:
        """Milliseconds of a step in each round."""
        return tuple(1000 / rate for rate in self.rates)

    @property
    def median_ms(self) -> float:
        """Over the rounds."""
        return Summary.of(self.steps_ms).median


def measure_context_curve(bench: Bench) -> Outcome:
    """All lengths in each round, and a plot of the medians."""
    folder = bench.weights.folder("bf16")

    def step(context: int) -> Figures:
        return gptnode_bench(bench, ("--model-dir", folder, "--context", str(context)))

    sides = {
        f"{context:,} tokens": BetweenReadings(bench.meter, partial(step, context))
        for context in CONTEXTS_TOKENS
    }
    found = bench.in_turn(sides)
    curve = []
    for context, name in zip(CONTEXTS_TOKENS, sides, strict=True):
        middle = context + bench.settings.tokens // 2
        limits = sides[name].limits([bytes_per_token(each, middle) for each in found[name]])
        rates = tuple(each.decode_tokens_per_s for each in found[name])
        curve.append(CurvePoint(context, rates, limits))
    bench.results.mkdir(parents=True, exist_ok=True)
    (bench.results / f"{NAME}.svg").write_text(_picture(curve), encoding="utf-8")
    return curve_outcome(curve)


def line_of(curve: Sequence[CurvePoint]) -> Line:
    """Through the medians: milliseconds over tokens of context."""
    contexts = [point.context_tokens for point in curve]
    return fit_line(contexts, [point.median_ms for point in curve])


def curve_outcome(curve: Sequence[CurvePoint]) -> Outcome:
    """The steps, their shares of the limit, and the line in words."""
    line = line_of(curve)
    notes = [
        f"the medians are at most {100 * line.worst_deviation:.1f} % off a straight line",
        f"a token of context has {KV_BYTES_PER_TOKEN:,} bytes of keys and values",
    ]
    # Off the line, or falling: the machine drifted by more than what keys and values cost.
    if line.slope > 0 and line.worst_deviation <= STRAIGHT:
        rate = KV_BYTES_PER_TOKEN / line.slope / 1e6
        notes.append(f"the slope of the line reads them at {rate:.1f} GB/s")
    return Outcome(
        tuple(
            Series(f"a step at {point.context_tokens:,} tokens", "ms", point.steps_ms)
            for point in curve
        ),
        tuple(
            Finding(
                f"decode at {point.context_tokens:,} tokens / its read-bandwidth limit",
                "x",
                ratios(point.rates, point.limits),
            )
            for point in curve
        ),
        tuple(notes),
    )


def _picture(curve: Sequence[CurvePoint]) -> str:
    contexts, line = [point.context_tokens for point in curve], line_of(curve)
    return line_plot(
        "A decode step in bf16 as the context grows",
        ("tokens of context", "ms"),
        Points(contexts, [point.median_ms for point in curve]),
        Points(contexts, [line.at(context) for context in contexts]),
    )


CONTEXT_CURVE = Row(
    NAME, "a decode step at 1k to 16k tokens of context, with a plot", measure_context_curve
)
