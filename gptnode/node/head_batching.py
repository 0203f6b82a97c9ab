"""The last step of several contexts as one product: hidden states to whatever is made of logits.

As with blocks, batches gather by themselves: all who wait when the lane becomes free are the next
one. Answers for several contexts come one by one over a wire, so after a batch of several the next
one waits for as many while they keep coming, at most as long as a batch of their own would take.
Knows the head and its rows; not what logits are for.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
import trio
from torch import Tensor

from gptnode.model.shard import Head
from gptnode.node.compute import ComputeLane

__all__ = ["HeadBatcher"]

T = TypeVar("T")

MOMENT_S = 0.003
"""What may lie between two answers of one peer that come in one after another."""


@dataclass(slots=True, eq=False)
class _Asked(Generic[T]):
    """A context's last hidden states, (R, 1, D), and what is to become of its logits (R, V)."""

    rows: Tensor
    use: Callable[[Tensor], T]
    logits: Tensor | None = None
    error: BaseException | None = None
    batch_s: float = 0.0
    abandoned: bool = False


class HeadBatcher:
    """The queue in front of a head, in a lane that it shares with others."""

    def __init__(self, lane: ComputeLane, head: Head) -> None:
        """Nobody waits."""
        self.head = head
        self._lane = lane
        self._waiting: queue.SimpleQueue[_Asked[Any]] = queue.SimpleQueue()
        self._next: _Asked[Any] | None = None  # it didn't fit into the last batch
        self._sizes = (1, 1)  # of the last two batches, in contexts
        self._batch_s = 0.0  # how long the last one took

    async def run(self, rows: Tensor, use: Callable[[Tensor], T]) -> tuple[T, float]:
        """What ``use`` makes, in the lane, of the logits (R, V) of ``rows`` (R, 1, D), and seconds.

        The seconds are those of the whole batch and of ``use``, all waiting left out. Each row is
        as if it were alone, to the bit. A cancelled caller leaves at once, and takes no room in a
        batch that hasn't begun.

        Raises:
            BaseException: whatever ``use`` or the product itself raised.
        """
        asked = _Asked(rows, use)
        self._waiting.put(asked)

        def work() -> tuple[T, float]:
            # Others who leave at this moment may still take the room of one batch.
            while asked.logits is None and asked.error is None and not asked.abandoned:
                self._compute()
            if asked.logits is None:
                raise asked.error or RuntimeError("nobody waits for this row any more")
            began = time.perf_counter()
            return use(asked.logits), asked.batch_s + time.perf_counter() - began

        try:
            return (await self._lane.run(work)).value
        except trio.Cancelled:
            asked.abandoned = True
            raise

    def _compute(self) -> None:
        """In the lane: logits for all who wait and have room; what fails, fails for all of them."""
        batch = self._gathered()
        if not batch:
            return
        self._sizes = (self._sizes[1], len(batch))
        counts = [asked.rows.shape[0] for asked in batch]
        began = time.perf_counter()
        try:
            with torch.inference_mode():
                rows = torch.cat([asked.rows for asked in batch])
                parts = [self.head(part) for part in torch.split(rows, self.head.joint_rows)]
                logits = torch.cat(parts) if len(parts) > 1 else parts[0]
            self._lane.wait_for_device()
        except BaseException as error:  # of the device: it belongs to each of them
            for asked in batch:
                asked.error = error
            return
        batch_s = self._batch_s = time.perf_counter() - began
        for asked, found in zip(batch, torch.split(logits, counts), strict=True):
            asked.logits, asked.batch_s = found, batch_s

    def _gathered(self) -> list[_Asked[Any]]:
        """The next batch: more rows than the head joins only where one context asks for them."""
        first, self._next = self._next, None
        batch = [first] if first is not None and not first.abandoned else []
        room = self.head.joint_rows - sum(asked.rows.shape[0] for asked in batch)
        until = time.perf_counter() + max(MOMENT_S, self._batch_s)
        while room > 0:
            wait_s = 0.0
            if len(batch) < max(self._sizes):
                wait_s = min(MOMENT_S, max(0.0, until - time.perf_counter()))
            try:
                asked = self._waiting.get(timeout=wait_s)
            except queue.Empty:
                break
            if asked.abandoned:
                continue
            room -= asked.rows.shape[0]
            if room < 0 and batch:
                self._next = asked
                break
            batch.append(asked)
        return batch
