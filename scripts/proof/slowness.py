"""A server that becomes very slow in the middle of an answer, though its heart still beats."""

from __future__ import annotations

import random
import signal
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from gptnode.errors import GptNodeError
from gptnode.node.client import Client
from proof.crowd_of_chats import ask, open_chat
from proof.report import Row
from proof.swarm import Server, Swarm

__all__ = ["slow_one"]

WITHIN_TOKENS = 10
STOPPED_S = 1.2
RUNNING_S = 0.005
"""More than a second for each step, and a moment in which pings are answered."""
SETTLED_TOKENS = 12  # so that it is known how fast the server usually is
# Ends with the process that started it, and leaves the victim running.
DUTY = """
while kill -0 {parent} && kill -STOP {pid}; do
  sleep {stopped_s}; kill -CONT {pid}; sleep {running_s}
done; kill -CONT {pid}
"""


@dataclass
class _Asking:
    """An answer under way, and the status lines that came, each after how many tokens."""

    n_tokens: int = 0
    lines: list[tuple[int, float, str]] = field(default_factory=list)

    def note(self, line: str) -> None:
        self.lines.append((self.n_tokens, time.monotonic(), line))


async def slow_one(
    swarm: Swarm,
    rounds: int,
    *,
    prompt: str,
    max_tokens: int,
    rng: random.Random,
    say: Callable[[str], None],
) -> Row:
    """A server in use runs for a few milliseconds in each second or so from some token on."""
    row = Row("slow server in an answer", 0)
    after_tokens: list[int] = []
    after_s: list[float] = []
    identical = 0
    async with open_chat(swarm, "client") as client:
        due = await _heard(client, prompt, max_tokens, _Asking())
    first: dict[str, Server] = {}
    for server in swarm.servers.values():
        first.setdefault(server.blocks, server)
    for number in range(rounds):
        victim = rng.choice(list(first.values()))
        moment = rng.randrange(SETTLED_TOKENS, max(SETTLED_TOKENS + 1, len(due) // 2))
        asking = _Asking()
        what = f"round {number}, {victim.name} slow from token {moment} on"
        try:
            async with open_chat(swarm, "client", asking.note) as client:
                ids, since_s = await _disturbed(client, prompt, max_tokens, asking, moment, victim)
                again = await _heard(client, prompt, max_tokens, asking)
        except GptNodeError as error:
            row.failures.append(f"{what}: {error.detail}")
            continue
        finally:
            row.count += 1
        identical += ids == due and again == due
        row.require(ids == due and again == due, f"{what}: other tokens than undisturbed")
        moves = [one for one in asking.lines[1:] if "serves blocks" in one[2]]
        said = "; ".join(line for _, _, line in asking.lines[1:])
        row.require(len(moves) == 1, f"{what}: {len(moves)} reroutes: {said}")
        if moves:
            tokens, moved_s, line = moves[0]
            after_tokens.append(tokens - moment)
            after_s.append(moved_s - since_s)
            row.require(tokens - moment <= WITHIN_TOKENS, f"{what}: rerouted at token {tokens}")
            row.require("slow" in line, f"{what}: not found as slow: {line}")
        say(f"{row.count} of {rounds}: {identical} identical, rerouted after {after_tokens} tokens")
    row.facts["identical"] = identical
    if after_tokens:
        row.facts["rerouted after tokens, median"] = statistics.median(after_tokens)
        row.facts["rerouted after tokens, most"] = max(after_tokens)
        row.facts["rerouted after s, most"] = max(after_s)
    return row


async def _heard(client: Client, prompt: str, max_tokens: int, asking: _Asking) -> list[int]:
    answering = ask(client, prompt, max_tokens)
    async for _ in answering:
        asking.n_tokens = len(answering.result().ids)
    return list(answering.result().ids)


async def _disturbed(
    client: Client, prompt: str, max_tokens: int, asking: _Asking, moment: int, victim: Server
) -> tuple[list[int], float]:
    """The ids, and when the victim became slow; it stays so until the answer is there."""
    answering = ask(client, prompt, max_tokens)
    async for _ in answering:
        asking.n_tokens = len(answering.result().ids)
        if asking.n_tokens >= moment:
            break
    since_s = time.monotonic()
    with slowed(victim):
        async for _ in answering:
            asking.n_tokens = len(answering.result().ids)
    return list(answering.result().ids), since_s


@contextmanager
def slowed(server: Server) -> Iterator[None]:
    """SIGSTOP and SIGCONT in turns, from a process of its own, in the block."""
    program = DUTY.format(parent="$PPID", pid=server.pid, stopped_s=STOPPED_S, running_s=RUNNING_S)
    duty = subprocess.Popen(
        ["sh", "-c", program], stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        yield
    finally:
        duty.kill()
        duty.wait()
        server.signal(signal.SIGCONT)
