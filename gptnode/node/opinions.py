"""Second opinions on a hop's answers: of other peers, and of this node's own weights.

Knows how to get one. What follows from it is decided elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from functools import partial
from random import Random

import psutil
import torch
import trio
from torch import Tensor

from gptnode.errors import GptNodeError
from gptnode.node.compute import ComputeLane
from gptnode.node.config import PREFILL_CHUNK_TOKENS
from gptnode.node.journal import Journal
from gptnode.node.loading import ModelSource
from gptnode.node.opening import Opener
from gptnode.node.planning import Planner
from gptnode.node.scaled_rows import as_travelled
from gptnode.node.stages import step_blocks
from gptnode.node.watching import PATIENCE_FACTOR, Check, Shadow
from gptnode.span import Span

__all__ = ["Opinions"]

THIRD_PATIENCE_S = 10.0
OWN_PATIENCE_S = 300.0
ROOM_FACTOR = 3
"""Free memory to have for a block, in sizes of it: files may be in another dtype than the block."""


class Opinions:
    """Whom to ask about a span, and the asking."""

    def __init__(
        self, source: ModelSource, lane: ComputeLane, planner: Planner, opener: Opener, rng: Random
    ) -> None:
        """``rng`` chooses whom to ask: a peer can't know who is compared with it."""
        self._source = source
        self._lane = lane
        self._planner = planner
        self._opener = opener
        self._rng = rng

    def replicas(self, span: Span, besides: Collection[str]) -> list[str]:
        """The peers that serve all of ``span``, in any order; not those that aren't trusted."""
        trusted = self._planner.replicas(span)
        peers = [peer for peer in trusted if peer not in besides]
        self._rng.shuffle(peers)
        return peers

    def is_well(self, peer_id: str) -> bool:
        """Whether nothing is known against it now."""
        return self._planner.health.trouble(peer_id) is None

    async def open(self, peer_id: str, span: Span, max_tokens: int) -> Shadow:
        """A session with ``peer_id``, which is to be closed.

        Raises:
            GptNodeError: it can't be had.
        """
        stage = await self._opener.open_session(span, peer_id, max_tokens)
        return Shadow(peer_id, stage)

    def close_soon(self, shadow: Shadow) -> None:
        """End its session in the background: saying goodbye to a frozen peer takes a second."""
        self._opener.close_soon(shadow.stage)

    async def of_third(self, peer_id: str, step: Check) -> Tensor | None:
        """What ``peer_id`` answers for ``step`` after all that came before; None if it can't."""
        hop = step.hop
        shadow: Shadow | None = None
        try:
            with trio.move_on_after(THIRD_PATIENCE_S + PATIENCE_FACTOR * hop.spent_s):
                shadow = await self.open(peer_id, hop.span, hop.max_tokens)
                return await shadow.answer(hop.journal, step.start, step.stop)
        except GptNodeError:
            pass
        finally:
            if shadow is not None:
                self.close_soon(shadow)
        return None

    def has_own(self, span: Span) -> bool:
        """Whether this node has the weights of ``span``, and room for one block at a time."""
        index = self._source.index
        prefixes = tuple(f"layers.{block}." for block in span)
        here = not any(name.startswith(prefixes) for name in index.absent)
        return here and all(map(self._fits, span))

    async def of_own(self, span: Span, journal: Journal, start: int, stop: int) -> Tensor | None:
        """What this node's own weights make of it; None if they can't be had, or take too long.

        One block at a time: a machine that could never serve the span can judge it.
        """
        hidden = journal.rows(0, stop)
        try:
            with trio.move_on_after(OWN_PATIENCE_S):
                for block in span:
                    ran = await self._lane.run(partial(self._through, block, hidden))
                    hidden = ran.value
                hidden = hidden[:, start:]
                return as_travelled(hidden) if self._source.key.scaled else hidden
        except (GptNodeError, MemoryError, RuntimeError):  # torch: RuntimeError for lack of memory
            pass
        return None

    def _through(self, block: int, hidden: Tensor) -> Tensor:
        """In the lane: (1, T, D) through one block, loaded for it."""
        source = self._source
        stack = source.load_blocks(Span(block, block + 1))
        cache = stack.new_cache(hidden.shape[1])
        answers: list[Tensor] = []
        try:
            for at in range(0, hidden.shape[1], PREFILL_CHUNK_TOKENS):
                rows = hidden[:, at : at + PREFILL_CHUNK_TOKENS].to(source.device)
                answers.append(step_blocks(stack, cache, rows, at).to("cpu", copy=True))
        finally:
            cache.close()
        return torch.cat(answers, dim=1)

    def _fits(self, block: int) -> bool:
        index, key = self._source.index, self._source.key
        prefix = f"layers.{block}."
        entries = [index.entries[name] for name in index.names_under(prefix)]
        n_bytes = sum(math.prod(entry.shape) * key.dtype.itemsize for entry in entries)
        return bool(psutil.virtual_memory().available > ROOM_FACTOR * n_bytes)
