"""Feed gptnode hostile bytes, with a seed, and see that nothing but its own errors comes out.

    python scripts/fuzz.py wire --frames 1000000      # frames through the protocol of both sides
    python scripts/fuzz.py states --seeds 10000       # hypothesis: whole sessions of a pair
    python scripts/fuzz.py weights --variants 500     # damaged safetensors, each in its own process

The seed is printed first; --seed repeats a run. The exit code is 1 where something got through.
"""

from __future__ import annotations

import json
import secrets
import sys
import time
from dataclasses import asdict
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parents[1]
WIRE_FACTS = ("seed", "frames", "sessions", "messages", "failures", "growth_bytes", "passed")
sys.path[:0] = [str(Path(__file__).parent), str(ROOT)]

from proof.ending import stoppable  # noqa: E402


@click.group()
def main() -> None:
    """Fuzz one part of gptnode."""


def seed_option(command):  # type: ignore[no-untyped-def]
    """--seed, a new one if it isn't given."""
    return click.option("--seed", type=int, help="Of an earlier run, to repeat it.")(command)


def json_option(command):  # type: ignore[no-untyped-def]
    """--json."""
    flag = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
    return flag(command)


def started(seed: int | None, what: str) -> int:
    """The seed, printed where it is seen even if the run is killed."""
    chosen = secrets.randbits(32) if seed is None else seed
    say(f"{what}, seed {chosen}")
    return chosen


def say(line: str) -> None:
    """Progress goes to stderr."""
    click.echo(line, err=True)


@main.command()
@seed_option
@click.option("--frames", type=click.IntRange(min=1), default=1_000_000, show_default=True)
@click.option("--session", type=click.IntRange(min=0), help="Only this one of the seed, shown.")
@json_option
def wire(seed: int | None, frames: int, session: int | None, as_json: bool) -> None:
    """Mutated and random frames through ClientConnection and ServerConnection."""
    from proof.wire_fuzz import FLAT_BYTES, fuzz_wire

    chosen = started(seed, f"{frames:,} frames")
    begun = time.perf_counter()
    found = fuzz_wire(chosen, frames, session=session, report=say)
    took_s = time.perf_counter() - begun
    if as_json:
        facts = {name: getattr(found, name) for name in WIRE_FACTS}
        print(json.dumps({**facts, "errors": dict(found.errors), "took_s": took_s}))
    else:
        for kind, count in found.errors.most_common():
            print(f"{count:>10,}  {kind}")
        print(
            f"{found.frames:,} frames in {found.sessions:,} sessions, {took_s:.0f} s: "
            f"{found.messages:,} messages let in, {len(found.failures)} failures, memory grew by "
            f"{found.growth_bytes / 2**20:.1f} MiB (at most {FLAT_BYTES >> 20})"
        )
    end(found.failures, found.passed)


@main.command()
@seed_option
@click.option("--seeds", type=click.IntRange(min=1), default=10_000, show_default=True)
@click.option("--steps", type=click.IntRange(min=1), default=60, show_default=True)
@json_option
def states(seed: int | None, seeds: int, steps: int, as_json: bool) -> None:
    """Hypothesis state machines over pairs of connections: honest, and with a liar between them."""
    from proof.state_fuzz import fuzz_states

    chosen = started(seed, f"{seeds:,} seeds for each machine")
    found = fuzz_states(chosen, seeds, steps, report=say)
    if as_json:
        print(json.dumps({**asdict(found), "passed": found.passed}))
    else:
        for machine, count in found.seeds.items():
            print(f"{machine}: {count:,} seeds, {found.took_s[machine]:.0f} s")
    end(found.failures, found.passed)


@main.command()
@seed_option
@click.option("--variants", type=click.IntRange(min=1), default=500, show_default=True)
@click.option("--only", type=click.IntRange(min=0), help="Only this variant of the seed.")
@json_option
def weights(seed: int | None, variants: int, only: int | None, as_json: bool) -> None:
    """Damaged model files, in f32, 8 and 4 bits, in one file and in shards."""
    from proof.weights_fuzz import fuzz_weights

    chosen = started(seed, f"{variants} variants")
    found = fuzz_weights(chosen, variants, only=only, report=say)
    if as_json:
        print(json.dumps({**asdict(found), "passed": found.passed}))
    else:
        for damage, outcomes in sorted(found.outcomes.items()):
            counts = ", ".join(f"{count} {name}" for name, count in sorted(outcomes.items()))
            print(f"{damage:<28} {counts}")
        print(f"{found.variants} variants, {len(found.failures)} failures")
    end(found.failures, found.passed)


def end(failures: list[str], passed: bool) -> None:
    """Print the failures and exit with what came of it."""
    for failure in failures:
        say(f"FAILED {failure}")
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    with stoppable():
        main()
