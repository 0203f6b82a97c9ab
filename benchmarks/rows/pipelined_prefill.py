"""A long prompt through two servers with a core each against one server with one core."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from functools import partial

from benchmarks.bench import Bench, Row
from benchmarks.record import Finding, Outcome, Series, Target
from benchmarks.sides import gptnode_bench
from benchmarks.stats import ratios
from benchmarks.swarm import running_swarm

__all__ = ["PIPELINED_PREFILL"]

DTYPE = "bf16"
PROMPT_TOKENS = 3840
AT_LEAST = 1.7


def measure_pipelined_prefill(bench: Bench) -> Outcome:
    """Alternating runs; the server that isn't asked sleeps."""
    long = replace(bench, settings=replace(bench.settings, prompt_tokens=PROMPT_TOKENS, tokens=2))
    folder = bench.weights.folder(DTYPE)
    with ExitStack() as stack:
        swarms = [stack.enter_context(running_swarm(folder, n, 1, pinned=True)) for n in (1, 2)]
        sides = {
            f"{n} server{'s' if n > 1 else ''}": partial(
                gptnode_bench, long, (*swarm.where, "--repeat", "1")
            )
            for n, swarm in zip((1, 2), swarms, strict=True)
        }
        found = bench.in_turn(sides)
    one, two = (tuple(run.prefill_tokens_per_s for run in found[name]) for name in sides)
    return Outcome(
        (
            Series("one server on one core", "tokens/s", one),
            Series("two servers, a core each", "tokens/s", two),
        ),
        (Finding("prefill, two servers / one", "x", ratios(two, one), Target(AT_LEAST)),),
        (
            f"all in {DTYPE}; a prompt of {PROMPT_TOKENS:,} tokens in chunks of 256, which are on"
            " both servers at once",
            "the client's embedding and head are on the same cores",
        ),
    )


PIPELINED_PREFILL = Row(
    "pipelined-prefill",
    "a long prompt through two servers with a core each against one with one",
    measure_pipelined_prefill,
)
