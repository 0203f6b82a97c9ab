"""Several users of one `gptnode serve` at once against one user of it."""

from __future__ import annotations

from functools import partial

from benchmarks.bench import Bench, Row
from benchmarks.record import Finding, Outcome, Series, Target
from benchmarks.sides import gptnode_bench
from benchmarks.stats import ratios
from benchmarks.swarm import running_swarm

__all__ = ["USERS"]

USERS_AT_ONCE = 16
TARGETS = {"bf16": 4.5, "int8": 6.0}


def measure_users(bench: Bench) -> Outcome:
    """Alternating runs of one user and of many, over the same server, in each dtype."""
    series: list[Series] = []
    findings: list[Finding] = []
    for dtype, target in TARGETS.items():
        with running_swarm(bench.weights.folder(dtype), 1, bench.settings.threads) as swarm:
            sides = {
                f"{dtype}, {users} at once": partial(
                    gptnode_bench, bench, (*swarm.where, "--users", str(users))
                )
                for users in (1, USERS_AT_ONCE)
            }
            found = bench.in_turn(sides)
        rates = [tuple(one.decode_tokens_per_s for one in found[name]) for name in sides]
        for name, values in zip(sides, rates, strict=True):
            series.append(Series(name, "tokens/s", values))
        name = f"{dtype}, {USERS_AT_ONCE} users / one"
        findings.append(Finding(name, "x", ratios(rates[1], rates[0]), Target(target)))
    note = "all users' embedding and head are one other process's, on the same cores"
    return Outcome(tuple(series), tuple(findings), (note,))


USERS = Row("users", "decode of 16 users of one server at once against one user", measure_users)
"""Targets are for two cores."""
