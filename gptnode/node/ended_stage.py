"""A stage of this node that has ends of the model besides, as the BlocksMap wants it.

What a peer with such a hop does for others, done here: ids go in, or come out.
"""

from __future__ import annotations

from typing import TypeAlias

from torch import Tensor

from gptnode.model.shard import Embedding
from gptnode.node.drawing import NONE_DRAWN, draw_tokens, ids_tensor
from gptnode.node.ends import OwnEnds
from gptnode.node.joint_stage import JointStage
from gptnode.node.stages import LocalStage
from gptnode.node.timing import HopTiming
from gptnode.routing.entries import PlacedEnds
from gptnode.wire.messages import Draw

__all__ = ["EndedStage", "OwnStage"]


class EndedStage:
    """Blocks of this node, with the embedding before or the head behind them, or both."""

    peer_id = None
    lost = None

    def __init__(
        self, blocks: LocalStage | JointStage, ends: PlacedEnds, own: OwnEnds, vocab_size: int
    ) -> None:
        """Around ``blocks``; ``own`` has the ``ends`` loaded."""
        self.span = blocks.span
        self.ends = ends
        self.timing = HopTiming()
        self._blocks = blocks
        self._own = own
        self._vocab_size = vocab_size

    @property
    def kv_bytes(self) -> int:
        """Memory that holds keys and values now, in whole pages."""
        return self._blocks.kv_bytes

    async def forward(self, hidden: Tensor, position: int, draw: Draw | None = None) -> Tensor:
        """See ``Stage``."""
        compute_s, embedding, heads = 0.0, self._own.embedding, self._own.heads
        if self.ends.embed and embedding is not None:
            ids = hidden.to(self._own.device)
            ran = await self._own.lane.run(lambda: _looked_up(embedding, ids))
            hidden, compute_s = ran.value, ran.compute_s
        hidden = await self._blocks.forward(hidden, position)
        self.timing = self._blocks.timing + HopTiming(compute_s=compute_s)
        if not self.ends.head:
            return hidden
        if draw is None or heads is None:
            return ids_tensor([NONE_DRAWN])
        tokens, compute_s = await draw_tokens(heads, hidden, draw, self._vocab_size)
        self.timing += HopTiming(compute_s=compute_s)
        return ids_tensor(tokens)

    async def truncate(self, length: int) -> None:
        """See ``Stage``."""
        await self._blocks.truncate(length)

    async def aclose(self) -> None:
        """See ``Stage``."""
        await self._blocks.aclose()


def _looked_up(embedding: Embedding, ids: Tensor) -> Tensor:
    found: Tensor = embedding(ids)
    return found


OwnStage: TypeAlias = LocalStage | JointStage | EndedStage
"""A stage of this node, whose cache is in its memory."""
