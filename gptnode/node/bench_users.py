"""Measures several users at once: contexts of their own, all over the same blocks.

Each user does what a chat does, with made-up ids: a prompt, then one token after another, greedily.
They wait for nobody, but all prompts are done before the first step is counted. This node's own
work for them, blocks and head, is joined as a server joins it.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import trio

from gptnode.errors import GptNodeError, NetworkError, StreamLostError, UsageError
from gptnode.node.batching import Batcher
from gptnode.node.bench_report import BenchRun, MeasuredHop, Together
from gptnode.node.bench_user import BenchUser, open_user_stages
from gptnode.node.config import PREFILL_CHUNK_TOKENS
from gptnode.node.joint_stage import JointStage
from gptnode.node.nursery import background_nursery
from gptnode.node.opening import close_all
from gptnode.node.runtime import Engine
from gptnode.node.timing import TokenTiming

__all__ = ["UsersAtOnce", "measure_users"]

WARM_UP_STEPS = 4


@dataclass(frozen=True, slots=True)
class UsersAtOnce:
    """What was found: the runs of all users, and for each repetition the time of all together."""

    hops: tuple[MeasuredHop, ...]
    runs: tuple[BenchRun, ...]
    together: tuple[Together, ...]
    kv_bytes: int


async def measure_users(
    engine: Engine,
    users: int,
    *,
    prompt_tokens: int,
    start_tokens: int,
    tokens: int,
    repeat: int,
    say: Callable[[str, int, int], None],
) -> UsersAtOnce:
    """Measure ``users`` at once, after a warm-up that isn't counted.

    Args:
        engine: Ready for a token.
        users: How many.
        prompt_tokens: Of each user.
        start_tokens: What each user's caches hold when the first step begins.
        tokens: Steps of each user.
        repeat: How often all of it is done.
        say: Told a phase, and how much of how much of it is done.

    Raises:
        StreamLostError: a peer was lost meanwhile.
        UsageError: embedding or head are left to peers.
        GptNodeError: sessions for so many users can't be opened.
    """
    longest = max(prompt_tokens, start_tokens + tokens)
    route = engine.swarm.hops()
    await engine.generator.forget()  # its session counts at the servers like any other
    embedding, heads, batcher = engine.ends.embedding, engine.ends.heads, Batcher(engine.lane)
    if embedding is None or heads is None:
        raise UsageError("several users are measured with embedding and head of this node")
    async with background_nursery() as nursery:
        crowd: list[BenchUser] = []
        try:
            for number in range(users):
                say("opening sessions", number, users)
                stages = await open_user_stages(
                    engine, route, f"user {number}", longest, batcher, nursery
                )
                crowd.append(BenchUser(engine, number, stages, embedding, heads, longest))
            crowd_of = _Crowd(crowd, say)
            await crowd_of.prefill("warm-up", min(prompt_tokens, PREFILL_CHUNK_TOKENS))
            await crowd_of.decode("warm-up", min(tokens, WARM_UP_STEPS))
            runs: list[BenchRun] = []
            together: list[Together] = []
            for _ in range(repeat):
                prefills, prefill_s = await crowd_of.prefill("prefill", prompt_tokens)
                if start_tokens != prompt_tokens:
                    await crowd_of.fill(start_tokens)
                steps, decode_s = await crowd_of.decode("decode", tokens)
                runs += [BenchRun(p, tuple(s)) for p, s in zip(prefills, steps, strict=True)]
                together.append(Together(prefill_s, decode_s))
            hops = [
                MeasuredHop("local" if hop.peer_id is None else hop.label, hop.peer_id, hop.span)
                for hop in route
            ]
            own = [s for user in crowd for s in user.stages if isinstance(s, JointStage)]
            kv_bytes = sum(stage.cache.bytes_in_use for stage in own)
            return UsersAtOnce(tuple(hops), tuple(runs), tuple(together), kv_bytes)
        except NetworkError as error:
            if len(crowd) == users:
                raise StreamLostError(
                    f"a peer was lost while it was measured: {error.detail}; measure again"
                ) from error
            raise
        finally:
            with trio.move_on_after(2.0) as scope:
                scope.shield = True
                await close_all([stage for user in crowd for stage in user.stages])


class _Crowd:
    """All users at once."""

    def __init__(self, users: Sequence[BenchUser], say: Callable[[str, int, int], None]) -> None:
        self._users = users
        self._say = say

    async def prefill(self, phase: str, tokens: int) -> tuple[list[TokenTiming], float]:
        """Each user's prompt from the beginning, and the time until all are done."""
        found, elapsed_s = await self._all(phase, 1, lambda user: user.prefill(tokens))
        return [timings[0] for timings in found], elapsed_s

    async def fill(self, tokens: int) -> None:
        """Bring each user's caches to ``tokens``."""
        await self._all("filling the context", 1, lambda user: user.prefill(tokens))

    async def decode(self, phase: str, tokens: int) -> tuple[list[list[TokenTiming]], float]:
        """Each user's next ``tokens`` tokens, and the time until all are done."""
        return await self._all(phase, tokens, lambda user: user.step())

    async def _all(
        self, phase: str, times: int, do: Callable[[BenchUser], Awaitable[TokenTiming]]
    ) -> tuple[list[list[TokenTiming]], float]:
        found: list[list[TokenTiming]] = [[] for _ in self._users]
        total = times * len(self._users)
        errors: list[GptNodeError] = []

        async def one(user: BenchUser, into: list[TokenTiming]) -> None:
            for _ in range(times):
                try:
                    into.append(await do(user))
                except GptNodeError as error:
                    errors.append(error)
                    nursery.cancel_scope.cancel()
                    return
                if user is self._users[0]:  # looked at now and then: rare enough to cost nothing
                    self._say(phase, min(len(self._users) * len(into), total), total)

        self._say(phase, 0, total)
        began_s = time.perf_counter()
        async with trio.open_nursery() as nursery:
            for user, into in zip(self._users, found, strict=True):
                nursery.start_soon(one, user, into)
        if errors:
            raise errors[0]
        return found, time.perf_counter() - began_s
