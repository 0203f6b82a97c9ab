"""Many chats at once over real servers for a long time: each must answer as if it were alone.

    python scripts/soak.py                                    # 64 chats, 30 minutes
    python scripts/soak.py --chats 8 --minutes 1

Four servers, two replicas of each half of the bundled model in f32, greedy. One answer in five is
cancelled. The exit code is 1 where a transcript differed, a chat told of trouble or took another
route though all were well, a server's memory grew after the warm-up, or a session, its cache or a
descriptor wasn't given back.
"""

from __future__ import annotations

import secrets
import sys
import tempfile
import time
from pathlib import Path

import click
import trio

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(Path(__file__).parent), str(ROOT)]

from proof.crowd_of_chats import Chats, reference_answers, soak_chats  # noqa: E402
from proof.ending import stoppable  # noqa: E402
from proof.memory import FLAT_BYTES, Memory  # noqa: E402
from proof.report import Row, print_rows  # noqa: E402
from proof.swarm import Reading, Server, Swarm  # noqa: E402

from gptnode.node.status_file import read_status  # noqa: E402

SERVERS = {"anna": "0-3", "ben": "4-7", "cora": "0-3", "dan": "4-7"}
SAMPLE_S = 1.0
PROGRESS_S = 60.0
SETTLE_S = 10.0
CANCELLED = 0.2


@click.command()
@click.option("--chats", type=click.IntRange(min=1), default=64, show_default=True)
@click.option("--minutes", type=click.FloatRange(min=0.05), default=30.0, show_default=True)
@click.option(
    "--prompts", type=click.IntRange(min=1), default=2, show_default=True, help="Of each chat."
)
@click.option("--max-tokens", type=click.IntRange(min=2), default=48, show_default=True)
@click.option("--seed", type=int, help="Of an earlier run, to repeat it.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(
    chats: int, minutes: float, prompts: int, max_tokens: int, seed: int | None, as_json: bool
) -> None:
    """Soak a swarm."""
    chosen = secrets.randbits(32) if seed is None else seed
    say(f"{chats} chats for {minutes:g} minutes, seed {chosen}")
    names = [f"chat-{number}" for number in range(chats)]
    options = ("--max-sessions", str(chats + 1))
    clients = ("alone", *names)
    with (
        stoppable(),
        tempfile.TemporaryDirectory(prefix="gptnode-soak-") as name,
        Swarm(Path(name), SERVERS, clients=clients, options=options) as swarm,
    ):
        row = trio.run(soak, swarm, names, minutes * 60, prompts, max_tokens, chosen)
    print_rows([row], chosen, as_json=as_json)
    sys.exit(0 if row.holds else 1)


async def soak(
    swarm: Swarm, names: list[str], seconds: float, prompts: int, max_tokens: int, seed: int
) -> Row:
    """The references, the crowd, and how the servers came out of it."""
    expected = await reference_answers(swarm, "alone", len(names), prompts, max_tokens, say)
    say(f"{len(expected)} answers of a chat alone")
    servers = list(swarm.servers.values())
    before = {server.name: server.reading() for server in servers}
    memories = {server.name: Memory() for server in servers}
    chats = Chats()
    begun_s = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_sample, servers, memories)
        nursery.start_soon(_progress, chats, servers, begun_s)
        await soak_chats(
            swarm, names, expected,
            prompts=prompts, max_tokens=max_tokens, cancelled=CANCELLED, seed=seed,
            over=lambda: trio.current_time() >= begun_s + seconds, found=chats,
        )  # fmt: skip
        took_s = trio.current_time() - begun_s
        nursery.cancel_scope.cancel()
    row = Row(f"{len(names)} chats at once", chats.answers, failures=chats.failures)
    _judge_chats(row, chats, names, took_s)
    for server in servers:
        await _judge(row, server, before[server.name], memories[server.name])
    row.require(sum(_opened(server) for server in servers) > len(names), "hardly any session")
    return row


async def _sample(servers: list[Server], memories: dict[str, Memory]) -> None:
    while True:
        for server in servers:
            memories[server.name].readings.append((time.monotonic(), server.reading()))
        await trio.sleep(SAMPLE_S)


async def _progress(chats: Chats, servers: list[Server], begun_s: float) -> None:
    shown = 0
    while True:
        await trio.sleep(PROGRESS_S)
        memory = ", ".join(f"{s.name} {s.reading().rss_bytes >> 20} MiB" for s in servers)
        say(
            f"{(trio.current_time() - begun_s) / 60:.0f} min: {chats.answers} answers, "
            f"{chats.cancelled} cancelled, {len(chats.failures)} wrong, "
            f"{len(chats.alarms())} alarms; {memory}"
        )
        for line in chats.alarms()[shown:]:
            say(f"  {line}")
        shown = len(chats.alarms())


def _judge_chats(row: Row, chats: Chats, names: list[str], took_s: float) -> None:
    """Nobody was ill: a status line about anything but the first route is a false alarm."""
    alarms = chats.alarms()
    row.facts["minutes"] = took_s / 60
    row.facts["cancelled"] = chats.cancelled
    row.facts["tokens a second"] = chats.tokens / took_s
    row.facts["wrong"] = len(chats.failures)
    row.facts["false alarms"] = len(alarms)
    row.require(not alarms, f"{len(alarms)} false alarms: {alarms[:3]}")
    silent = [name for name in names if not chats.lines.get(name)]
    row.require(not silent, f"{len(silent)} chats told no route: lines are not seen")
    row.require(chats.answers >= len(names), "not all chats had an answer")


async def _judge(row: Row, server: Server, before: Reading, memory: Memory) -> None:
    """Memory flat after the warm-up; sessions, descriptors and caches given back."""
    row.facts[f"{server.name} grew MiB"] = memory.growth_bytes() / 2**20
    row.facts[f"{server.name} slope MiB/h"] = memory.slope_bytes_s() * 3600 / 2**20
    growth = memory.growth_bytes()
    row.require(growth <= FLAT_BYTES, f"{server.name} grew by {growth >> 20} MiB after warm-up")
    with trio.move_on_after(SETTLE_S):
        while _lent(server) != (0, 0) or server.reading().descriptors > before.descriptors:  # noqa: ASYNC110
            await trio.sleep(0.2)
    after, (sessions, kv_bytes) = server.reading(), _lent(server)
    row.facts[f"{server.name} kept MiB"] = (after.rss_bytes - before.rss_bytes) / 2**20
    row.require(
        sessions == kv_bytes == 0,
        f"{server.name} has {sessions} sessions and {kv_bytes} bytes of caches at the end",
    )
    row.require(
        after.descriptors <= before.descriptors,
        f"{server.name} has {after.descriptors} descriptors, {before.descriptors} before",
    )
    log = server.log_path.read_text(errors="replace")
    opened, ended = _opened(server), log.count("session closed") + log.count("session lost")
    row.facts[f"{server.name} sessions"] = opened
    row.require(ended >= opened, f"{server.name} opened {opened} sessions, {ended} ended")
    row.require(server.tracebacks() == 0, f"{server.tracebacks()} tracebacks of {server.name}")


def _opened(server: Server) -> int:
    return server.log_path.read_text(errors="replace").count("session opened")


def _lent(server: Server) -> tuple[int, int]:
    """Sessions and bytes of caches that the server says it has lent, to all together."""
    lent = read_status(server.key_path)["lent"]
    return lent["sessions"], lent["kv_bytes"]


def say(line: str) -> None:
    """Progress goes to stderr."""
    click.echo(line, err=True)


if __name__ == "__main__":
    main()
