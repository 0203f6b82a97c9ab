"""Many chats at once over real servers for a long time: each must answer as if it were alone.

    python scripts/soak.py                                    # 64 chats, 30 minutes
    python scripts/soak.py --chats 8 --minutes 1

Two servers hold half of the bundled model each, in f32, greedy. One answer in five is cancelled.
The exit code is 1 where a transcript differed, a server's memory grew after the warm-up, or a cache
wasn't returned.
"""

from __future__ import annotations

import secrets
import sys
import tempfile
from pathlib import Path

import click
import trio

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(Path(__file__).parent), str(ROOT)]

from proof.crowd_of_chats import Chats, reference_answers, soak_chats  # noqa: E402
from proof.report import Row, print_rows  # noqa: E402
from proof.swarm import Reading, Server, Swarm  # noqa: E402

WARM_UP = 0.1
FLAT_BYTES = 64 << 20
SAMPLE_S = 1.0
SETTLE_S = 3.0
CANCELLED = 0.2


@click.command()
@click.option("--chats", type=click.IntRange(min=1), default=64, show_default=True)
@click.option("--minutes", type=click.FloatRange(min=0.05), default=30.0, show_default=True)
@click.option("--prompts", type=click.IntRange(min=1), default=4, show_default=True)
@click.option("--max-tokens", type=click.IntRange(min=2), default=48, show_default=True)
@click.option("--seed", type=int, help="Of an earlier run, to repeat it.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(
    chats: int, minutes: float, prompts: int, max_tokens: int, seed: int | None, as_json: bool
) -> None:
    """Soak a swarm."""
    chosen = secrets.randbits(32) if seed is None else seed
    click.echo(f"{chats} chats for {minutes:g} minutes, seed {chosen}", err=True)
    names = [f"chat-{number}" for number in range(chats)]
    with tempfile.TemporaryDirectory(prefix="gptnode-soak-") as name:
        servers = {"anna": "0-3", "ben": "4-7"}
        options = ("--max-sessions", str(chats + 1))
        with Swarm(Path(name), servers, clients=("alone", *names), options=options) as swarm:
            row = trio.run(soak, swarm, names, minutes * 60, prompts, max_tokens, chosen)
    print_rows([row], chosen, as_json=as_json)
    sys.exit(0 if row.holds else 1)


async def soak(
    swarm: Swarm, names: list[str], seconds: float, prompts: int, max_tokens: int, seed: int
) -> Row:
    """The references, the crowd, and how the servers came out of it."""
    expected = await reference_answers(swarm, "alone", len(names), prompts, max_tokens)
    click.echo(f"{len(expected)} answers of a chat alone", err=True)
    servers = list(swarm.servers.values())
    before = {server.name: server.reading() for server in servers}
    readings: dict[str, list[Reading]] = {server.name: [] for server in servers}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_sample, servers, readings)
        chats = await soak_chats(
            swarm, names, expected,
            prompts=prompts, max_tokens=max_tokens, cancelled=CANCELLED, seed=seed, seconds=seconds,
        )  # fmt: skip
        nursery.cancel_scope.cancel()
    await trio.sleep(SETTLE_S)
    row = Row(f"{len(names)} chats at once", chats.answers, failures=chats.failures)
    _facts(row, chats, seconds)
    for server in servers:
        _judge(row, server, before[server.name], readings[server.name])
    return row


async def _sample(servers: list[Server], readings: dict[str, list[Reading]]) -> None:
    while True:
        for server in servers:
            readings[server.name].append(server.reading())
        await trio.sleep(SAMPLE_S)


def _facts(row: Row, chats: Chats, seconds: float) -> None:
    row.facts["cancelled"] = chats.cancelled
    row.facts["tokens a second"] = chats.tokens / seconds
    row.facts["wrong"] = len(chats.failures)


def _judge(row: Row, server: Server, before: Reading, readings: list[Reading]) -> None:
    """Memory flat after the warm-up; sessions, descriptors and caches given back."""
    warm = readings[: max(1, round(len(readings) * WARM_UP))][-1].rss_bytes
    growth = max(reading.rss_bytes for reading in readings) - warm
    after = server.reading()
    row.facts[f"{server.name} grew MiB"] = growth >> 20
    row.facts[f"{server.name} kept MiB"] = (after.rss_bytes - before.rss_bytes) >> 20
    row.require(growth <= FLAT_BYTES, f"{server.name} grew by {growth >> 20} MiB after warm-up")
    row.require(
        after.descriptors <= before.descriptors,
        f"{server.name} has {after.descriptors} descriptors, {before.descriptors} before",
    )
    log = server.log_path.read_text(errors="replace")
    opened = log.count("session opened")
    ended = log.count("session closed") + log.count("session lost")
    row.facts[f"{server.name} sessions"] = opened
    row.require(opened > 0, f"{server.name} had no session")
    row.require(ended >= opened, f"{server.name} opened {opened} sessions, {ended} ended")
    row.require(server.tracebacks() == 0, f"{server.tracebacks()} tracebacks of {server.name}")


if __name__ == "__main__":
    main()
