"""Kill and freeze servers while they answer, and compare what the chat shows with undisturbed runs.

    python scripts/chaos.py                                  # the counts of the proof
    python scripts/chaos.py --kill 5 --kill-two 2 --freeze 2
    python scripts/chaos.py --kill 50 --kill-two 0 --freeze 0 --seed 7 --json

Four real servers, two replicas of each half of the bundled model in f32, greedy. The seed is
printed first; it decides about victims, prompts and moments, though a machine's own timing differs
from run to run. The exit code is 1 where a transcript differed.
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

from proof.disturbances import PROMPTS, Round, freeze_one, kill_one, kill_two  # noqa: E402
from proof.report import Row, print_rows  # noqa: E402
from proof.swarm import Swarm  # noqa: E402

SERVERS = {"anna": "0-3", "ben": "4-7", "cora": "0-3", "dan": "4-7"}


@click.command()
@click.option("--kill", type=click.IntRange(min=0), default=200, show_default=True)
@click.option("--kill-two", "two", type=click.IntRange(min=0), default=50, show_default=True)
@click.option("--freeze", type=click.IntRange(min=0), default=30, show_default=True)
@click.option("--max-tokens", type=click.IntRange(min=8), default=200, show_default=True)
@click.option("--prompts", type=click.IntRange(1, len(PROMPTS)), default=len(PROMPTS))
@click.option("--seed", type=int, help="Of an earlier run, to repeat it.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(
    kill: int, two: int, freeze: int, max_tokens: int, prompts: int, seed: int | None, as_json: bool
) -> None:
    """Disturb a swarm in the middle of answers."""
    chosen = secrets.randbits(32) if seed is None else seed
    say(f"seed {chosen}")
    begun = time.monotonic()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="gptnode-chaos-") as name:
        swarm = Swarm(Path(name), SERVERS)
        with swarm:
            rng = random.Random(chosen)
            round_ = Round.prepare(swarm, PROMPTS[:prompts], max_tokens, rng, say)
            for disturb, count in ((kill_one, kill), (kill_two, two), (freeze_one, freeze)):
                if count:
                    say(f"{disturb.__name__.replace('_', ' ')}, {count} times ...")
                    rows.append(disturb(round_, count))
            faults = swarm.tracebacks()
    if rows:
        rows[-1].require(faults == 0, f"{faults} tracebacks in the servers' logs")
    print_rows(rows, chosen, as_json=as_json)
    say(f"{time.monotonic() - begun:.0f} s")
    sys.exit(0 if all(row.holds for row in rows) else 1)


def say(line: str) -> None:
    """Progress goes to stderr."""
    click.echo(line, err=True)


if __name__ == "__main__":
    main()
