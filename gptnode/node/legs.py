"""How a step gets through the stages: leg by leg, each of them one stage, or a ring of several.

Neighbouring stages of peers are joined to rings where they let themselves be joined; a ring that
breaks is left for a while, and each of its stages answers this node. Every leg is judged by its own
pace. Knows steps and stages; what the stages hold is the pipeline's business.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby

import trio
from torch import Tensor

from gptnode.errors import GptNodeError, PeerTimeoutError
from gptnode.node.flow import Worker
from gptnode.node.pace import Pace
from gptnode.node.remote_stage import RemoteStage
from gptnode.node.ring import Ring, RingFailure, Round
from gptnode.node.stages import HopFailure, Stage
from gptnode.node.timing import HopTiming
from gptnode.wire.messages import Draw

__all__ = ["Legs", "PipelineStep", "failures_of"]

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


class Legs:
    """The legs of one pipeline, and the pace of each."""

    def __init__(
        self,
        *,
        rings: bool,
        replaceable: Callable[[Stage], bool],
        report: Callable[[str], None],
    ) -> None:
        """No stages yet; the arguments are those of ``Pipeline``."""
        self._rings = rings
        self._replaceable = replaceable
        self._report = report
        self._stages: tuple[Stage, ...] = ()
        self._legs: tuple[Stage | Ring, ...] = ()
        self._paces: dict[Stage | Ring, Pace] = {}
        self._joined = True
        self._star_until_s = -math.inf
        self._star_because: str | None = None

    def use(self, stages: tuple[Stage, ...]) -> None:
        """Go through ``stages``, one by one until they are joined; known ones keep their pace."""
        self._stages = self._legs = stages
        self._paces = {stage: self._paces.get(stage, Pace()) for stage in stages}
        self._joined = not self._rings
        self._star_until_s, self._star_because = -math.inf, None

    async def forward(self, step: PipelineStep) -> None:
        """Take ``step`` through all legs.

        Raises:
            HopFailure: a peer's stage failed, or is too slow and could be replaced.
            GptNodeError: a stage of this node failed.
        """
        for leg in self._legs:
            await (self._round(leg, step) if isinstance(leg, Ring) else self._step(leg, step))

    def workers(self) -> list[Worker[PipelineStep]]:
        """The legs as workers, for several steps at once; they fail as ``forward``, and with
        RingFailure."""
        workers: list[Worker[PipelineStep]] = []
        for leg in self._legs:
            if isinstance(leg, Ring):
                workers += _workers_of(leg)
            else:
                workers.append(Worker(partial(self._step, leg)))
        return workers

    async def join(self) -> None:
        """Join neighbouring stages of peers to rings, if they may be and aren't.

        Raises:
            HopFailure: a peer failed meanwhile.
        """
        if self._joined or trio.current_time() < self._star_until_s:
            return
        legs: list[Stage | Ring] = []
        for remote, run in groupby(self._stages, lambda stage: isinstance(stage, RemoteStage)):
            stages = list(run)
            if remote and len(stages) > 1:
                ring = Ring([stage for stage in stages if isinstance(stage, RemoteStage)])
                try:
                    await ring.link()
                except RingFailure as failure:
                    self.leave_rings(str(failure))
                    return
                legs.append(ring)
                self._paces[ring] = Pace()
            else:
                legs += stages
        self._legs = tuple(legs)
        self._joined = True

    def leave_rings(self, reason: str) -> None:
        """Each stage answers this node, for a while."""
        self._legs = self._stages
        self._joined = False
        self._star_until_s = trio.current_time() + STAR_S
        self._star_because = reason

    def tell(self) -> None:
        """Say why rings were left, if it wasn't said yet."""
        if self._star_because is not None:
            self._report(
                f"peers can't hand on to each other, so through this node: {self._star_because}"
            )
            self._star_because = None

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
        self.leave_rings(reason)
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
        with failures_of(stage), trio.move_on_after(patience_s):
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
def failures_of(stage: Stage) -> Iterator[None]:
    """Turn an error of a peer's stage into a HopFailure that names the peer."""
    try:
        yield
    except GptNodeError as error:
        if stage.peer_id is None:
            raise
        raise HopFailure(stage, error) from error
