"""The two ends of a model, on both sides of its blocks: ids in, and the next ids out.

One `Ends` serves one context; the weights behind it may be those of many.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from gptnode.errors import UsageError
from gptnode.model.sampler import Sampler
from gptnode.model.shard import Embedding
from gptnode.node.compute import ComputeLane
from gptnode.node.drawing import draw_with, ids_tensor, sample_rows
from gptnode.node.head_batching import HeadBatcher
from gptnode.node.loading import ModelSource
from gptnode.routing.entries import NO_ENDS, PlacedEnds
from gptnode.wire.messages import Draw

__all__ = ["Ends", "OwnEnds", "Sampled"]


@dataclass(frozen=True, slots=True)
class Sampled:
    """At least one token, and the seconds that it took in the lane."""

    tokens: tuple[int, ...]
    compute_s: float


class OwnEnds:
    """Embedding and head of this node, for all of its contexts; loaded when they are needed."""

    def __init__(self, source: ModelSource, lane: ComputeLane) -> None:
        """Nothing is loaded; ``lane`` is where it will run."""
        self.embedding: Embedding | None = None
        self.heads: HeadBatcher | None = None
        self.lane = lane
        self.device = source.device
        self._source = source

    async def load(self, *, embedding: bool = True, head: bool = True) -> None:
        """Have those that are asked for.

        Raises:
            ModelError: the weights are missing or damaged.
        """
        if (embedding and self.embedding is None) or (head and self.heads is None):
            await self.lane.run(partial(self._load, embedding, head))

    def _load(self, embedding: bool, head: bool) -> None:
        """In the lane, where nobody else can be loading the same."""
        if embedding and self.embedding is None:
            self.embedding = self._source.load_embedding()
        if head and self.heads is None:
            self.heads = HeadBatcher(self.lane, self._source.load_head(self.embedding))


class Ends:
    """Embedding, head and sampling of one context.

    Ends that go with blocks are those of whoever has the blocks: ids go into the pipeline then, or
    come out of it.
    """

    def __init__(self, own: OwnEnds) -> None:
        """``own`` may be those of other contexts too."""
        self._own = own
        self._placed = NO_ENDS
        self._ahead: tuple[int, Tensor] | None = None  # a token and its embedding

    @property
    def exact(self) -> bool:
        """Whether rows are the same to the bit, sampled alone and together, as far as is known."""
        return self._own.heads is None or self._own.heads.head.joint_rows > 1

    async def use(self, placed: PlacedEnds) -> None:
        """``placed`` go with blocks from now on; have the others here.

        Raises:
            ModelError: the weights are missing or damaged.
        """
        await self._own.load(embedding=not placed.embed, head=not placed.head)
        if placed != self._placed:
            self._placed, self._ahead = placed, None

    async def embed(self, ids: Sequence[int]) -> tuple[Tensor, float]:
        """What the pipeline is given for ``ids``, and the seconds in the lane.

        (1, T, D), or the ids themselves, (1, T) int32.
        """
        if self._placed.embed:
            return ids_tensor(ids), 0.0
        ahead, self._ahead = self._ahead, None
        if ahead is not None and list(ids) == [ahead[0]]:
            return ahead[1], 0.0
        ran = await self._own.lane.run(partial(self._embed, ids))
        return ran.value, ran.compute_s

    def draw(self, ids: Sequence[int], guess: Sequence[int], sampler: Sampler) -> Draw | None:
        """What the last step after ``ids`` has to ask for; None where ``sample`` does it.

        Raises:
            UsageError: the sampler is to do more than a peer can be asked for.
        """
        if not self._placed.head:
            return None
        if sampler.needs_logits:
            raise UsageError("the BlocksMap leaves the head to a peer, which tells tokens alone")
        return draw_with(sampler, ids, guess)

    async def sample(
        self, out: Tensor, ids: Sequence[int], guess: Sequence[int], sampler: Sampler
    ) -> Sampled:
        """The token after ``ids``, and after each of ``guess`` that was sampled.

        Args:
            out: What came out of the pipeline for the last of ``ids`` and all of ``guess``, and
                perhaps for others before: (1, T, D), or the tokens that were drawn there.
            ids: The context.
            guess: What may follow it.
            sampler: Draws them.
        """
        if self._placed.head:
            drawn = tuple(map(int, out[0]))
            sampler.drawn += len(drawn)
            return Sampled(drawn, 0.0)

        def sample(logits: Tensor) -> tuple[int, ...]:
            tokens = sample_rows(logits, ids, guess, sampler)
            if len(tokens) == 1 and not self._placed.embed:
                self._ahead = (tokens[0], self._embed(tokens))  # the next step needn't come here
            return tokens

        heads = self._own.heads
        if heads is None:
            raise RuntimeError("the head isn't loaded")
        tokens, compute_s = await heads.run(out[0, -len(guess) - 1 :].unsqueeze(1), sample)
        return Sampled(tokens, compute_s)

    def _embed(self, ids: Sequence[int]) -> Tensor:
        """In the lane."""
        embedding = self._own.embedding
        if embedding is None:
            raise RuntimeError("the embedding isn't loaded")
        embedded: Tensor = embedding(torch.tensor([ids], device=self._own.device))
        return embedded
