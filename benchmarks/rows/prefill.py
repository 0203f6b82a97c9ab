"""Prefill: tokens a second of a prompt, against llama.cpp."""

from __future__ import annotations

from functools import partial

from benchmarks.bench import Bench, Row
from benchmarks.record import Finding, Outcome, Series, Target
from benchmarks.sides import gptnode_bench, llama_cpp
from benchmarks.stats import ratios
from benchmarks.weights import GGUF_KINDS

__all__ = ["PREFILL"]


def measure_prefill(dtype: str, bound: float, bench: Bench) -> Outcome:
    """Alternating runs of both sides in one dtype."""
    where = ("--model-dir", bench.weights.folder(dtype))
    ours, theirs = f"gptnode {dtype}", f"llama.cpp {GGUF_KINDS[dtype].upper()}"
    found = bench.in_turn(
        {
            ours: lambda: gptnode_bench(bench, where),
            theirs: lambda: llama_cpp(bench, dtype),
        }
    )
    rates = {
        name: tuple(each.prefill_tokens_per_s for each in figures)
        for name, figures in found.items()
    }
    name = f"prefill {dtype} / {theirs}"
    return Outcome(
        tuple(Series(side, "tokens/s", values) for side, values in rates.items()),
        (Finding(name, "x", ratios(rates[ours], rates[theirs]), Target(bound)),),
        (f"a prompt of {bench.settings.prompt_tokens} tokens",),
    )


def _row(dtype: str, bound: float) -> Row:
    title = f"prefill in {dtype} against llama.cpp"
    return Row(f"prefill-{dtype}", title, partial(measure_prefill, dtype, bound), rivals=True)


PREFILL = (_row("bf16", 1.5), _row("int8", 2.5), _row("int4", 1.4))
