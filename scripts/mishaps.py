"""What happens to a machine rather than to a network: its disk is full, its clock is moved.

    python scripts/mishaps.py                           # both
    python scripts/mishaps.py --only disk --rounds 3
    python scripts/mishaps.py --only clock --seed 7 --json

Full disk: /save, `gptnode id`, `gptnode quantize`, `gptnode peers accept` and servers on a disk
without room, or nearly so, give a clear error or work, and leave files whole. Clock: it jumps by an
hour, forth and back, under servers and chats in the middle of an answer, and nobody notices.

The seed is printed first. The exit code is 1 where something didn't hold, 3 where this machine
can't do it: the small disk needs root on Linux, the moved clock a C compiler.
"""

from __future__ import annotations

import random
import secrets
import sys
import tempfile
import time
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(Path(__file__).parent), str(ROOT)]

from proof.clock import MovableClock, moved_clock, why_no_clock  # noqa: E402
from proof.disturbances import PROMPTS  # noqa: E402
from proof.ending import stoppable  # noqa: E402
from proof.full_disk import full_disk  # noqa: E402
from proof.report import Row, print_rows  # noqa: E402
from proof.small_disk import own_mounts  # noqa: E402
from proof.swarm import Swarm  # noqa: E402

KINDS = ("disk", "clock")
CANNOT = 3
SERVERS = {"anna": "0-3", "ben": "4-7"}


@click.command()
@click.option("--only", multiple=True, type=click.Choice(KINDS), help="Just these kinds.")
@click.option("--rounds", type=click.IntRange(min=1), default=20, show_default=True)
@click.option("--max-tokens", type=click.IntRange(min=8), default=200, show_default=True)
@click.option("--prompts", type=click.IntRange(1, len(PROMPTS)), default=2, show_default=True)
@click.option("--seed", type=int, help="Of an earlier run, to repeat it.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(
    only: tuple[str, ...],
    rounds: int,
    max_tokens: int,
    prompts: int,
    seed: int | None,
    as_json: bool,
) -> None:
    """Let a machine have bad luck."""
    chosen = secrets.randbits(32) if seed is None else seed
    say(f"seed {chosen}")
    begun = time.monotonic()
    kinds = only or KINDS
    problem = own_mounts() if "disk" in kinds else None
    problem = problem or (why_no_clock() if "clock" in kinds else None)
    if problem is not None:
        say(problem)
        sys.exit(CANNOT)
    rows: list[Row] = []
    with stoppable(), tempfile.TemporaryDirectory(prefix="gptnode-mishaps-") as name:
        if "disk" in kinds:
            rows += full_disk(Path(name), rounds, say)
        if "clock" in kinds:
            clock = MovableClock(Path(name))
            folder = Path(name) / "swarm"
            folder.mkdir()
            with Swarm(folder, SERVERS, variables=clock.variables) as swarm:
                rows.append(
                    moved_clock(
                        swarm, clock, rounds, prompts=PROMPTS[:prompts], max_tokens=max_tokens,
                        rng=random.Random(chosen), say=say,
                    )
                )  # fmt: skip
    print_rows(rows, chosen, as_json=as_json)
    say(f"{time.monotonic() - begun:.0f} s")
    sys.exit(0 if all(row.holds for row in rows) else 1)


def say(line: str) -> None:
    """Progress goes to stderr."""
    click.echo(line, err=True)


if __name__ == "__main__":
    main()
