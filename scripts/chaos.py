"""Disturb servers while they answer, and compare what the chat shows with undisturbed runs.

    python scripts/chaos.py                                  # all, with the counts of the proof
    python scripts/chaos.py --only kill --only freeze        # some, with the counts of the proof
    python scripts/chaos.py --only kill --kill 5 --seed 7 --json
    python scripts/chaos.py --only kill --dtype f32          # in which nothing is guessed

Four real servers, two replicas of each half of the bundled model, greedy; over rings and with
guesses, as a chat is by default. With --ends the servers hold embedding and head, too. The seed is
printed first; it decides about victims, prompts and moments, though a machine's own timing differs
from run to run. The exit code is 1 where something didn't hold, 3 where this machine can't do what
was asked for: cut links need network namespaces, and those root on Linux.
"""

from __future__ import annotations

import random
import secrets
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import click
import trio

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(Path(__file__).parent), str(ROOT)]

from proof.disturbances import PROMPTS, Round, freeze_one, kill_one, kill_two  # noqa: E402
from proof.ending import stoppable  # noqa: E402
from proof.map_edits import edit_maps  # noqa: E402
from proof.outages import cut_one  # noqa: E402
from proof.report import Row, print_rows  # noqa: E402
from proof.restarts import rolling_restarts  # noqa: E402
from proof.slowness import slow_one  # noqa: E402
from proof.swarm import Place, Swarm  # noqa: E402
from proof.wires import Wires, why_no_wires  # noqa: E402

SERVERS = {"anna": "0-3", "ben": "4-7", "cora": "0-3", "dan": "4-7"}
LOCAL = {"kill": kill_one, "kill-two": kill_two, "freeze": freeze_one}
KINDS = (*LOCAL, "blackhole", "edits", "restart", "slow")
COUNT = click.IntRange(min=0)
CANNOT = 3
RESTART_TOKENS = 48
TAKEN_S = 2.0  # until all servers follow the map again


@dataclass(frozen=True, slots=True)
class Model:
    """How the bundled model is computed, and whether servers have its embedding and head."""

    dtype: str
    ends: bool


@click.command()
@click.option("--only", multiple=True, type=click.Choice(KINDS), help="Just these kinds.")
@click.option("--kill", type=COUNT, default=200, show_default=True)
@click.option("--kill-two", type=COUNT, default=50, show_default=True)
@click.option("--freeze", type=COUNT, default=30, show_default=True)
@click.option("--blackhole", type=COUNT, default=30, show_default=True)
@click.option("--edits", type=COUNT, default=200, show_default=True)
@click.option("--restart", type=COUNT, default=20, show_default=True, help="Rounds of all servers.")
@click.option("--slow", type=COUNT, default=10, show_default=True)
@click.option("--chats", type=click.IntRange(min=1), default=8, show_default=True)
@click.option("--max-tokens", type=click.IntRange(min=8), default=200, show_default=True)
@click.option("--prompts", type=click.IntRange(1, len(PROMPTS)), default=len(PROMPTS))
@click.option(
    "--dtype", type=click.Choice(("bf16", "f32", "f16")), default="bf16", show_default=True
)
@click.option("--ends", is_flag=True, help="Embedding and head are the servers'.")
@click.option("--seed", type=int, help="Of an earlier run, to repeat it.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(
    only: tuple[str, ...],
    chats: int,
    max_tokens: int,
    prompts: int,
    dtype: str,
    seed: int | None,
    *,
    ends: bool,
    as_json: bool,
    **asked: int,
) -> None:
    """Disturb a swarm in the middle of answers."""
    chosen = secrets.randbits(32) if seed is None else seed
    say(f"seed {chosen}")
    kinds = [kind for kind in KINDS if not only or kind in only]
    counts = {kind: asked[kind.replace("-", "_")] for kind in kinds}
    counts = {kind: count for kind, count in counts.items() if count}
    problem = why_no_wires() if "blackhole" in counts else None
    if problem is not None:
        say(problem)
        sys.exit(CANNOT)
    begun = time.monotonic()
    with stoppable():
        rows = run(counts, chats, max_tokens, PROMPTS[:prompts], chosen, Model(dtype, ends))
    print_rows(rows, chosen, as_json=as_json)
    say(f"{time.monotonic() - begun:.0f} s")
    sys.exit(0 if rows and all(row.holds for row in rows) else 1)


def run(
    counts: dict[str, int],
    chats: int,
    max_tokens: int,
    prompts: tuple[str, ...],
    seed: int,
    model: Model,
) -> list[Row]:
    """The rows of the kinds in ``counts``, one after another, over as few swarms as possible."""
    rows: list[Row] = []
    if counts.keys() - {"blackhole"}:
        names = [f"chat-{number}" for number in range(chats)]
        with four_servers(model, clients=("client", "alone", *names)) as swarm:
            rows += disturbed(swarm, counts, names, max_tokens, prompts, seed)
    if "blackhole" in counts:
        say(f"blackhole, {counts['blackhole']} times ...")
        rows.append(cuts(max_tokens, prompts, seed, counts["blackhole"], model))
    return rows


@contextmanager
def four_servers(
    model: Model, *, clients: Sequence[str] = ("client",), places: Mapping[str, Place] | None = None
) -> Iterator[Swarm]:
    """A swarm of SERVERS in a folder of its own."""
    with (
        tempfile.TemporaryDirectory(prefix="gptnode-chaos-") as name,
        Swarm(
            Path(name),
            SERVERS,
            clients=clients,
            dtype=model.dtype,
            ends=model.ends,
            places=places,
        ) as swarm,
    ):
        yield swarm


def disturbed(
    swarm: Swarm,
    counts: dict[str, int],
    names: list[str],
    max_tokens: int,
    prompts: tuple[str, ...],
    seed: int,
) -> list[Row]:
    """All kinds that need nothing but servers; each leaves them as it found them."""
    rows: list[Row] = []
    round_: Round | None = None
    for kind, count in counts.items():
        say(f"{kind}, {count} times ...")
        rng = random.Random(f"{seed}/{kind}")
        faults = swarm.tracebacks()
        match kind:
            case "kill" | "kill-two" | "freeze":
                round_ = round_ or Round.prepare(swarm, prompts, max_tokens, rng, say)
                row = LOCAL[kind](replace(round_, rng=rng), count)
            case "edits":
                work = partial(
                    edit_maps, swarm, count, prompts=prompts, max_tokens=max_tokens, rng=rng,
                    say=say,
                )  # fmt: skip
                row = trio.run(work)
                swarm.write_map()
                time.sleep(TAKEN_S)
            case "restart":
                work = partial(
                    rolling_restarts, swarm, names, count, prompts=2, max_tokens=RESTART_TOKENS,
                    seed=seed, say=say,
                )  # fmt: skip
                row = trio.run(work)
            case "slow":
                work = partial(
                    slow_one, swarm, count, prompt=prompts[0], max_tokens=max_tokens, rng=rng,
                    say=say,
                )  # fmt: skip
                row = trio.run(work)
            case _:
                continue
        faults = swarm.tracebacks() - faults
        row.require(faults == 0, f"{faults} tracebacks in the servers' logs")
        rows.append(row)
    return rows


def cuts(max_tokens: int, prompts: tuple[str, ...], seed: int, count: int, model: Model) -> Row:
    """Links that go silent."""
    with Wires(tuple(SERVERS)) as wires, four_servers(model, places=wires.places) as swarm:
        round_ = Round.prepare(swarm, prompts, max_tokens, random.Random(seed), say)
        row = cut_one(round_, wires, count)
        row.require(swarm.tracebacks() == 0, f"{swarm.tracebacks()} tracebacks in servers' logs")
    return row


def say(line: str) -> None:
    """Progress goes to stderr."""
    click.echo(line, err=True)


if __name__ == "__main__":
    main()
