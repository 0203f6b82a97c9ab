"""All servers restarted one after another, again and again, under chats that stream answers."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from functools import partial

import trio

from proof.crowd_of_chats import Chats, reference_answers, soak_chats
from proof.report import Row
from proof.swarm import Server, Swarm

__all__ = ["rolling_restarts"]

BEGUN_S = 120.0


async def rolling_restarts(
    swarm: Swarm,
    names: list[str],
    rounds: int,
    *,
    prompts: int,
    max_tokens: int,
    seed: int,
    say: Callable[[str], None],
) -> Row:
    """SIGTERM to each server in turn, its end, and up again: ``rounds`` times all of them.

    The clients ``names`` ask all the while; the client "alone" says first what is right.
    """
    expected = await reference_answers(swarm, "alone", len(names), prompts, max_tokens, say)
    say(f"{len(expected)} answers of a chat alone")
    row = Row(f"rolling restart of {len(swarm.servers)} servers under {len(names)} chats", 0)
    chats = Chats()
    done = False
    rng = random.Random(seed)
    restarts = 0
    restart_s: list[float] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            partial(
                soak_chats, swarm, names, expected,
                prompts=prompts, max_tokens=max_tokens, cancelled=0.0, seed=seed,
                over=lambda: done, found=chats,
            )
        )  # fmt: skip
        await _all_have_begun(chats, len(names))
        for number in range(rounds):
            servers = list(swarm.servers.values())
            rng.shuffle(servers)
            for server in servers:
                await trio.sleep(rng.uniform(0, 0.5))
                begun_s = time.monotonic()
                code = await trio.to_thread.run_sync(_restart, server)
                restart_s.append(time.monotonic() - begun_s)
                restarts += 1
                row.require(code == 0, f"round {number}: {server.name} ended with {code}")
            row.count += 1
            say(
                f"round {row.count} of {rounds}: {restarts} restarts, {chats.answers} answers, "
                f"{len(chats.failures)} wrong or dropped"
            )
        done = True
    told = [line for lines in chats.lines.values() for line in lines]
    moved = sum("shutting down" in line for line in told)
    row.failures += chats.failures
    row.require(moved > 0, "no chat had to move: nothing was proved")
    row.facts["restarts"] = restarts
    row.facts["answers"] = chats.answers
    row.facts["tokens"] = chats.tokens
    row.facts["chats handed over"] = moved
    row.facts["waits for a peer"] = sum(line.startswith("waiting") for line in told)
    row.facts["restart max s"] = max(restart_s, default=0.0)
    row.facts["dropped or wrong"] = len(chats.failures)
    return row


async def _all_have_begun(chats: Chats, count: int) -> None:
    """A chat tells its route with its first token."""
    with trio.fail_after(BEGUN_S):
        while sum(bool(lines) for lines in chats.lines.values()) < count:  # noqa: ASYNC110
            await trio.sleep(0.05)


def _restart(server: Server) -> int:
    code = server.terminate()
    server.start()
    server.wait_ready()
    return code
