"""The generator: token ids in, the next token id out; the caches follow the ids.

The ids are the only truth (design law 1). The generator remembers which ids the caches of its
pipeline hold; asked for the token after other ids, it keeps the common beginning and computes the
rest. A hop that fails costs its own caches, which are filled again, and never a token.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial

import torch

from gptnode.model.sampler import Sampler
from gptnode.model.shard import Embedding, Head
from gptnode.node.compute import ComputeLane
from gptnode.node.config import PREFILL_CHUNK_TOKENS
from gptnode.node.pipeline import HopFailure, Pipeline
from gptnode.node.swarm import Swarm
from gptnode.node.timing import Tally, TokenTiming

__all__ = ["Generator"]


class Generator:
    """Embedding and head of this node around the pipeline of a swarm.

    Resource handling: sessions stay open between answers, with their caches; ``forget`` ends them.
    """

    def __init__(
        self,
        embedding: Embedding,
        head: Head,
        swarm: Swarm,
        lane: ComputeLane,
        device: torch.device,
        max_tokens: int,
    ) -> None:
        """``max_tokens``: the longest context, for which peers are asked to reserve room."""
        self.max_tokens = max_tokens
        self.prefilled_tokens = 0
        self.timing: TokenTiming | None = None
        self._embedding = embedding
        self._head = head
        self._swarm = swarm
        self._lane = lane
        self._device = device
        self._pipeline = Pipeline(replaceable=swarm.replaceable, replay_rows=swarm.replay_rows)
        self._cached: list[int] = []

    async def next_token(self, ids: Sequence[int], sampler: Sampler) -> int:
        """The token after ``ids`` (at least one, at most ``max_tokens``).

        ``timing`` then says where its time went. Cancelling leaves everything in order: the next
        call computes what it needs again.

        Raises:
            GptNodeError: some blocks have no live peer, or this node itself failed.
        """
        started_s = time.perf_counter()
        tally = Tally()
        self._swarm.be_patient_anew()
        while True:
            tally.begin()
            try:
                token = await self._next_token(list(ids), sampler, tally)
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
        self._cached.clear()
        self._pipeline.log.cut(0)
        self._pipeline.use(())
        await self._swarm.close()

    async def _next_token(self, ids: list[int], sampler: Sampler, tally: Tally) -> int:
        if await self._complete() and tally.attempts == 1:
            tally.begin()  # a peer was lost before this token: it isn't one of a usual cost
        keep = min(_common_prefix(self._cached, ids), len(ids) - 1)
        if keep < len(self._cached):
            del self._cached[keep:]
            await self._pipeline.truncate(keep)
        while True:
            start = self.prefilled_tokens = len(self._cached)
            chunk = ids[start : start + PREFILL_CHUNK_TOKENS]
            embedded = await self._lane.run(partial(self._embed, chunk))
            hidden = await self._pipeline.forward(embedded.value, start)
            self._pipeline.commit(chunk)
            self._cached.extend(chunk)
            tally.own(embedded.compute_s)
            tally.chunk(len(chunk), self._pipeline.timings)
            if len(self._cached) == len(ids):
                break
            if not self._swarm.complete_now:  # the map was edited, or a peer has left
                await self._complete()
                tally.begin()
        self.prefilled_tokens = len(ids)
        last = hidden[:, -1:]
        sampled = await self._lane.run(lambda: sampler.sample(self._head(last)[0], ids))
        tally.own(sampled.compute_s)
        return sampled.value

    async def _complete(self) -> bool:
        """Have a stage for all blocks, each with what the others hold; True if some were filled.

        Raises:
            HopFailure: a peer failed meanwhile.
            GptNodeError: some blocks have no live peer.
        """
        if not self._swarm.complete_now or not self._pipeline.stages:
            self._pipeline.use(await self._swarm.complete(self.max_tokens))
        if self._pipeline.behind and self._pipeline.log.over:
            self._cached.clear()  # too much was kept to keep it: the ids alone do it
            await self._pipeline.truncate(0)
            return True
        return await self._pipeline.catch_up(self._embed_soon) > 0

    async def _embed_soon(self, ids: list[int]) -> torch.Tensor:
        return (await self._lane.run(partial(self._embed, ids))).value

    def _embed(self, ids: list[int]) -> torch.Tensor:
        embedded: torch.Tensor = self._embedding(torch.tensor([ids], device=self._device))
        return embedded


def _common_prefix(left: list[int], right: list[int]) -> int:
    """How many ids both begin with."""
    n = min(len(left), len(right))
    if left[:n] == right[:n]:  # the usual case, at the speed of C
        return n
    return next(i for i in range(n) if left[i] != right[i])
