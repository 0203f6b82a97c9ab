"""A user who is measured among others: a context of its own, made-up ids, the likeliest tokens."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from functools import partial

import torch
import trio
from torch import Tensor

from gptnode.model.sampler import Sampler, Sampling
from gptnode.model.shard import Embedding
from gptnode.node.batching import Batcher
from gptnode.node.config import PREFILL_CHUNK_TOKENS
from gptnode.node.head_batching import HeadBatcher
from gptnode.node.joint_stage import JointStage
from gptnode.node.remote_stage import RemoteStage
from gptnode.node.runtime import Engine
from gptnode.node.stages import Stage
from gptnode.node.swarm import HopView
from gptnode.node.timing import Tally, TokenTiming

__all__ = ["BenchUser", "open_user_stages"]

SEED = 20_240_229


async def open_user_stages(
    engine: Engine,
    route: Sequence[HopView],
    owner: str,
    max_tokens: int,
    batcher: Batcher,
    nursery: trio.Nursery,
) -> list[Stage]:
    """A context of its own along ``route``, for whoever closes it.

    Args:
        engine: Its own blocks, and its host.
        route: The hops.
        owner: Takes turns with other owners.
        max_tokens: Room in each cache.
        batcher: Joins steps over this node's own blocks.
        nursery: Owns the sessions' tasks.

    Raises:
        GptNodeError: a peer can't be reached, or has no room.
    """
    stages: list[Stage] = []
    own = {stack.span: stack for stack in engine.swarm.own_blocks}
    for hop in route:
        if hop.peer_id is None or engine.host is None:
            stages.append(JointStage(own[hop.span], max_tokens, batcher, engine.lane, owner))
        else:
            key = engine.source.key
            stages.append(
                await RemoteStage.open(
                    engine.host, hop.peer_id, hop.label, hop.span, key, max_tokens, nursery
                )
            )
    return stages


class BenchUser:
    """One context: its ids, its stages, and where its next step begins.

    Resource handling: whoever opened the stages closes them.
    """

    def __init__(
        self,
        engine: Engine,
        number: int,
        stages: Sequence[Stage],
        embedding: Embedding,
        heads: HeadBatcher,
        longest: int,
    ) -> None:
        """A prompt of ``longest`` made-up ids, another one for each ``number``."""
        self.stages = tuple(stages)
        self._embedding = embedding
        self._device = engine.source.device
        self._lane = engine.lane
        self._heads = heads
        self._sampler = Sampler(Sampling(temperature=0.0))
        vocab_size = engine.source.config.vocab_size
        self._prompt = random.Random(SEED + number).choices(range(vocab_size), k=longest)
        self._ids: list[int] = []
        self._next = torch.empty(0)  # the last token, embedded

    async def prefill(self, tokens: int, start: int = 0) -> TokenTiming:
        """Tokens ``start`` to ``tokens`` of the prompt, and the token after them."""
        began_s = time.perf_counter()
        tally = Tally()
        tally.begin()
        self._ids = self._prompt[:tokens]
        hidden = torch.empty(0)
        for at in range(start, tokens, PREFILL_CHUNK_TOKENS):
            chunk = self._ids[at : at + PREFILL_CHUNK_TOKENS]
            embedded = await self._lane.run(partial(self._embed, chunk))
            tally.own(embedded.compute_s)
            hidden = await self._through(embedded.value, at, tally)
        return await self._finish(hidden, tally, began_s)

    async def step(self) -> TokenTiming:
        """The token after the last one."""
        began_s = time.perf_counter()
        tally = Tally()
        tally.begin()
        hidden = await self._through(self._next, len(self._ids) - 1, tally)
        return await self._finish(hidden, tally, began_s)

    async def _through(self, hidden: Tensor, position: int, tally: Tally) -> Tensor:
        tokens = hidden.shape[1]
        for stage in self.stages:
            hidden = await stage.forward(hidden, position)
        tally.chunk(tokens, [stage.timing for stage in self.stages])
        return hidden

    async def _finish(self, hidden: Tensor, tally: Tally, began_s: float) -> TokenTiming:
        def pick(logits: Tensor) -> tuple[int, Tensor]:
            token = self._sampler.sample(logits[0], self._ids)
            return token, self._embed([token])

        (token, self._next), compute_s = await self._heads.run(hidden[:, -1:], pick)
        self._ids.append(token)
        tally.own(compute_s)
        return tally.done(time.perf_counter() - began_s)

    def _embed(self, ids: list[int]) -> Tensor:
        embedded: Tensor = self._embedding(torch.tensor([ids], device=self._device))
        return embedded
