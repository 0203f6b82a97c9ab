"""A peer's stage that is watched: what it is given is kept, and some of its steps are compared.

Knows what a step under comparison is; who compares it, and with whom, is the Verifier's business.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import trio
from torch import Tensor

from gptnode.errors import GptNodeError
from gptnode.node.config import PREFILL_CHUNK_TOKENS
from gptnode.node.journal import Journal
from gptnode.node.remote_stage import RemoteStage
from gptnode.node.stages import Stage
from gptnode.node.timing import HopTiming
from gptnode.routing.entries import NO_ENDS
from gptnode.wire.messages import Draw

__all__ = ["Check", "Shadow", "WatchedStage"]

PATIENCE_S = 5.0
PATIENCE_FACTOR = 4.0


class Shadow:
    """A second session, that is given what a hop was given.

    ``length``: how many tokens it holds. Behind the hop's by those that nobody compared yet.
    """

    def __init__(self, peer_id: str, stage: Stage) -> None:
        """``stage`` is one of ``peer_id``, for the same blocks, and empty."""
        self.peer_id = peer_id
        self.stage = stage
        self.length = 0

    def cut(self, length: int) -> None:
        """What it was given from position ``length`` on isn't what the hop has there now."""
        self.length = min(self.length, length)

    async def answer(self, journal: Journal, start: int, stop: int) -> Tensor:
        """What it answers for the rows ``start`` to ``stop`` of ``journal``: (1, T, D).

        It is given the rows before that it lacks, many at once. Cancelled, it keeps what it has.

        Raises:
            GptNodeError: the session failed.
        """
        at = min(self.length, start)
        answers: list[Tensor] = []
        while at < stop:
            end = min(at + PREFILL_CHUNK_TOKENS, stop)
            hidden = await self.stage.forward(journal.rows(at, end), at)
            self.length = end
            if end > start:
                answers.append(hidden[:, max(0, start - at) :])
            at = end
        return torch.cat(answers, dim=1)


class Check:
    """A step of a watched hop that is to be compared, from before it is answered.

    ``scope`` is what the second opinion is waited for in. It has no deadline until the hop itself
    has answered, and ends if the hop never does.
    """

    def __init__(self, hop: WatchedStage, position: int, n_rows: int) -> None:
        """A step of ``n_rows`` tokens at ``position`` is about to be sent."""
        self.hop = hop
        self.start = position
        self.stop = position + n_rows
        self.scope = trio.CancelScope()
        self.dropped = False
        self.begun = False
        self.asked: str | None = None  # the peer for the second opinion
        self.answered = trio.Event()
        self.rows: Tensor | None = None

    def begin(self) -> None:
        """The second opinion is asked for from now on."""
        self.begun = True
        self._hurry()

    def answer(self, hidden: Tensor) -> None:
        """The hop has answered ``hidden``."""
        self.rows = hidden.detach().to("cpu", copy=True)
        self.answered.set()
        self._hurry()

    def drop(self) -> None:
        """The hop won't answer."""
        self.dropped = True
        self.scope.cancel()

    def _hurry(self) -> None:
        if self.begun and self.answered.is_set():
            # The hop's slowest step is that of a chunk, and so is most that a shadow has to do.
            patience_s = PATIENCE_S + PATIENCE_FACTOR * self.hop.slowest_s
            self.scope.deadline = trio.current_time() + patience_s


class WatchedStage:
    """A peer's session with a journal of what it was given, and perhaps a shadow.

    Not a ``RemoteStage``, so it is no part of a ring: what each hop answers has to come here. It
    is given activations and gives activations: ends of the model can't be watched.

    Resource handling: ``aclose`` ends the shadow's session too.
    """

    ends = NO_ENDS

    def __init__(
        self,
        stage: RemoteStage,
        begin: Callable[[WatchedStage, int, int], Check | None],
        tokens: Callable[[], int],
    ) -> None:
        """Watch ``stage``, which is empty.

        Args:
            stage: A session with a peer.
            begin: Called with this, position and number of rows before each step; what it returns
                is told how the step ends.
            tokens: How many tokens were made so far.
        """
        self.peer_id = stage.peer_id
        self.span = stage.span
        self.max_tokens = stage.max_tokens
        self.journal = Journal()
        self.shadow: Shadow | None = None
        self.comparing = trio.Lock()
        self.slowest_s = 0.0
        self.spent_s = 0.0
        self.closed = False
        self._stage = stage
        self._begin = begin
        self._tokens = tokens
        self._doubtful_since: int | None = None

    @property
    def lost(self) -> GptNodeError | None:
        """Why the hop's session is gone, if it is."""
        return self._stage.lost

    @property
    def timing(self) -> HopTiming:
        """See ``Stage``; without what comparing costs."""
        return self._stage.timing

    @property
    def round_trip_s(self) -> float | None:
        """The last heartbeat's round trip."""
        return self._stage.round_trip_s

    @property
    def doubtful(self) -> bool:
        """Whether tokens were made since the last of its steps that was found to be right."""
        return self._doubtful_since is not None and self._tokens() > self._doubtful_since

    def found_right(self, step: Check) -> None:
        """``step`` was compared, and agrees."""
        newer = step.stop < len(self.journal)
        self._doubtful_since = self._tokens() if newer else None

    async def forward(self, hidden: Tensor, position: int, draw: Draw | None = None) -> Tensor:
        """See ``Stage``."""
        hidden = self._stage.as_sent(hidden)
        self.journal.record(position, hidden)
        if self.shadow is not None:
            self.shadow.cut(position)
        if self._doubtful_since is None:
            self._doubtful_since = self._tokens()
        check = self._begin(self, position, hidden.shape[1])
        began_s = trio.current_time()
        try:
            answer = await self._stage.forward(hidden, position)
        except BaseException:
            if check is not None:
                check.drop()
            raise
        took_s = trio.current_time() - began_s
        self.slowest_s = max(self.slowest_s, took_s)
        self.spent_s += took_s
        if check is not None:
            check.answer(answer)
        return answer

    async def truncate(self, length: int) -> None:
        """See ``Stage``."""
        self.journal.cut(length)
        if self.shadow is not None:
            self.shadow.cut(length)
        await self._stage.truncate(length)

    async def aclose(self) -> None:
        """See ``Stage``."""
        self.closed = True
        shadow, self.shadow = self.shadow, None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._stage.aclose)
            if shadow is not None:
                nursery.start_soon(shadow.stage.aclose)
