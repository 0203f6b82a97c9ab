"""A message to another process and back: what encryption and many streams add to bare sockets."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

from benchmarks.bench import Bench, Row
from benchmarks.processes import run_json
from benchmarks.record import Finding, Outcome, Series, Target
from benchmarks.stats import ratios

__all__ = ["ECHO"]

WORKER = Path(__file__).resolve().parent.parent / "workers" / "echo.py"
AT_MOST = {8 * 1024: 2.0, 4 * 1024 * 1024: 1.6}
"""For each size in bytes, how many times the time of bare sockets."""
SIDES = {
    "raw": "trio sockets",
    "gptnode": "gptnode",
    "yamux": "gptnode over Yamux",
    "stock": "py-libp2p",
}


def measure_echo(bench: Bench) -> Outcome:
    """All sides in turn, in blocks of a quarter of a second; each round has fresh processes."""

    def medians(n_bytes: int) -> dict[str, float]:
        answer = run_json([sys.executable, WORKER, "--bytes", str(n_bytes)])
        return {side: float(answer[side]) for side in SIDES}

    found = bench.in_turn({_size(n_bytes): partial(medians, n_bytes) for n_bytes in AT_MOST})
    series, findings = [], []
    for n_bytes, most in AT_MOST.items():
        times = {side: tuple(one[side] for one in found[_size(n_bytes)]) for side in SIDES}
        for side, name in SIDES.items():
            series.append(Series(f"{name}, {_size(n_bytes)}", "ms", times[side]))
            if side != "raw":
                target = Target(most, at_least=False) if side == "gptnode" else None
                finding = f"{name} / {SIDES['raw']}, {_size(n_bytes)}"
                findings.append(Finding(finding, "x", ratios(times[side], times["raw"]), target))
    note = "round trips over loopback; the other process reads a whole message, then sends it back"
    return Outcome(tuple(series), tuple(findings), (note,))


def _size(n_bytes: int) -> str:
    return f"{n_bytes >> 20} MiB" if n_bytes >> 20 else f"{n_bytes >> 10} KiB"


ECHO = Row("echo", "a message to another node and back, beside bare sockets", measure_echo)
