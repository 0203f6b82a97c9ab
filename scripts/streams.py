"""Many streams of the OpenAI API at once for a while: no error, each as if alone, memory flat.

    python scripts/streams.py                                  # 32 streams, 5 minutes
    python scripts/streams.py --streams 4 --minutes 0.2

Two real block servers with half of the bundled model each, a real `gptnode api`, and the openai
package as the client. One stream in ten is closed in the middle. The exit code is 1 where a request
failed, an answer differed from the one of a client alone, memory of one of the three processes grew
after the warm-up, or sessions were left at the end.
"""

from __future__ import annotations

import asyncio
import random
import re
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import click
import psutil
from openai import AsyncOpenAI, OpenAIError

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(Path(__file__).parent), str(ROOT)]

from proof.disturbances import PROMPTS  # noqa: E402
from proof.ending import stoppable  # noqa: E402
from proof.memory import FLAT_BYTES, Memory  # noqa: E402
from proof.report import Row, print_rows  # noqa: E402
from proof.swarm import Reading, Swarm, environment  # noqa: E402

from gptnode.node.status_file import read_status  # noqa: E402

SERVERS = {"anna": "0-3", "ben": "4-7"}
CLOSED = 0.1
SAMPLE_S = 1.0
PROGRESS_S = 30.0
FREED_S = 10.0
REQUEST_S = 120.0


@dataclass
class Found:
    """What came out so far."""

    answers: int = 0
    closed: int = 0
    tokens: int = 0
    first_s: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Api:
    """A `gptnode api` process that answers."""

    process: subprocess.Popen[str]
    url: str

    def reading(self) -> Reading:
        """As for servers."""
        process = psutil.Process(self.process.pid)
        return Reading(process.memory_info().rss, process.num_fds(), process.num_threads())


@click.command()
@click.option("--streams", type=click.IntRange(min=1), default=32, show_default=True)
@click.option("--minutes", type=click.FloatRange(min=0.05), default=5.0, show_default=True)
@click.option("--max-tokens", type=click.IntRange(min=2), default=64, show_default=True)
@click.option("--seed", type=int, help="Of an earlier run, to repeat it.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(streams: int, minutes: float, max_tokens: int, seed: int | None, as_json: bool) -> None:
    """Stream from a swarm."""
    chosen = secrets.randbits(32) if seed is None else seed
    say(f"{streams} streams for {minutes:g} minutes, seed {chosen}")
    with (
        stoppable(),
        tempfile.TemporaryDirectory(prefix="gptnode-streams-") as name,
        Swarm(Path(name), SERVERS, clients=("api",), dtype="bf16") as swarm,
        api_over(swarm) as api,
    ):
        row = asyncio.run(run(swarm, api, streams, 60 * minutes, max_tokens, chosen))
        judge_what_is_left(row, swarm, api)
    print_rows([row], chosen, as_json=as_json)
    sys.exit(0 if row.holds else 1)


@contextmanager
def api_over(swarm: Swarm) -> Iterator[Api]:
    """An API of its own, ended with the block."""
    command = [
        *(sys.executable, "-m", "gptnode", "api", "--listen", "127.0.0.1:0", "--threads", "1"),
        *("--map", str(swarm.map_path), "--identity", str(swarm.keys["api"])),
    ]
    log_path = swarm.folder / "api.log"
    with log_path.open("w") as log:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment()
        )
    try:
        line = process.stdout.readline() if process.stdout is not None else ""
        found = re.match(r"ready (\S+)", line)
        if found is None:
            raise RuntimeError(f"the API didn't get ready: {log_path.read_text()[-2000:]}")
        yield Api(process, found[1])
    finally:
        process.kill()
        process.wait()


async def run(
    swarm: Swarm, api: Api, streams: int, seconds: float, max_tokens: int, seed: int
) -> Row:
    """The references, and the crowd."""
    client = AsyncOpenAI(base_url=api.url, api_key="none", timeout=REQUEST_S, max_retries=0)
    found, reference = Found(), Found()
    expected: dict[str, str] = {}
    for prompt in PROMPTS:
        expected[prompt] = await ask(client, prompt, max_tokens, None, reference)
    if reference.failures:
        raise RuntimeError(f"nobody answers: {reference.failures[0]}")
    watched = {"api": api, **swarm.servers}
    memories = {name: Memory() for name in watched}
    begun_s = time.monotonic()

    async def one(number: int) -> None:
        rng = random.Random(f"{seed}/{number}")
        while time.monotonic() < begun_s + seconds:
            prompt = rng.choice(PROMPTS)
            close_after = rng.randrange(1, 12) if rng.random() < CLOSED else None
            text = await ask(client, prompt, max_tokens, close_after, found)
            right = expected[prompt]
            if text != right if close_after is None else not right.startswith(text):
                found.failures.append(f"{prompt!r}: {text!r} instead of {right!r}")

    async def sample() -> None:
        shown_s = begun_s
        while True:
            for name, process in watched.items():
                memories[name].readings.append((time.monotonic(), process.reading()))
            if time.monotonic() > shown_s + PROGRESS_S:
                shown_s = time.monotonic()
                say(f"{shown_s - begun_s:.0f} s: {found.answers} answers, {found.failures[:1]}")
            await asyncio.sleep(SAMPLE_S)

    sampling = asyncio.create_task(sample())
    await asyncio.gather(*(one(number) for number in range(streams)))
    took_s = time.monotonic() - begun_s
    sampling.cancel()
    await client.close()
    row = Row(f"{streams} streams at once", found.answers, failures=found.failures)
    _judge(row, found, memories, took_s)
    return row


def judge_what_is_left(row: Row, swarm: Swarm, api: Api) -> None:
    """When the API has ended, its sessions have, too."""
    api.process.terminate()
    api.process.wait(REQUEST_S)
    until_s = time.monotonic() + FREED_S
    while time.monotonic() < until_s and any(_lent(swarm).values()):
        time.sleep(0.1)
    row.require(not any(_lent(swarm).values()), f"sessions were left: {_lent(swarm)}")
    row.require(swarm.tracebacks() == 0, f"{swarm.tracebacks()} tracebacks in the servers' logs")


async def ask(
    client: AsyncOpenAI, prompt: str, max_tokens: int, close_after: int | None, found: Found
) -> str:
    """The text of one stream, or of its first ``close_after`` pieces; "" where it failed."""
    pieces: list[str] = []
    began_s = time.monotonic()
    try:
        stream = await client.chat.completions.create(
            model="gptnode-demo",
            messages=[{"role": "user", "content": prompt}],
            temperature=0,
            max_tokens=max_tokens,
            stream=True,
        )
        async with stream:
            async for chunk in stream:
                text = chunk.choices[0].delta.content if chunk.choices else None
                if not text:
                    continue
                if not pieces:
                    found.first_s.append(time.monotonic() - began_s)
                pieces.append(text)
                found.tokens += 1
                if len(pieces) == close_after:
                    found.closed += 1
                    return "".join(pieces)
    except OpenAIError as error:
        found.failures.append(f"{type(error).__name__}: {error}")
        return ""
    found.answers += 1
    return "".join(pieces)


def _judge(row: Row, found: Found, memories: dict[str, Memory], took_s: float) -> None:
    row.facts |= {
        "minutes": took_s / 60,
        "closed in the middle": found.closed,
        "pieces a second": found.tokens / took_s,
        "first piece median s": statistics.median(found.first_s or [0.0]),
        "first piece max s": max(found.first_s, default=0.0),
    }
    for name, memory in memories.items():
        row.facts[f"{name} MiB"] = max(rss for _, rss in memory.after_warm_up()) / 2**20
        row.facts[f"{name} grew MiB"] = memory.growth_bytes() / 2**20
        grew = memory.growth_bytes()
        row.require(grew <= FLAT_BYTES, f"{name} grew by {grew >> 20} MiB after warm-up")


def _lent(swarm: Swarm) -> dict[str, int]:
    """Sessions that each server says it has lent."""
    return {
        server.name: read_status(server.key_path)["lent"]["sessions"]
        for server in swarm.servers.values()
    }


def say(line: str) -> None:
    """Progress goes to stderr."""
    click.echo(line, err=True)


if __name__ == "__main__":
    main()
