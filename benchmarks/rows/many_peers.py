"""Decode through many `gptnode serve` processes on loopback against one process, in turn."""

from __future__ import annotations

import sys
from pathlib import Path
from statistics import median

from benchmarks.bench import Bench, Row
from benchmarks.processes import run_json
from benchmarks.record import Finding, Outcome, Series, Target
from benchmarks.stats import ratios
from benchmarks.swarm import running_swarm

__all__ = ["MANY_PEERS"]

DTYPE = "bf16"
N_SERVERS = 8
KEPT = 0.85
IN_TURN = Path(__file__).resolve().parent.parent / "workers" / "split_and_whole.py"


def measure_many_peers(bench: Bench) -> Outcome:
    """Each round takes turns within one process; a round counts with the median of its pairs."""
    settings, folder = bench.settings, bench.weights.folder(DTYPE)
    with running_swarm(folder, N_SERVERS, settings.threads) as swarm:
        _, map_path, _, identity = swarm.where
        numbers = (settings.threads, settings.prompt_tokens, settings.tokens)
        command = [sys.executable, IN_TURN, folder, map_path, identity, *map(str, numbers)]
        answers = bench.in_turn({"slices in turn": lambda: run_json(command)})["slices in turn"]
    whole, split = (
        tuple(1000 * median(one["decode"][side]) for one in answers) for side in ("whole", "split")
    )
    kept = tuple(median(ratios(one["decode"]["whole"], one["decode"]["split"])) for one in answers)
    return Outcome(
        (
            Series("a step in one process", "ms", whole),
            Series(f"a step through {N_SERVERS} servers in a ring", "ms", split),
        ),
        (Finding(f"decode, {N_SERVERS} servers / one process", "x", kept, Target(KEPT)),),
        (f"all in {DTYPE}; the client holds embedding and head", "eight tokens by eight tokens"),
    )


MANY_PEERS = Row(
    "many-peers",
    "decode through eight servers on loopback against one process",
    measure_many_peers,
)
