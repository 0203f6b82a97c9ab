"""Steps of several rows through the blocks: what several users at once would get."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.bench import Bench, Row
from benchmarks.processes import run_json
from benchmarks.record import Finding, Outcome, Series
from benchmarks.stats import ratios
from benchmarks.weights import DTYPES

__all__ = ["BATCHED"]

WORKER = Path(__file__).resolve().parent.parent / "workers" / "batched_rows.py"
ROWS_A_STEP = (1, 2, 4, 8, 16, 32)


@dataclass(frozen=True, slots=True)
class Batches:
    """For each number of rows, the median step in milliseconds."""

    step_ms: tuple[float, ...]


def measure_batched(bench: Bench) -> Outcome:
    """All widths in all dtypes; the ratio says how many times one row's tokens a step brings."""
    folders = {dtype: bench.weights.folder(dtype) for dtype in DTYPES}

    def batches(dtype: str) -> Batches:
        settings = bench.settings
        answer = run_json(
            [
                *(sys.executable, WORKER, folders[dtype]),
                *("--tokens", str(settings.tokens), "--threads", str(settings.threads)),
                *("--rows", ",".join(map(str, ROWS_A_STEP))),
            ]
        )
        return Batches(tuple(float(value) for value in answer["step_ms"]))

    found = bench.in_turn({dtype: partial(batches, dtype) for dtype in DTYPES})
    series, findings = [], []
    for dtype, each in found.items():
        rates = [
            tuple(1000 * rows / one.step_ms[index] for one in each)
            for index, rows in enumerate(ROWS_A_STEP)
        ]
        for rows, values in zip(ROWS_A_STEP, rates, strict=True):
            series.append(Series(f"{dtype}, {rows} rows a step", "tokens/s", values))
            if rows > 1:
                name = f"{dtype}, {rows} rows a step / 1 row"
                findings.append(Finding(name, "x", ratios(values, rates[0])))
    note = "all 16 blocks with 128 tokens of context a row; without embedding and head"
    return Outcome(tuple(series), tuple(findings), (note,))


BATCHED = Row("batched", "steps of 2 to 32 rows against one row", measure_batched)
