"""A pipeline: stages in the order of their blocks, that hold one context between them.

It remembers the steps that it took. Stages may be exchanged at any time; those that are new are
filled with the same steps, and the others stay as they are. Several steps, such as the chunks of a
prompt, are under way at once: each stage works on another one. Neighbouring stages of peers are
joined to rings where they let themselves be joined; else each of them answers this node.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby

import trio
from torch import Tensor

from gptnode.errors import GptNodeError, PeerTimeoutError
from gptnode.node.flow import Worker, flow
from gptnode.node.pace import Pace
from gptnode.node.remote_stage import RemoteStage
from gptnode.node.replay import ReplayLog
from gptnode.node.ring import Ring, RingFailure, Round
from gptnode.node.stages import HopFailure, Stage
from gptnode.node.timing import HopTiming
from gptnode.routing.entries import NO_ENDS, PlacedEnds
from gptnode.wire.messages import Draw

__all__ = ["HopFailure", "Pipeline", "PipelineStep"]

STAR_S = 30.0  # after a ring broke
JUDGED_TOKENS = 16
"""Steps of so few take about as long as those of one: a token and what is guessed after it."""


@dataclass(slots=True)
class PipelineStep:
    """Tokens on their way through the stages.

    ``hidden``: what the next stage is given, (1, T, D) or ids; what the last one gave in the end.
    ``draw``: what is asked of the last one, if it has the head.
    ``inputs``: what each peer's stage was given, by its first block.
    ``timings``: where the time went, stage by stage.
    """

    ids: tuple[int, ...]
    position: int
    hidden: Tensor
    draw: Draw | None = None
    inputs: dict[int, Tensor] = field(default_factory=dict)
    timings: list[HopTiming] = field(default_factory=list)


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
        self._replaceable = replaceable
        self._replay_rows = replay_rows
        self._filled: set[Stage] = set()
        self._paces: dict[Stage | Ring, Pace] = {}
        self._legs: tuple[Stage | Ring, ...] = ()
        self._joined = True
        self._rings = rings
        self._star_until_s = -math.inf
        self._star_because: str | None = None
        self._report = report

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
        self._paces = {stage: self._paces.get(stage, Pace()) for stage in stages}
        self._legs = self.stages
        self._joined = not self._rings
        self._star_until_s, self._star_because = -math.inf, None
        self.log.keep({stage.span.start for stage in stages if stage.peer_id is not None})

    async def forward(self, step: PipelineStep) -> None:
        """Run ``step`` through all stages.

        Raises:
            HopFailure: a peer's stage failed, or is too slow and could be replaced.
            GptNodeError: a stage of this node failed.
        """
        for leg in self._legs:
            await (self._round(leg, step) if isinstance(leg, Ring) else self._step(leg, step))
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

        workers: list[Worker[PipelineStep]] = []
        for leg in self._legs:
            if isinstance(leg, Ring):
                workers += _workers_of(leg)
            else:
                workers.append(Worker(partial(self._step, leg)))
        try:
            await flow(steps, workers, count)
        except RingFailure as failure:  # what was not done is the caller's to ask for again
            self._leave_rings(str(failure))

    async def join(self) -> None:
        """Join neighbouring stages of peers to rings, if they may be and aren't.

        Raises:
            HopFailure: a peer failed meanwhile.
        """
        if self._joined or trio.current_time() < self._star_until_s:
            return
        legs: list[Stage | Ring] = []
        for remote, run in groupby(self.stages, lambda stage: isinstance(stage, RemoteStage)):
            stages = list(run)
            if remote and len(stages) > 1:
                ring = Ring([stage for stage in stages if isinstance(stage, RemoteStage)])
                try:
                    await ring.link()
                except RingFailure as failure:
                    self._leave_rings(str(failure))
                    return
                legs.append(ring)
                self._paces[ring] = Pace()
            else:
                legs += stages
        self._legs = tuple(legs)
        self._joined = True

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

    def _record(self, step: PipelineStep) -> None:
        self.log.record(step.position, step.ids, step.inputs)
        if self._star_because is not None:  # and no hop has failed, which would tell more
            self._report(
                f"peers can't hand on to each other, so through this node: {self._star_because}"
            )
            self._star_because = None

    def _leave_rings(self, reason: str) -> None:
        """Each stage answers this node, for a while."""
        self._legs = self.stages
        self._joined = False
        self._star_until_s = trio.current_time() + STAR_S
        self._star_because = reason

    async def _round(self, ring: Ring, step: PipelineStep) -> None:
        """A ring's part of a step; one that fails is left, and its stages take the step."""
        pace = self._paces[ring]
        judged = len(step.ids) <= JUDGED_TOKENS
        hidden = step.hidden
        began_s = trio.current_time()
        try:
            with trio.move_on_after(pace.patience_s if judged else math.inf):
                step.hidden = await ring.receive(await _send(ring, step))
                step.inputs[ring.stages[0].span.start] = hidden
                step.timings += ring.timings
                if judged:
                    pace.note(trio.current_time() - began_s)
                    for stage, timing in zip(ring.stages, ring.timings, strict=True):
                        self._paces[stage].note(timing.queue_s + timing.compute_s)
                return
            reason = f"slow: {trio.current_time() - began_s:.1f} s for a round"
        except RingFailure as failure:
            reason = str(failure)
        self._leave_rings(reason)
        for stage in ring.stages:  # one that is too slow shows itself here
            await self._step(stage, step)

    async def _step(self, stage: Stage, step: PipelineStep) -> None:
        """One stage's part of a step, within the patience that its pace deserves."""
        if stage.peer_id is not None:
            step.inputs[stage.span.start] = step.hidden
        pace = self._paces[stage]
        judged = stage.peer_id is not None and len(step.ids) <= JUDGED_TOKENS
        patience_s = pace.patience_s if judged else math.inf
        if patience_s < math.inf and not self._replaceable(stage):
            patience_s = math.inf
        began_s = trio.current_time()
        with _failures_of(stage), trio.move_on_after(patience_s):
            step.hidden = await _forward(stage, step)
            step.timings.append(stage.timing)
            if judged:
                pace.note(trio.current_time() - began_s)
            return
        took_s = trio.current_time() - began_s
        cause = PeerTimeoutError(
            f"slow: {took_s:.1f} s for a token, usually {1000 * pace.median_s:.0f} ms"
        )
        raise HopFailure(stage, cause, slow=True)


def _forward(stage: Stage, step: PipelineStep) -> Awaitable[Tensor]:
    if stage.ends.head and step.draw is not None:
        return stage.forward(step.hidden, step.position, step.draw)
    return stage.forward(step.hidden, step.position)


def _send(ring: Ring, step: PipelineStep) -> Awaitable[Round]:
    if ring.stages[-1].ends.head and step.draw is not None:
        return ring.send(step.hidden, step.position, step.draw)
    return ring.send(step.hidden, step.position)


def _workers_of(ring: Ring) -> list[Worker[PipelineStep]]:
    """Two workers: steps are sent while others are on their way round, one for each hop."""
    rounds: deque[Round] = deque()

    async def send(step: PipelineStep) -> None:
        step.inputs[ring.stages[0].span.start] = step.hidden
        rounds.append(await _send(ring, step))

    async def receive(step: PipelineStep) -> None:
        step.hidden = await ring.receive(rounds.popleft())
        step.timings += ring.timings

    return [Worker(send), Worker(receive, room=len(ring.stages) - 1)]


@contextmanager
def _failures_of(stage: Stage) -> Iterator[None]:
    """Turn an error of a peer's stage into a HopFailure that names the peer."""
    try:
        yield
    except GptNodeError as error:
        if stage.peer_id is None:
            raise
        raise HopFailure(stage, error) from error
