"""Decode at 8,192 tokens of context, where keys and values are a part of what a token reads."""

from __future__ import annotations

from benchmarks.bench import Bench, Row
from benchmarks.limit import BetweenReadings, bytes_per_token
from benchmarks.record import Finding, Outcome, Series, Target
from benchmarks.sides import gptnode_bench
from benchmarks.stats import ratios

__all__ = ["LONG_CONTEXT"]

CONTEXT_TOKENS = 8192
SIDE = f"gptnode bf16 at {CONTEXT_TOKENS:,} tokens"


def measure_long_context(bench: Bench) -> Outcome:
    """Against the limit of weights and KV bytes."""
    where = ("--model-dir", bench.weights.folder("bf16"), "--context", str(CONTEXT_TOKENS))
    ours = BetweenReadings(bench.meter, lambda: gptnode_bench(bench, where))
    found = bench.in_turn({SIDE: ours})[SIDE]
    rates = tuple(figures.decode_tokens_per_s for figures in found)
    middle = CONTEXT_TOKENS + bench.settings.tokens // 2
    read = [bytes_per_token(figures, middle) for figures in found]
    limits = ours.limits(read)
    return Outcome(
        (Series(SIDE, "tokens/s", rates), ours.series, Series("limit", "tokens/s", limits)),
        (
            Finding(
                f"decode at {CONTEXT_TOKENS:,} tokens / its read-bandwidth limit",
                "x",
                ratios(rates, limits),
                Target(0.80),
            ),
        ),
        (f"a token reads {read[-1] / 1e9:.3f} GB; {ours.note}",),
    )


LONG_CONTEXT = Row(
    "long-context",
    f"decode at {CONTEXT_TOKENS:,} tokens of context against its limit",
    measure_long_context,
)
