"""A pipeline: stages in the order of their blocks, that hold one context between them.

It remembers the steps that it took. Stages may be exchanged at any time; those that are new are
filled with the same steps, and the others stay as they are.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager

import trio
from torch import Tensor

from gptnode.errors import GptNodeError, PeerTimeoutError
from gptnode.node.pace import Pace
from gptnode.node.replay import ReplayLog
from gptnode.node.stages import Stage
from gptnode.node.timing import HopTiming

__all__ = ["HopFailure", "Pipeline"]


class HopFailure(Exception):
    """The hop of a peer failed with ``cause``: the route has to be made again without it."""

    def __init__(self, stage: Stage, cause: GptNodeError, *, slow: bool = False) -> None:
        """``slow``: it works, but a replica will do better."""
        super().__init__(f"blocks {stage.span} at {stage.peer_id}: {cause}")
        self.stage = stage
        self.cause = cause
        self.slow = slow


class Pipeline:
    """A fold over stages.

    Every ``forward`` is followed by ``commit``, in one go; a step that was cancelled between the
    two never happened, whatever it left in a cache behind the position of the next one.
    """

    def __init__(
        self,
        *,
        replaceable: Callable[[Stage], bool] = lambda stage: False,
        replay_rows: int = 1,
        log: ReplayLog | None = None,
    ) -> None:
        """No stages yet.

        Args:
            replaceable: Whether some other peer could take over from a stage.
            replay_rows: How many steps of one token may be given again as one.
            log: The steps; by default with room for 256 MiB of activations.
        """
        self.stages: tuple[Stage, ...] = ()
        self.log = log if log is not None else ReplayLog()
        self._replaceable = replaceable
        self._replay_rows = replay_rows
        self._filled: set[Stage] = set()
        self._paces: dict[Stage, Pace] = {}
        self._inputs: dict[int, Tensor] = {}
        self._position = 0

    @property
    def timings(self) -> tuple[HopTiming, ...]:
        """Where the time of the last ``forward`` went, stage by stage."""
        return tuple(stage.timing for stage in self.stages)

    @property
    def behind(self) -> bool:
        """Whether some stages don't hold the steps so far."""
        return len(self.log) > 0 and not self._filled.issuperset(self.stages)

    def use(self, stages: Sequence[Stage]) -> None:
        """Go on with ``stages``, which cover all blocks of the model, in order, without a gap.

        Those that were there before keep what they hold.
        """
        self.stages = tuple(stages)
        self._filled = set(stages) if not self.log else self._filled.intersection(stages)
        self._paces = {stage: self._paces.get(stage, Pace()) for stage in stages}
        self.log.keep({stage.span.start for stage in stages if stage.peer_id is not None})

    async def forward(self, hidden: Tensor, position: int) -> Tensor:
        """Run ``hidden`` (B, T, D), whose first token is at ``position``, through all stages.

        Raises:
            HopFailure: a peer's stage failed, or is too slow and could be replaced.
            GptNodeError: a stage of this node failed.
        """
        inputs: dict[int, Tensor] = {}
        for stage in self.stages:
            if stage.peer_id is not None:
                inputs[stage.span.start] = hidden
            hidden = await self._step(stage, hidden, position)
        self._inputs, self._position = inputs, position
        return hidden

    def commit(self, ids: Sequence[int]) -> None:
        """The last ``forward`` was for ``ids``; all caches hold it now."""
        self.log.record(self._position, tuple(ids), self._inputs)
        self._inputs = {}

    async def catch_up(self, embed: Callable[[list[int]], Awaitable[Tensor]]) -> int:
        """Fill the stages that are new with the steps so far; how many tokens were given again.

        Args:
            embed: From ids to what the first block is given.

        Raises:
            HopFailure, GptNodeError: as ``forward``; another call begins where it is needed.
        """
        tokens = 0
        while behind := [i for i, stage in enumerate(self.stages) if stage not in self._filled]:
            end = behind[0] + 1
            while end in behind:
                end += 1
            source = self.log.source(self.stages[behind[0]].span.start)
            group = [stage for stage in self.stages[:end] if stage.span.start >= source]
            self._filled.difference_update(group)
            for replay in self.log.replays(source, max_rows=self._replay_rows):
                hidden = replay.hidden if replay.hidden is not None else await embed(replay.ids)
                for stage in group:
                    if stage.peer_id is not None and stage.span.start > source:
                        self.log.fill(replay, stage.span.start, hidden)
                    with _failures_of(stage):
                        hidden = await stage.forward(hidden, replay.position)
                tokens += len(replay.ids)
            self._filled.update(group)
        return tokens

    async def truncate(self, length: int) -> None:
        """Forget all tokens from position ``length`` on, in all stages at once."""
        self.log.cut(length)
        failures: list[HopFailure] = []

        async def truncate_one(stage: Stage) -> None:
            try:
                with _failures_of(stage):
                    await stage.truncate(length)
            except HopFailure as failure:
                failures.append(failure)

        async with trio.open_nursery() as nursery:
            for stage in self.stages:
                nursery.start_soon(truncate_one, stage)
        if not self.log:
            self._filled.update(self.stages)
        if failures:
            raise failures[0]

    async def _step(self, stage: Stage, hidden: Tensor, position: int) -> Tensor:
        """One stage's part of a step, within the patience that its pace deserves."""
        pace = self._paces[stage]
        judged = stage.peer_id is not None and hidden.shape[1] == 1
        patience_s = pace.patience_s if judged else math.inf
        if patience_s < math.inf and not self._replaceable(stage):
            patience_s = math.inf
        began_s = trio.current_time()
        with _failures_of(stage), trio.move_on_after(patience_s):
            hidden = await stage.forward(hidden, position)
            if judged:
                pace.note(trio.current_time() - began_s)
            return hidden
        took_s = trio.current_time() - began_s
        cause = PeerTimeoutError(
            f"slow: {took_s:.1f} s for a token, usually {1000 * pace.median_s:.0f} ms"
        )
        raise HopFailure(stage, cause, slow=True)


@contextmanager
def _failures_of(stage: Stage) -> Iterator[None]:
    """Turn an error of a peer's stage into a HopFailure that names the peer."""
    try:
        yield
    except GptNodeError as error:
        if stage.peer_id is None:
            raise
        raise HopFailure(stage, error) from error
