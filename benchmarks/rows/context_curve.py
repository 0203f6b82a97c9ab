"""What a decode step costs as the context grows: it should be a straight line.

The slope is the cost of reading one more token's keys and values; whatever copies history would
bend the line or make it steep.
"""

from __future__ import annotations

import statistics
from functools import partial

from benchmarks.bench import Bench, Row
from benchmarks.plot import Points, line_plot
from benchmarks.record import Finding, Outcome, Series, Target
from benchmarks.sides import gptnode_bench
from benchmarks.stats import fit_line
from benchmarks.weights import KV_BYTES_PER_TOKEN

__all__ = ["CONTEXT_CURVE", "curve_outcome"]

CONTEXTS_TOKENS = (1024, 2048, 4096, 8192, 16384)
STRAIGHT = 0.10
"""How far, as a share, the worst point may be off the line. Machines drift by as much."""
NAME = "context-curve"


def measure_context_curve(bench: Bench) -> Outcome:
    """All lengths in each round, and a plot of the medians."""
    folder = bench.weights.folder("bf16")

    def step_ms(context: int) -> float:
        figures = gptnode_bench(bench, ("--model-dir", folder, "--context", str(context)))
        return 1000 / figures.decode_tokens_per_s

    found = bench.in_turn(
        {f"{context:,} tokens": partial(step_ms, context) for context in CONTEXTS_TOKENS}
    )
    steps_ms = [tuple(values) for values in found.values()]
    medians = [statistics.median(values) for values in steps_ms]
    line = fit_line(CONTEXTS_TOKENS, medians)
    picture = line_plot(
        "A decode step in bf16 as the context grows",
        ("tokens of context", "ms"),
        Points(CONTEXTS_TOKENS, medians),
        Points(CONTEXTS_TOKENS, [line.at(x) for x in CONTEXTS_TOKENS]),
    )
    bench.results.mkdir(parents=True, exist_ok=True)
    (bench.results / f"{NAME}.svg").write_text(picture, encoding="utf-8")
    return curve_outcome(CONTEXTS_TOKENS, steps_ms)


def curve_outcome(contexts: tuple[int, ...], steps_ms: list[tuple[float, ...]]) -> Outcome:
    """A line through each round: how straight, and how fast keys and values are read.

    Args:
        contexts: tokens of context.
        steps_ms: for each context, a step in each round.
    """
    lines = [fit_line(contexts, each) for each in zip(*steps_ms, strict=True)]
    # A line that falls means that the drift of the machine is all that was measured.
    rates = tuple(KV_BYTES_PER_TOKEN / max(line.slope, 1e-9) / 1e6 for line in lines)
    return Outcome(
        tuple(
            Series(f"a step at {context:,} tokens", "ms", values)
            for context, values in zip(contexts, steps_ms, strict=True)
        ),
        (
            Finding(
                "worst deviation from a straight line",
                "of a step",
                tuple(line.worst_deviation for line in lines),
                Target(STRAIGHT, at_least=False),
            ),
            Finding("keys and values are read at (slope of the line)", "GB/s", rates),
        ),
        (f"a token of context has {KV_BYTES_PER_TOKEN:,} bytes of keys and values",),
    )


CONTEXT_CURVE = Row(
    NAME, "a decode step at 1k to 16k tokens of context, with a plot", measure_context_curve
)
