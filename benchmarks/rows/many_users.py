"""64 users of the bundled model through two servers against 16."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from benchmarks.bench import Bench, Row
from benchmarks.record import Finding, Outcome, Series, Target
from benchmarks.sides import gptnode_bench
from benchmarks.stats import ratios
from benchmarks.swarm import running_swarm
from gptnode.demo.bundled import bundled_model_folder

__all__ = ["MANY_USERS"]

FEW, MANY = 16, 64
PROMPT_TOKENS = 64


def measure_many_users(bench: Bench) -> Outcome:
    """Alternating runs over the same servers, one thread each, as all share the cores."""
    settings = replace(bench.settings, prompt_tokens=PROMPT_TOKENS, threads=1)
    bench = replace(bench, settings=settings)
    room = ("--max-sessions", str(2 * MANY + 2))  # of which one client may have half
    with running_swarm(bundled_model_folder(), 2, 1, options=room) as swarm:
        sides = {
            f"{users} at once": partial(
                gptnode_bench, bench, (*swarm.where, "--users", str(users), "--repeat", "1")
            )
            for users in (FEW, MANY)
        }
        found = bench.in_turn(sides)
    few, many = (tuple(one.decode_tokens_per_s for one in found[name]) for name in sides)
    return Outcome(
        tuple(
            Series(name, "tokens/s", values)
            for name, values in zip(sides, (few, many), strict=True)
        ),
        (Finding(f"{MANY} users / {FEW}", "x", ratios(many, few), Target(1.0)),),
        (f"the bundled model, prompts of {PROMPT_TOKENS} tokens; one client for all users",),
    )


MANY_USERS = Row(
    "many-users",
    "64 users of the bundled model through two servers against 16",
    measure_many_users,
)
