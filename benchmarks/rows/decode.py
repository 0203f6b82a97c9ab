"""Decode: tokens a second after a prompt, one at a time, against the rivals and the limit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from benchmarks.bench import Bench, Row
from benchmarks.limit import BetweenReadings, bytes_per_token
from benchmarks.record import Finding, Outcome, Series, Target
from benchmarks.sides import Figures, gptnode_bench, llama_cpp, transformers
from benchmarks.stats import ratios
from benchmarks.weights import GGUF_KINDS

__all__ = ["DECODE"]

UNIT = "tokens/s"


@dataclass(frozen=True, slots=True)
class DecodeTargets:
    """What the ratios shall be; None: nothing is asked, or the rival doesn't have the dtype."""

    llama_cpp: float
    limit: float | None = None
    transformers: float | None = None


def measure_decode(dtype: str, targets: DecodeTargets, bench: Bench) -> Outcome:
    """Alternating runs of all sides in one dtype."""
    where = ("--model-dir", bench.weights.folder(dtype))
    ours = BetweenReadings(bench.meter, lambda: gptnode_bench(bench, where))
    theirs = f"llama.cpp {GGUF_KINDS[dtype].upper()}"
    sides: dict[str, Callable[[], Figures]] = {
        f"gptnode {dtype}": ours,
        theirs: lambda: llama_cpp(bench, dtype),
    }
    if targets.transformers is not None:
        sides["transformers bf16"] = lambda: transformers(bench)
    found = bench.in_turn(sides)
    rates = {name: _decode_rates(figures) for name, figures in found.items()}
    own = rates[f"gptnode {dtype}"]
    # While the tokens are made the context grows; the median step stands in the middle.
    context = bench.settings.prompt_tokens + bench.settings.tokens // 2
    read = [bytes_per_token(figures, context) for figures in found[f"gptnode {dtype}"]]
    limits = ours.limits(read)
    findings = [
        _finding(f"decode {dtype} / {theirs}", own, rates[theirs], targets.llama_cpp),
        _finding(f"decode {dtype} / read-bandwidth limit", own, limits, targets.limit),
    ]
    if targets.transformers is not None:
        other = rates["transformers bf16"]
        findings.append(
            _finding(f"decode {dtype} / transformers", own, other, targets.transformers)
        )
    series = [Series(name, UNIT, values) for name, values in rates.items()]
    limit = Series("limit", UNIT, limits)
    note = f"a token reads {read[-1] / 1e9:.3f} GB; {ours.note}"
    return Outcome((*series, ours.series, limit), tuple(findings), (note,))


def _decode_rates(figures: list[Figures]) -> tuple[float, ...]:
    return tuple(each.decode_tokens_per_s for each in figures)


def _finding(
    name: str, ours: tuple[float, ...], theirs: tuple[float, ...], bound: float | None
) -> Finding:
    target = Target(bound) if bound is not None else None
    return Finding(name, "x", ratios(ours, theirs), target)


def _row(dtype: str, targets: DecodeTargets) -> Row:
    title = f"decode in {dtype} against the rivals and the read-bandwidth limit"
    return Row(f"decode-{dtype}", title, partial(measure_decode, dtype, targets), rivals=True)


DECODE = (
    _row("bf16", DecodeTargets(llama_cpp=1.05, limit=0.90, transformers=2.0)),
    _row("int8", DecodeTargets(llama_cpp=1.2)),
    _row("int4", DecodeTargets(llama_cpp=1.05)),
)
