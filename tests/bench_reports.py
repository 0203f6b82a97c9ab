"""Measurements that nobody took, with round numbers."""

from __future__ import annotations

from collections.abc import Sequence

from gptnode.node.bench_machine import MachineInfo, Versions
from gptnode.node.bench_report import BenchReport, BenchRun, MeasuredHop
from gptnode.node.timing import HopTiming, TokenTiming
from gptnode.span import Span


def token(ms: float) -> TokenTiming:
    """A token of ``ms``: half of it anna's, four tenths ben's, the rest the client's."""
    s = ms / 1000
    return TokenTiming(
        total_s=s,
        tokens=1,
        attempts=1,
        client=HopTiming(0.02 * s, 0.08 * s, 0.0, 0.0),
        hops=(
            HopTiming(0.05 * s, 0.25 * s, 0.05 * s, 0.15 * s),
            HopTiming(0.0, 0.3 * s, 0.05 * s, 0.05 * s),
        ),
    )


def two_hop_report(
    steps_ms: Sequence[Sequence[float]] = ((10.0, 20.0, 30.0),),
    prefills_ms: Sequence[float] = (200.0,),
    *,
    also: TokenTiming | None = None,
    label: str = "anna",
) -> BenchReport:
    """A run for each prefill; ``also`` is one more step of the first."""
    steps = [[token(ms) for ms in run] for run in steps_ms]
    steps += [[] for _ in prefills_ms[len(steps) :]]
    if also is not None:
        steps[0].append(also)
    runs = zip(prefills_ms, steps, strict=True)
    return BenchReport(
        model="tiny",
        dtype="bf16",
        device="cpu",
        threads=2,
        prompt_tokens=512,
        tokens=len(steps[0]),
        context_tokens=600,
        load_s=1.25,
        hops=(
            MeasuredHop(label, "12D3KooWanna", Span(0, 3)),
            MeasuredHop("ben", "12D3KooWben", Span(3, 4)),
        ),
        runs=tuple(BenchRun(token(ms), tuple(run)) for ms, run in runs),
        resident_bytes=300 << 20,
        weight_bytes=3 << 29,
        kv_bytes=0,
        versions=Versions("0.1.0", "2.13.0", "3.11.7"),
        machine=MachineInfo("Difference Engine", 1, 4 << 30),
    )
