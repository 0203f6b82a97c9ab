"""The last step of several contexts as one product: hidden states to whatever is made of logits.

As with blocks, batches gather by themselves: all who wait when the lane becomes free are the next
one. Answers for several contexts come one by one over a wire, so after a batch of several the next
one waits a moment for as many. Knows the head and its rows; not what logits are for.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from gptnode.model.shard import Head
from gptnode.node.compute import ComputeLane

__all__ = ["HeadBatcher"]

T = TypeVar("T")

MOMENT_S = 0.003
"""What several answers of one peer may need to come in, one after another."""


@dataclass(slots=True, eq=False)
class _Row(Generic[T]):
    """A context's last hidden state, (1, 1, D), and what is to become of its logits (V)."""

    last: Tensor
    use: Callable[[Tensor], T]
    logits: Tensor | None = None
    batch_s: float = 0.0


class HeadBatcher:
    """The queue in front of a head, in a lane that it shares with others."""

    def __init__(self, lane: ComputeLane, head: Head) -> None:
        """Nobody waits."""
        self._lane = lane
        self._head = head
        self._waiting: queue.SimpleQueue[_Row[Any]] = queue.SimpleQueue()
        self._sizes = (1, 1)  # of the last two batches

    async def run(self, last: Tensor, use: Callable[[Tensor], T]) -> tuple[T, float]:
        """What ``use`` makes, in the lane, of the logits (V) after ``last`` (1, 1, D), and seconds.

        The seconds are those of the whole batch and of ``use``, all waiting left out. Each row is
        as if it were alone, to the bit.
        """
        row = _Row(last, use)
        self._waiting.put(row)

        def work() -> tuple[T, float]:
            if row.logits is None:
                self._compute()
            if row.logits is None:
                raise RuntimeError("the batch that this row was in failed")
            began = time.perf_counter()
            return use(row.logits), row.batch_s + time.perf_counter() - began

        return (await self._lane.run(work)).value

    def _compute(self) -> None:
        """In the lane: logits for all who wait, as far as there is room."""
        rows: list[_Row[Any]] = []
        until = time.perf_counter() + (MOMENT_S if max(self._sizes) > 1 else 0.0)
        while len(rows) < self._head.joint_rows:
            left_s = until - time.perf_counter() if len(rows) < max(self._sizes) else 0.0
            try:
                rows.append(self._waiting.get(timeout=max(0.0, left_s)))
            except queue.Empty:
                break
        self._sizes = (self._sizes[1], len(rows))
        began = time.perf_counter()
        with torch.inference_mode():
            logits = self._head(torch.cat([row.last for row in rows]))
        self._lane.wait_for_device()
        batch_s = time.perf_counter() - began
        for row, found in zip(rows, logits, strict=True):
            row.logits, row.batch_s = found, batch_s
