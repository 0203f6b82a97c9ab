"""Users who decode over one server while another one's long prompt is computed: prints JSON.

    python benchmarks/workers/neighbours.py MAP IDENTITY THREADS USERS PROMPT_TOKENS TOKENS

Steps in milliseconds, of all users together: ``alone`` before the prompt came, ``beside`` it. Both
are taken in turn, ROUNDS times.
"""

from __future__ import annotations

import json
import sys
import time
from itertools import count
from pathlib import Path

import trio

from gptnode.node.batching import Batcher
from gptnode.node.bench_user import BenchUser, open_user_stages
from gptnode.node.config import ClientConfig
from gptnode.node.nursery import background_nursery
from gptnode.node.opened_model import find_model
from gptnode.node.runtime import open_engine

ROUNDS = 2
START_TOKENS = 128
WARM_UP_STEPS = 4


async def decode(
    users: list[BenchUser], into_ms: list[float], until: trio.Event, steps: int | None = None
) -> None:
    """All users at once, each step as soon as the last one is done; ``steps`` each, or until."""

    async def one(user: BenchUser) -> None:
        for _ in count() if steps is None else range(steps):
            began_s = time.perf_counter()
            await user.step()
            if until.is_set():
                return
            into_ms.append(1000 * (time.perf_counter() - began_s))

    async with trio.open_nursery() as nursery:
        for user in users:
            nursery.start_soon(one, user)


async def main() -> None:
    """See the module's docstring."""
    map_path, identity, *numbers = sys.argv[1:]
    threads, n_users, prompt_tokens, tokens = map(int, numbers)
    config = ClientConfig(
        map_path=Path(map_path), identity_path=Path(identity), threads=threads, speculate=False
    )
    model = find_model(config)
    async with (
        open_engine(model, config, report=lambda line: None) as engine,
        background_nursery() as nursery,
    ):
        embedding, heads = engine.ends.embedding, engine.ends.heads
        if embedding is None or heads is None:
            raise SystemExit("the client must hold embedding and head")
        await engine.generator.start_over()  # dials
        batcher, route = Batcher(engine.lane), engine.swarm.hops()
        await engine.generator.forget()

        async def user(number: int, longest: int) -> BenchUser:
            stages = await open_user_stages(
                engine, route, f"user {number}", longest, batcher, nursery
            )
            return BenchUser(engine, number, stages, embedding, heads, longest)

        longest = START_TOKENS + 40 * tokens * ROUNDS
        users = [await user(number, longest) for number in range(n_users)]
        newcomer = await user(n_users, prompt_tokens)
        for one in users:
            await one.prefill(START_TOKENS)
            for _ in range(WARM_UP_STEPS):
                await one.step()
        await newcomer.prefill(prompt_tokens)  # warm too
        found: dict[str, list[float]] = {"alone": [], "beside": [], "prompt_s": []}
        for _ in range(ROUNDS):
            await decode(users, found["alone"], trio.Event(), tokens)
            done = trio.Event()
            async with trio.open_nursery() as both:
                both.start_soon(decode, users, found["beside"], done)
                for stage in newcomer.stages:
                    await stage.truncate(0)
                began_s = time.perf_counter()
                await newcomer.prefill(prompt_tokens)
                found["prompt_s"].append(time.perf_counter() - began_s)
                done.set()
        print(json.dumps(found))


if __name__ == "__main__":
    trio.run(main)
