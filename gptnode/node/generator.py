"""The generator: token ids in, the next token id out; the caches follow the ids.

The ids are the only truth (design law 1). The generator remembers which ids the caches of its
pipeline hold; asked for the token after other ids, it keeps the common beginning and computes the
rest. A hop that fails costs its own caches, which are filled again, and never a token.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Sequence

import torch
import trio

from gptnode.model.sampler import Sampler
from gptnode.node.config import PREFILL_CHUNK_TOKENS
from gptnode.node.ends import Ends
from gptnode.node.legs import PipelineStep
from gptnode.node.meter import AnswerMeter, HopName
from gptnode.node.pipeline import Pipeline
from gptnode.node.replay import REPLAY_BYTES, ReplayLog
from gptnode.node.speculation import Ready, Speculation, common_prefix
from gptnode.node.stages import HopFailure
from gptnode.node.swarm import Swarm
from gptnode.node.timing import Tally, TokenTiming
from gptnode.node.verify import WrongAnswers
from gptnode.wire.messages import Draw

__all__ = ["Generator"]


class Generator:
    """The ends of a model around the pipeline of a swarm.

    Resource handling: sessions stay open between answers, with their caches; ``forget`` ends them.
    """

    def __init__(
        self,
        ends: Ends,
        swarm: Swarm,
        max_tokens: int,
        *,
        rings: bool = False,
        speculate: bool = False,
        replay_bytes: int = REPLAY_BYTES,
    ) -> None:
        """A generator without sessions yet.

        Args:
            ends: The context's.
            swarm: Has the stages.
            max_tokens: The longest context, for which peers are asked to reserve room.
            rings: Whether peers may hand on to each other.
            speculate: Whether to guess tokens ahead, where that changes no token: where rows of a
                step are the same to the bit, alone and together.
            replay_bytes: Of activations to keep, by which single hops are filled again.
        """
        self.max_tokens = max_tokens
        self.prefilled_tokens = 0
        self.timing: TokenTiming | None = None
        self.hops: tuple[HopName, ...] = ()
        self._ends = ends
        self._swarm = swarm
        self._pipeline = Pipeline(
            replaceable=swarm.replaceable,
            replay_rows=swarm.replay_rows,
            log=ReplayLog(limit_bytes=replay_bytes),
            rings=rings,
            report=swarm.say,
        )
        exact = swarm.replay_rows > 1 and ends.exact
        self.speculation = Speculation() if speculate and exact else None
        self._ready = Ready()
        self._cached: list[int] = []
        self._answer_meter = AnswerMeter()

    @property
    def cached_ids(self) -> Sequence[int]:
        """The ids that the caches hold; not to be changed."""
        return self._cached

    def answer_meter(self, prompt_tokens: int) -> AnswerMeter:
        """To be told of the answer that begins now: each token, with ``timing`` and ``hops``."""
        self._answer_meter.ended("cancelled")  # nobody says so who just asks for no more
        self._answer_meter = self._swarm.meter.answer(self._swarm.model_name, prompt_tokens)
        return self._answer_meter

    async def next_token(self, ids: Sequence[int], sampler: Sampler) -> int:
        """The token after ``ids`` (at least one, at most ``max_tokens``).

        ``timing`` then says where its time went. Cancelling leaves everything in order: the next
        call computes what it needs again.

        Raises:
            GptNodeError: some blocks have no live peer, or this node itself failed.
        """
        started_s = time.perf_counter()
        tally = Tally()
        ready = self._ready.take(ids, sampler)
        if ready is not None:
            await trio.lowlevel.checkpoint()
            tally.begin()
            self.timing = tally.done(time.perf_counter() - started_s)
            return ready
        self._swarm.be_patient_anew()
        while True:
            tally.begin()
            try:
                async with self._swarm.verifier.checking():
                    token = await self._next_token(list(ids), sampler, tally)
            except WrongAnswers:
                self._cached.clear()  # the other caches hold what came of them
                self._pipeline.log.cut(0)
            except HopFailure as failure:
                self._swarm.blame(failure)
            else:
                self._swarm.progressed()
                self.timing = tally.done(time.perf_counter() - started_s)
                return token

    async def start_over(self) -> None:
        """Open sessions with empty caches, or empty those that are open.

        The next token then costs its whole context, and nothing besides.

        Raises:
            GptNodeError: as ``next_token``.
        """
        self._swarm.be_patient_anew()
        while True:
            self._cached.clear()
            self._pipeline.log.cut(0)
            try:
                await self._complete()
                await self._pipeline.truncate(0)
                return
            except HopFailure as failure:
                self._swarm.blame(failure)

    async def forget(self) -> None:
        """End the sessions, here and on the peers; their caches are freed."""
        self._answer_meter.ended("cancelled")
        self._cached.clear()
        self._ready = Ready()
        if self.speculation is not None:
            self.speculation.forget()
        self._pipeline.log.cut(0)
        self._pipeline.use(())
        await self._swarm.close()

    async def _next_token(self, ids: list[int], sampler: Sampler, tally: Tally) -> int:
        if await self._complete() and tally.attempts == 1:
            tally.begin()  # a peer was lost before this token: it isn't one of a usual cost
        keep = min(common_prefix(self._cached, ids), len(ids) - 1)
        if keep < len(self._cached):
            del self._cached[keep:]
            await self._pipeline.truncate(keep)
        if self.speculation is not None and len(ids) - len(self._cached) == 1:
            return await self._speculate(self.speculation, ids, sampler, tally)
        if self.speculation is None:
            last = await self._prefill(ids, sampler, tally)
        else:
            async with self.speculation.meanwhile(ids, sampler, waits=self._pipeline.waits):
                last = await self._prefill(ids, sampler, tally)
        await self._swarm.verifier.settle()
        sampled = await self._ends.sample(last, ids, (), sampler)
        tally.own(sampled.compute_s)
        return sampled.tokens[0]

    async def _speculate(
        self, speculation: Speculation, ids: list[int], sampler: Sampler, tally: Tally
    ) -> int:
        """A step of the last of ``ids`` and a guess of what follows; the token after ``ids``.

        The tokens after that one which the guess has earned are ready for the next calls.
        """
        began_s = time.perf_counter()
        start = len(self._cached)
        waits = self._pipeline.waits
        guess = await speculation.draft(ids, self.max_tokens - len(ids), sampler, waits=waits)
        tally.own(speculation.drafting_s)
        draw = self._ends.draw(ids, guess, sampler)
        step = await self._step_at([*ids, *guess], start, tally, draw)
        async with speculation.meanwhile([*ids, *guess], sampler, waits=waits, drawn=len(guess)):
            await self._pipeline.forward(step)
        await self._swarm.verifier.settle()
        sampled = await self._ends.sample(step.hidden, ids, guess, sampler)
        token, *more = tokens = sampled.tokens
        self._cached.extend((*ids[start:], *guess[: len(more)]))
        self.prefilled_tokens = len(self._cached)
        self._ready = Ready([*ids, token], more, sampler)
        tally.own(sampled.compute_s)
        tally.chunk(len(step.ids), step.timings)
        speculation.note(guess, tokens, time.perf_counter() - began_s)
        if guess:
            self._swarm.meter.guessed(self._swarm.model_name, len(guess), len(more))
        return token

    async def _prefill(self, ids: list[int], sampler: Sampler, tally: Tally) -> torch.Tensor:
        """Give the pipeline all of ``ids`` that it lacks; what came out for the last: (1, 1, D).

        Or the token after it, where the pipeline has the head.
        """
        last = torch.empty(0)

        def done(step: PipelineStep) -> None:
            nonlocal last
            last = step.hidden[:, -1:]
            self._cached.extend(step.ids)
            self.prefilled_tokens = len(self._cached)
            tally.chunk(len(step.ids), step.timings)

        self.prefilled_tokens = len(self._cached)
        while True:
            if len(ids) - len(self._cached) <= PREFILL_CHUNK_TOKENS:
                draw = self._ends.draw(ids, (), sampler)
                step = await self._step_at(ids, len(self._cached), tally, draw)
                await self._pipeline.forward(step)
                done(step)
            else:
                await self._pipeline.prefill(self._steps(ids, sampler, tally), done)
            if len(self._cached) == len(ids):
                return last
            await self._complete()  # the map was edited, or a peer has left
            tally.begin()

    async def _steps(
        self, ids: list[int], sampler: Sampler, tally: Tally
    ) -> AsyncGenerator[PipelineStep]:
        """The chunks of ``ids`` that aren't cached, while the pipeline is as it should be."""
        for start in range(len(self._cached), len(ids), PREFILL_CHUNK_TOKENS):
            is_last = start + PREFILL_CHUNK_TOKENS >= len(ids)
            draw = self._ends.draw(ids, (), sampler) if is_last else None
            yield await self._step_at(ids, start, tally, draw)
            if not self._swarm.complete_now:
                return

    async def _step_at(
        self, ids: list[int], start: int, tally: Tally, draw: Draw | None
    ) -> PipelineStep:
        """The chunk of ``ids`` that begins at ``start``, embedded."""
        chunk = ids[start : start + PREFILL_CHUNK_TOKENS]
        embedded, compute_s = await self._ends.embed(chunk)
        tally.own(compute_s)
        return PipelineStep(tuple(chunk), start, embedded, draw)

    async def _complete(self) -> bool:
        """Have a stage for all blocks, each with what the others hold; True if some were filled.

        Raises:
            HopFailure: a peer failed meanwhile.
            GptNodeError: some blocks have no live peer.
        """
        if not self._swarm.complete_now or not self._pipeline.stages:
            self._pipeline.use(await self._swarm.complete(self.max_tokens))
            self.hops = self._swarm.hop_names()
        await self._ends.use(self._pipeline.ends)
        if self._pipeline.behind and self._pipeline.log.over:
            self._cached.clear()  # too much was kept to keep it: the ids alone do it
            await self._pipeline.truncate(0)
            return True
        filled = await self._pipeline.catch_up(self._embed)
        if filled:
            self._swarm.meter.refilled(self._swarm.model_name, filled)
        await self._pipeline.join()
        return filled > 0

    async def _embed(self, ids: list[int]) -> torch.Tensor:
        return (await self._ends.embed(ids))[0]
