"""What a long prompt does to the steps of others at the same server."""

from __future__ import annotations

import sys
from pathlib import Path
from statistics import median, quantiles

from benchmarks.bench import Bench, Row
from benchmarks.processes import run_json
from benchmarks.record import Finding, Outcome, Series, Target
from benchmarks.swarm import running_swarm

__all__ = ["NEIGHBOURS"]

DTYPE = "bf16"
USERS = 4
PROMPT_TOKENS = 2000
AT_MOST = 2.0
WORKER = Path(__file__).resolve().parent.parent / "workers" / "neighbours.py"


def measure_neighbours(bench: Bench) -> Outcome:
    """Each round decodes in turn without the prompt and beside it."""
    settings = bench.settings
    with running_swarm(bench.weights.folder(DTYPE), 1, settings.threads) as swarm:
        _, map_path, _, identity = swarm.where
        numbers = (settings.threads, USERS, PROMPT_TOKENS, settings.tokens)
        command = [sys.executable, WORKER, map_path, identity, *map(str, numbers)]
        runs = bench.in_turn({"neighbours": lambda: run_json(command)})["neighbours"]
    alone, beside = (tuple(_p95(run[side]) for run in runs) for side in ("alone", "beside"))
    return Outcome(
        (
            Series("a step, median", "ms", tuple(median(run["alone"]) for run in runs)),
            Series("a step, p95", "ms", alone),
            Series("beside the prompt, median", "ms", tuple(median(r["beside"]) for r in runs)),
            Series("beside the prompt, p95", "ms", beside),
            Series("the prompt", "s", tuple(median(run["prompt_s"]) for run in runs)),
        ),
        (
            Finding(
                "p95 of a step beside the prompt / without it",
                "x",
                tuple(b / a for a, b in zip(alone, beside, strict=True)),
                Target(AT_MOST, at_least=False),
            ),
        ),
        (f"all in {DTYPE}; {USERS} users decode, one comes with {PROMPT_TOKENS:,} tokens",),
    )


def _p95(values: list[float]) -> float:
    return quantiles(values, n=20)[-1]


NEIGHBOURS = Row(
    "neighbours",
    "steps of four users of a server beside the long prompt of a fifth",
    measure_neighbours,
)
