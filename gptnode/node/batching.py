"""Who computes next in a lane: steps of several contexts as one batch, and long ones in pieces.

Batches gather by themselves: when the lane becomes free, all short steps that wait for the same
blocks are the next batch. It waits for a moment only for contexts that are just about to be back,
so that those who could be one batch don't become two in turn for ever. A piece of a prompt is a
long step: it is computed bit by bit, and between the pieces the batches of those who decode go
ahead. Neither changes a number (`BlockStack.batch`, `BlockStack.in_pieces`). Knows contexts and
who owns them; nothing of streams and messages.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

import trio
from torch import Tensor

from gptnode.model.shard import BlockStack
from gptnode.node.batch_times import BatchTimes
from gptnode.node.compute import ComputeLane, Ran
from gptnode.node.expecting import Expected
from gptnode.node.fair_queue import FairQueue
from gptnode.node.meter import NO_METER, Meter
from gptnode.node.step_work import AnyAsked, Asked, Blame, LongStep, StepWork

__all__ = ["Batcher"]

T = TypeVar("T")

SHORT_TOKENS = 32
"""A step of more tokens is a piece of a prompt, and long."""

LONG_SHARE = 0.5
"""While both wait, long steps get so much time for each second of batches. One piece may be begun
beyond that, so those who decode wait for less than twice as long as without any prompt."""

LEAST_SAVED_S = 0.005
"""Where waiting can't save more than this, looking who comes costs the process as much."""

LOOK_EVERY_S = 0.002
"""How often the lane looks for other work while it waits for somebody."""


class Batcher:
    """The queue in front of a lane's thread, for steps.

    What waits is bounded by who may ask: each context has one step here at a time. The lane's other
    work has its turn between two batches or pieces.
    """

    def __init__(self, lane: ComputeLane, *, meter: Meter = NO_METER) -> None:
        """Nobody waits; ``meter`` hears of batches, in the lane's thread."""
        self._meter = meter
        self._lane = lane
        self._inbox: queue.SimpleQueue[AnyAsked] = queue.SimpleQueue()
        self._turn_due = False
        # From here on the lane's own.
        self._short: FairQueue[AnyAsked] = FairQueue()
        self._long: FairQueue[AnyAsked] = FairQueue()
        self._under_way: LongStep | None = None
        self._expected = Expected()
        self._times = BatchTimes()
        self._batch_s = 0.0  # how long the last batch took
        self._long_s = 0.0  # the time that long steps have had since

    async def run(self, work: StepWork[T]) -> Ran[T]:
        """Have ``work`` done, and return what its ``write`` made of it.

        ``compute_s`` is how long its batch took, or its pieces together; ``queue_s`` the rest. A
        cancelled caller leaves at once: its step is skipped if it hasn't begun, given up between
        two pieces, or goes on to its end; it has ended before the lane's next piece of work begins.

        Raises:
            MismatchError: there is a gap between the cache and the position.
            ContextError: the step ends past the cache's room.
            BaseException: whatever ``read``, ``write`` and the step itself raise.
        """
        asked = Asked(work)
        self._inbox.put(asked)
        self._ask_for_turn()
        try:
            await asked.finished.wait()
        except trio.Cancelled:
            asked.abandoned = True
            raise
        if asked.ran is None:
            raise asked.error or RuntimeError("a live step was skipped")
        return asked.ran

    def _ask_for_turn(self) -> None:
        # One is enough: a turn begins with a look at the inbox, after it has taken this back.
        if not self._turn_due:
            self._turn_due = True
            self._lane.run_soon(self._turn)

    # --- in the lane's thread ---------------------------------------------------------------------

    def _turn(self) -> None:
        """One batch, or pieces of one long step until others want the lane."""
        self._turn_due = False
        self._take_in()
        if self._short and not self._long_first:
            batch = self._next_batch()
            if not self._long and self._under_way is None:
                self._wait_for_more(batch)
            self._run_batch(batch)
        else:
            self._run_pieces()
        if self._short or self._long or self._under_way is not None:
            self._ask_for_turn()

    def _take_in(self) -> None:
        while True:
            try:
                asked = self._inbox.get_nowait()
            except queue.Empty:
                return
            self._sort_in(asked)

    def _sort_in(self, asked: AnyAsked) -> None:
        line = self._short if asked.work.tokens <= SHORT_TOKENS else self._long
        line.put(asked.work.owner, asked)
        self._expected.asked(asked.work.cache, asked.asked_at)

    @property
    def _long_first(self) -> bool:
        """Whether long steps wait and haven't had their share since the last batch."""
        waiting = self._under_way is not None or len(self._long) > 0
        return waiting and self._long_s < LONG_SHARE * self._batch_s

    def _next_batch(self) -> list[AnyAsked]:
        """Who has waited longest, and all that fits beside; the owners in turn."""
        first = _next_live(self._short)
        if first is None:
            return []
        batch = [first]
        self._fill_up(batch)
        return batch

    def _fill_up(self, batch: list[AnyAsked]) -> None:
        """Take what waits and fits into ``batch``, which isn't empty."""
        stack = batch[0].work.stack
        room = _room(batch)

        def fits(asked: AnyAsked) -> bool:
            return asked.work.stack is stack and asked.work.tokens <= room

        while room > 0 and (more := _next_live(self._short, fits)) is not None:
            batch.append(more)
            room -= more.work.tokens

    def _wait_for_more(self, batch: list[AnyAsked]) -> None:
        """Wait for those who could be in ``batch`` and are about to be back, where that saves time.

        Two groups that alternate would need two batches where one would do. A context that is alone
        never waits.
        """
        self._turn_due = True  # this is the turn that whoever comes would ask for
        while batch and (room := _room(batch)) > 0 and not self._lane.wanted:
            now = time.perf_counter()
            stack, rows = batch[0].work.stack, sum(asked.work.tokens for asked in batch)
            most_s = self._times.usual_s(stack, rows)
            saved_s = partial(self._saved_s, stack, rows, room)
            if most_s < LEAST_SAVED_S:
                break
            end = self._expected.worth_waiting(stack, now, most_s, saved_s)
            if end is None:
                break
            try:
                self._sort_in(self._inbox.get(timeout=min(end - now, LOOK_EVERY_S)))
            except queue.Empty:
                continue
            self._take_in()
            self._fill_up(batch)
        self._turn_due = False
        self._take_in()

    def _saved_s(self, stack: BlockStack, rows: int, room: int, contexts: int) -> float:
        """What it saves if so many contexts more are in a batch; each as if with one row."""
        return self._times.saved_s(stack, rows, min(contexts, room))

    def _run_batch(self, batch: Sequence[AnyAsked]) -> None:
        batch = [asked for asked in batch if not asked.abandoned]  # who left during the wait
        began = time.perf_counter()
        answers: list[tuple[AnyAsked, object]] = []
        try:
            for asked, result in _computed(_prepared(batch)):
                with Blame(asked):
                    answers.append((asked, asked.work.write(result)))
            self._lane.wait_for_device()
            compute_s = time.perf_counter() - began
            for asked, answer in answers:
                asked.done(answer, compute_s)
        except BaseException as error:  # of the device; it belongs to all
            for asked in batch:
                asked.error = asked.error or error
        if batch:
            ended = time.perf_counter()
            self._batch_s, self._long_s = ended - began, 0.0
            rows = sum(asked.work.tokens for asked in batch)
            self._times.took(batch[0].work.stack, rows, self._batch_s)
            self._meter.batch(len(batch), rows)
            for asked in batch:
                self._expected.answered(asked.work.cache, asked.work.stack, ended)
        for asked in batch:
            asked.wake()

    def _run_pieces(self) -> None:
        long = self._under_way
        if long is None:
            asked = _next_live(self._long)
            if asked is None:
                return
            long = self._under_way = LongStep(asked)
        while not self._piece(long):
            self._take_in()
            if self._lane.wanted or (self._short and not self._long_first):
                return
        self._under_way = None
        long.asked.wake()

    def _piece(self, long: LongStep) -> bool:
        """Compute a piece of ``long``; whether that was the last one, or nobody wants it."""
        asked = long.asked
        if asked.abandoned:
            long.give_up()
            return True
        began = time.perf_counter()
        ended = False
        with Blame(asked) as blame:
            result = long.advance()
            if result is not None:
                answer = asked.work.write(result)
                self._lane.wait_for_device()
                asked.done(answer, long.compute_s + time.perf_counter() - began)
                ended = True
        piece_s = time.perf_counter() - began
        long.compute_s += piece_s
        self._long_s += piece_s
        return ended or blame.failed


def _room(batch: Sequence[AnyAsked]) -> int:
    """How many rows more ``batch``, which isn't empty, may have."""
    return batch[0].work.stack.joint_rows - sum(asked.work.tokens for asked in batch)


def _next_live(
    line: FairQueue[AnyAsked], fits: Callable[[AnyAsked], bool] = lambda asked: True
) -> AnyAsked | None:
    """The next whose caller is still there."""
    while (asked := line.take(fits)) is not None:
        if not asked.abandoned:
            return asked
    return None


def _prepared(batch: Sequence[AnyAsked]) -> list[tuple[AnyAsked, Tensor]]:
    """Those whose step can be computed, with their hidden states."""
    ready: list[tuple[AnyAsked, Tensor]] = []
    for asked in batch:
        with Blame(asked):
            ready.append((asked, asked.prepared()))
    return ready


def _computed(ready: Sequence[tuple[AnyAsked, Tensor]]) -> list[tuple[AnyAsked, Tensor]]:
    """Results of all as one batch; of each alone if that fails, so that only the culprit fails."""
    if not ready:
        return []
    if len(ready) > 1:
        try:
            steps = [(hidden, asked.work.cache) for asked, hidden in ready]
            results = ready[0][0].work.stack.batch(steps)
            return [(asked, result) for (asked, _), result in zip(ready, results, strict=True)]
        except Exception:
            pass  # said by the step that it comes from, below
    alone: list[tuple[AnyAsked, Tensor]] = []
    for asked, hidden in ready:
        with Blame(asked):
            alone.append((asked, asked.work.stack(hidden, asked.work.cache)))
    return alone
