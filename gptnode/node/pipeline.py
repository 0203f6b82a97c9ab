"""A pipeline: stages in the order of their blocks, that hold one context between them.

It remembers the steps that it took. Stages may be exchanged at any time; those that are new are
filled with the same steps, and the others stay as they are. Several steps, such as the chunks of a
prompt, are under way at once: each stage works on another one. How they get through the stages is
the business of `legs`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

import trio
from torch import Tensor

from gptnode.node.flow import flow
from gptnode.node.legs import Legs, PipelineStep, failures_of
from gptnode.node.replay import ReplayLog
from gptnode.node.ring import RingFailure
from gptnode.node.stages import HopFailure, Stage
from gptnode.routing.entries import NO_ENDS, PlacedEnds

__all__ = ["Pipeline"]


class Pipeline:
    """A fold over stages.

    A step counts when it went through all of them: it is then in the log and in all caches. One
    that failed or was cancelled on its way never happened, whatever it left in a cache behind the
    position of the next one.
    """

    def __init__(
        self,
        *,
        replaceable: Callable[[Stage], bool] = lambda stage: False,
        replay_rows: int = 1,
        log: ReplayLog | None = None,
        rings: bool = False,
        report: Callable[[str], None] = lambda line: None,
    ) -> None:
        """No stages yet.

        Args:
            replaceable: Whether some other peer could take over from a stage.
            replay_rows: How many steps of one token may be given again as one.
            log: The steps; by default with room for 256 MiB of activations.
            rings: Whether stages of peers may hand on to each other.
            report: Shows a line of trouble.
        """
        self.stages: tuple[Stage, ...] = ()
        self.log = log if log is not None else ReplayLog()
        self._replay_rows = replay_rows
        self._filled: set[Stage] = set()
        self._legs = Legs(rings=rings, replaceable=replaceable, report=report)

    @property
    def behind(self) -> bool:
        """Whether some stages don't hold the steps so far."""
        return len(self.log) > 0 and not self._filled.issuperset(self.stages)

    @property
    def waits(self) -> bool:
        """Whether a step waits for peers, while this node has nothing to do."""
        return any(stage.peer_id is not None for stage in self.stages)

    @property
    def ends(self) -> PlacedEnds:
        """The ends of the model that the stages have: ids go in, or come out."""
        if not self.stages:
            return NO_ENDS
        return PlacedEnds(self.stages[0].ends.embed, self.stages[-1].ends.head)

    def use(self, stages: Sequence[Stage]) -> None:
        """Go on with ``stages``, which cover all blocks of the model, in order, without a gap.

        Those that were there before keep what they hold.
        """
        self.stages = tuple(stages)
        self._filled = set(stages) if not self.log else self._filled.intersection(stages)
        self._legs.use(self.stages)
        self.log.keep({stage.span.start for stage in stages if stage.peer_id is not None})

    async def forward(self, step: PipelineStep) -> None:
        """Run ``step`` through all stages.

        Raises:
            HopFailure: a peer's stage failed, or is too slow and could be replaced.
            GptNodeError: a stage of this node failed.
        """
        await self._legs.forward(step)
        self._record(step)

    async def prefill(
        self, steps: AsyncGenerator[PipelineStep], done: Callable[[PipelineStep], None]
    ) -> None:
        """Run ``steps`` through all stages, each stage at another one; ``done`` in their order.

        Each step that was done counts, also when a later one fails.

        Raises:
            HopFailure, GptNodeError: as ``forward``, or whatever ``steps`` raises.
        """

        def count(step: PipelineStep) -> None:
            self._record(step)
            done(step)

        try:
            await flow(steps, self._legs.workers(), count)
        except RingFailure as failure:  # what was not done is the caller's to ask for again
            self._legs.leave_rings(str(failure))

    async def join(self) -> None:
        """Join neighbouring stages of peers to rings, if they may be and aren't.

        Raises:
            HopFailure: a peer failed meanwhile.
        """
        await self._legs.join()

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
                    with failures_of(stage):
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
                with failures_of(stage):
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

    def _record(self, step: PipelineStep) -> None:
        self.log.record(step.position, step.ids, step.inputs)
        self._legs.tell()  # no hop has failed, which would tell more
