"""The state machines of the protocol's tests, with more seeds than a test suite has time for.

Hypothesis chooses the steps: an honest session of a pair of connections, and one with a liar
between the two. In batches, so that progress is seen and memory stays bounded.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field

import hypothesis
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

from tests.wire.test_connection import SessionMachine
from tests.wire.test_state_machine import MeddledSession

__all__ = ["MACHINES", "StateFuzz", "fuzz_states"]

MACHINES: tuple[type[RuleBasedStateMachine], ...] = (SessionMachine, MeddledSession)
BATCH = 500
REPORT_S = 60.0


@dataclass
class StateFuzz:
    """How many seeds each machine ran, and what failed."""

    seed: int
    seeds: dict[str, int] = field(default_factory=dict)
    took_s: dict[str, float] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """All machines ran, and nothing failed."""
        return all(self.seeds.get(one.__name__) for one in MACHINES) and not self.failures


def fuzz_states(seed: int, seeds: int, steps: int, *, report: Callable[[str], None]) -> StateFuzz:
    """``seeds`` runs of each machine, of at most ``steps`` steps; it stops at the first failure."""
    found = StateFuzz(seed)
    for machine in MACHINES:
        name = machine.__name__
        begun_s = said_s = time.monotonic()
        found.seeds[name] = 0
        while found.seeds[name] < seeds:
            batch = min(BATCH, seeds - found.seeds[name])
            of_batch = seed + found.seeds[name]
            try:
                _run(machine, of_batch, batch, steps)
            except Exception as error:
                traceback.print_exc()
                found.failures.append(
                    f"{name}, hypothesis seed {of_batch}: {type(error).__name__}: {error}"
                )
                break
            found.seeds[name] += batch
            if time.monotonic() - said_s > REPORT_S:
                said_s = time.monotonic()
                report(f"{name}: {found.seeds[name]:,} of {seeds:,}")
        found.took_s[name] = time.monotonic() - begun_s
    return found


def _run(machine: type[RuleBasedStateMachine], seed: int, seeds: int, steps: int) -> None:
    settings = hypothesis.settings(
        max_examples=seeds,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    run_state_machine_as_test(hypothesis.seed(seed)(machine), settings=settings)
