"""Measures a node: prefill and decode as a chat does them, but with made-up token ids.

The same generator, lane, stages and greedy sampler as in a chat; no tokenizer and no template, as
ids are enough. Nothing is shown here, and no figure is made of the times: see `BenchReport`.
"""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import torch
import trio

from gptnode.errors import StreamLostError, UsageError
from gptnode.model.config import ModelConfig
from gptnode.model.sampler import Sampler, Sampling
from gptnode.node.bench_machine import resident_bytes, this_machine, versions
from gptnode.node.bench_report import BenchReport, BenchRun, MeasuredHop
from gptnode.node.bench_users import UsersAtOnce, measure_users
from gptnode.node.config import PREFILL_CHUNK_TOKENS, ClientConfig
from gptnode.node.nursery import background_nursery
from gptnode.node.opened_model import find_model
from gptnode.node.runtime import Engine, open_engine
from gptnode.node.timing import TokenTiming

__all__ = ["Advance", "BenchPlan", "measure"]

WARM_UP_STEPS = 4
PREFILL_WATCH_S = 0.5  # between two looks at a prefill under way: rare enough to cost nothing
SEED = 20_240_229


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchPlan:
    """What to measure; all at least 1.

    ``prompt_tokens`` are prefilled into empty caches. Then the caches are brought to
    ``context_tokens`` (None: they stay as the prefill left them) and ``tokens`` decode steps are
    taken from there. All of it ``repeat`` times, and by ``users`` at once.
    """

    prompt_tokens: int = 512
    tokens: int = 32
    context_tokens: int | None = None
    repeat: int = 1
    users: int = 1

    @property
    def start_tokens(self) -> int:
        """What the caches hold when the first decode step begins."""
        return self.prompt_tokens if self.context_tokens is None else self.context_tokens

    @property
    def longest_tokens(self) -> int:
        """The most that they will hold."""
        return max(self.prompt_tokens, self.start_tokens + self.tokens)

    def check(self, model: ModelConfig) -> None:
        """UsageError if the model isn't made for contexts of that length."""
        limit = model.context_tokens
        if self.prompt_tokens > limit:
            raise UsageError(
                f"--prompt-tokens {self.prompt_tokens} is more than the {limit} tokens of context "
                "that the model allows"
            )
        if self.start_tokens + self.tokens > limit:
            raise UsageError(
                f"a context of {self.start_tokens} tokens and {self.tokens} steps after it are "
                f"{self.start_tokens + self.tokens} tokens, the model allows {limit}: lower "
                "--context, --prompt-tokens or --tokens"
            )


@dataclass(frozen=True, slots=True)
class Advance:
    """How far a phase of the measurement is, for somebody who waits."""

    phase: str
    done_tokens: int
    total_tokens: int


async def measure(
    config: ClientConfig,
    plan: BenchPlan,
    *,
    report: Callable[[str], None],
    progress: Callable[[Advance], None] | None = None,
) -> BenchReport:
    """Open what ``config`` names and measure it, after a warm-up that isn't counted.

    Args:
        config: A model folder, or a map and an identity; ``context_tokens`` is set by the plan.
        plan: What to measure.
        report: Shows one line of progress or trouble of the swarm.
        progress: Called between the parts that are timed, and now and then during a prefill.

    Raises:
        UsageError: the model isn't made for contexts of that length.
        StreamLostError: a peer was lost meanwhile, so that the times are of several routes.
        GptNodeError: as for a chat.
    """
    began_s = time.perf_counter()
    model = find_model(config)
    plan.check(model.source.config)
    config = replace(config, context_tokens=plan.longest_tokens)
    async with open_engine(model, config, report=report) as engine:
        await engine.generator.start_over()
        load_s = time.perf_counter() - began_s
        if plan.users > 1:
            found = await _measure_users(engine, plan, progress)
        else:
            bench = _Bench(engine, plan, progress)
            await bench.warm_up()
            runs = [await bench.run() for _ in range(plan.repeat)]
            found = UsersAtOnce(bench.hops, tuple(runs), (), engine.swarm.own_kv_bytes)
        return BenchReport(
            model=model.source.key.name,
            dtype=model.source.key.dtype_name,
            device=str(model.source.device),
            threads=(await engine.lane.run(torch.get_num_threads)).value,
            prompt_tokens=plan.prompt_tokens,
            tokens=plan.tokens,
            context_tokens=plan.start_tokens,
            load_s=load_s,
            hops=found.hops,
            runs=found.runs,
            resident_bytes=resident_bytes(),
            weight_bytes=sum(part.weight_bytes for part in engine.parts),
            kv_bytes=found.kv_bytes,
            versions=versions(),
            machine=this_machine(),
            users=plan.users,
            together=found.together,
        )


async def _measure_users(
    engine: Engine, plan: BenchPlan, progress: Callable[[Advance], None] | None
) -> UsersAtOnce:
    def say(phase: str, done_tokens: int, total_tokens: int) -> None:
        if progress is not None:
            progress(Advance(phase, done_tokens, total_tokens))

    return await measure_users(
        engine,
        plan.users,
        prompt_tokens=plan.prompt_tokens,
        start_tokens=plan.start_tokens,
        tokens=plan.tokens,
        repeat=plan.repeat,
        say=say,
    )


class _Bench:
    """One engine under measurement."""

    def __init__(
        self, engine: Engine, plan: BenchPlan, progress: Callable[[Advance], None] | None
    ) -> None:
        """Sessions are open, weights are loaded."""
        self._generator = engine.generator
        self._swarm = engine.swarm
        self._plan = plan
        self._progress = progress
        self._sampler = Sampler(Sampling(temperature=0.0))
        chosen = random.Random(SEED)  # any ids do; the same ones every time
        vocab_size = engine.source.config.vocab_size
        self._ids = chosen.choices(range(vocab_size), k=plan.longest_tokens)
        self.hops: tuple[MeasuredHop, ...] = ()

    async def warm_up(self) -> None:
        """Page the weights in, and run each shape of step that will be measured.

        The ``hops`` are those in use after it.
        """
        self._say("warm-up", 0, 1)
        whole, rest = divmod(self._plan.prompt_tokens, PREFILL_CHUNK_TOKENS)
        prompt = self._ids[: min(whole, 1) * PREFILL_CHUNK_TOKENS + rest]
        await self._generator.next_token(prompt, self._sampler)
        ids = prompt[: self._plan.start_tokens]
        for _ in range(min(self._plan.tokens, WARM_UP_STEPS)):
            ids.append(await self._generator.next_token(ids, self._sampler))
        self.hops = self._hops_now()

    async def run(self) -> BenchRun:
        """One prefill and the decode steps after it."""
        plan = self._plan
        await self._generator.start_over()
        async with self._watching_prefill():
            token, prefill = await self._token(self._ids[: plan.prompt_tokens], plan.prompt_tokens)
        if plan.start_tokens != plan.prompt_tokens:
            token = await self._fill()
        ids = [*self._ids[: plan.start_tokens], token]
        steps: list[TokenTiming] = []
        while len(steps) < plan.tokens:
            self._say("decode", len(steps), plan.tokens)
            token, timing = await self._token(ids, 1)
            ids.append(token)
            steps.append(timing)
        if self._hops_now() != self.hops:
            raise _lost()
        return BenchRun(prefill, tuple(steps))

    async def _token(self, ids: list[int], new_tokens: int) -> tuple[int, TokenTiming]:
        """The next token and its times, if they are those of ``new_tokens`` and nothing else."""
        token = await self._generator.next_token(ids, self._sampler)
        timing = self._generator.timing
        if timing is None or (timing.tokens, timing.attempts) != (new_tokens, 1):
            raise _lost()
        return token, timing

    async def _fill(self) -> int:
        """Bring the caches from the prompt's to the context's length; the token after that."""
        begin, end = self._plan.prompt_tokens, self._plan.start_tokens
        for stop in range(begin + PREFILL_CHUNK_TOKENS, end, PREFILL_CHUNK_TOKENS):
            self._say("filling the context", stop - PREFILL_CHUNK_TOKENS, end)
            await self._generator.next_token(self._ids[:stop], self._sampler)
        return await self._generator.next_token(self._ids[:end], self._sampler)

    @asynccontextmanager
    async def _watching_prefill(self) -> AsyncIterator[None]:
        """Tell how far the prefill in the body is, if anybody looks."""
        async with background_nursery() as nursery:
            if self._progress is not None:
                nursery.start_soon(self._watch_prefill)
            yield

    async def _watch_prefill(self) -> None:
        total = self._plan.prompt_tokens
        self._say("prefill", 0, total)
        while True:
            await trio.sleep(PREFILL_WATCH_S)
            self._say("prefill", min(self._generator.prefilled_tokens, total), total)

    def _say(self, phase: str, done_tokens: int, total_tokens: int) -> None:
        if self._progress is not None:
            self._progress(Advance(phase, done_tokens, total_tokens))

    def _hops_now(self) -> tuple[MeasuredHop, ...]:
        return tuple(
            MeasuredHop("local" if hop.peer_id is None else hop.label, hop.peer_id, hop.span)
            for hop in self._swarm.hops()
        )


def _lost() -> StreamLostError:
    return StreamLostError(
        "a peer was lost while it was measured, and the times would be of two routes: measure again"
    )
