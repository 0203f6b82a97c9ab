"""Verifying: some of a hop's steps are computed by a second peer too, and the answers compared.

It decides which steps, and by whom. The hops' own work isn't held up: comparisons are waited for
when a token is to be made of them, see ``settle``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from random import Random

import trio
from torch import Tensor

from gptnode.errors import GptNodeError, PeerBusyError, PeerTimeoutError, UsageError
from gptnode.node.judging import Judge, Verdict
from gptnode.node.loading import ModelKey
from gptnode.node.nursery import background_nursery
from gptnode.node.opinions import Opinions
from gptnode.node.remote_stage import RemoteStage
from gptnode.node.watching import Check, Shadow, WatchedStage
from gptnode.span import Span

__all__ = ["Verifier", "VerifyTally", "WrongAnswers"]

ASK_AGAIN_S = 30.0
"""How long a peer isn't asked for its opinion after it gave none."""


class WrongAnswers(Exception):
    """A hop in use has given wrong answers, and all caches may hold what came of them."""


@dataclass(frozen=True, slots=True)
class VerifyTally:
    """What was verified so far.

    ``fraction``: of the steps, that is to be. ``compared``: steps that a second peer computed too.
    ``missed``: those that nobody could. ``wrong``: peers that were found to answer wrongly.
    """

    fraction: float
    compared: int = 0
    missed: int = 0
    wrong: int = 0


class Verifier:
    """Compares a fraction of the steps of watched hops.

    ``random`` chooses the steps and the peers, so that no peer knows when it is looked at.
    """

    def __init__(
        self,
        fraction: float,
        key: ModelKey,
        opinions: Opinions,
        *,
        label: Callable[[str | None], str],
        say: Callable[[str], None],
        distrust: Callable[[Collection[str], GptNodeError], bool],
        rng: Random,
    ) -> None:
        """A verifier of ``fraction`` of the steps; 0: it does nothing.

        Args:
            fraction: 0 to 1.
            key: The model's, which says how far honest answers may be apart.
            opinions: Whom to ask.
            label: What people call a peer.
            say: Shows a line of progress or trouble.
            distrust: Called with peers that aren't to be used any more and why, which it says;
                tells whether one of them was in use.
            rng: Chooses the steps.

        Raises:
            UsageError: ``fraction`` is not one.
        """
        if not 0.0 <= fraction <= 1.0:
            raise UsageError(f"the fraction of steps to verify is from 0 to 1, not {fraction:g}")
        self.tally = VerifyTally(fraction)
        self._judging = Judge(key, opinions, label, say)
        self._opinions = opinions
        self._label = label
        self._say = say
        self._distrust = distrust
        self._rng = rng
        self._nursery: trio.Nursery | None = None
        self._under_way = 0
        self._news = trio.Event()
        self._tokens = 0
        self._verdicts: list[Verdict] = []
        self._spoiled = False
        self._not_before_s: dict[str, float] = {}
        self._told: set[Span] = set()

    @property
    def on(self) -> bool:
        """Whether anything is compared at all."""
        return self.tally.fraction > 0

    def watch(self, stage: RemoteStage) -> WatchedStage:
        """``stage``, which is empty, under the eyes of this verifier."""
        return WatchedStage(stage, self._begin, lambda: self._tokens)

    @asynccontextmanager
    async def checking(self) -> AsyncIterator[None]:
        """Within this, steps are compared; leaving it ends what is under way."""
        if not self.on:
            yield
            return
        async with background_nursery() as nursery:
            self._nursery = nursery
            try:
                yield
            finally:
                self._nursery = None

    def spoil(self) -> None:
        """Somebody else found that a peer in use was wrong: all has to begin anew."""
        self._spoiled = self.on

    async def settle(self) -> None:
        """Wait until all steps under comparison are compared, or can't be: a token depends on them.

        Raises:
            WrongAnswers: a peer in use was wrong. It isn't used any more; what all caches hold may
                have come of it.
        """
        while self._under_way:
            self._news = trio.Event()
            await self._news.wait()
        verdicts, self._verdicts = self._verdicts, []
        spoiled, self._spoiled = self._spoiled or bool(verdicts), False
        for verdict in verdicts:
            self._distrust(verdict.peer_ids, verdict.cause)
        if spoiled:
            raise WrongAnswers
        self._tokens += 1

    def _begin(self, hop: WatchedStage, position: int, n_rows: int) -> Check | None:
        """A step of ``hop`` is about to be sent: choose it or not."""
        if self._nursery is None or self._rng.random() >= self.tally.fraction:
            return None
        check = Check(hop, position, n_rows)
        self._under_way += 1
        self._nursery.start_soon(self._run, check)
        return check

    async def _run(self, check: Check) -> None:
        try:
            async with check.hop.comparing:
                if not (self._verdicts or check.dropped):  # a verdict: all begin anew anyway
                    await self._compare(check)
        finally:
            self._under_way -= 1
            self._news.set()

    async def _compare(self, check: Check) -> None:
        """Have ``check`` answered by a second peer, and judge if the answers differ."""
        hop = check.hop
        check.begin()
        before = hop.shadow, hop.shadow.length if hop.shadow is not None else 0
        second: Tensor | None = None
        with check.scope:
            second = await self._second(check)
            await check.answered.wait()
        if check.dropped:
            return
        shadow = hop.shadow
        if hop.closed:  # the route was changed meanwhile
            self._lose(hop)
        elif check.scope.cancelled_caught:
            self._too_slow(check, before)
        if second is None or check.rows is None or shadow is None:
            self._count(missed=1)
        elif self._judging.agree(check, check.rows, second):
            self._agreed(check)
        else:
            await self._judge(check, check.rows, shadow, second)

    async def _second(self, check: Check) -> Tensor | None:
        """What the shadow of the hop answers; None, after saying why, if it can't be had."""
        hop = check.hop
        if hop.journal.over:
            self._tell(hop.span, "what they were given is too much to keep", lasting=True)
            return None
        try:
            shadow = await self._shadow_for(check)
            if shadow is not None:
                return await shadow.answer(hop.journal, check.start, check.stop)
        except GptNodeError as error:
            if check.asked is not None and not hop.closed:
                self._gave_none(check.asked, hop.span, error)
            self._lose(hop)
        return None

    async def _shadow_for(self, check: Check) -> Shadow | None:
        """The shadow of the hop, opened if need be; None if there is nobody for it."""
        hop = check.hop
        replicas = self._opinions.replicas(hop.span, {hop.peer_id})
        shadow = hop.shadow
        if shadow is not None and shadow.peer_id in replicas and shadow.stage.lost is None:
            check.asked = shadow.peer_id
            return shadow
        self._lose(hop)
        if not replicas:
            nobody = f"there is nobody besides {self._label(hop.peer_id)} to compare with"
            self._tell(hop.span, nobody, lasting=True)
            return None
        now_s = trio.current_time()
        for peer_id in replicas:
            if self._opinions.is_well(peer_id) and self._not_before_s.get(peer_id, 0.0) <= now_s:
                check.asked = peer_id
                hop.shadow = await self._opinions.open(peer_id, hop.span, hop.max_tokens)
                return hop.shadow
        names = ", ".join(sorted(map(self._label, replicas)))
        self._tell(hop.span, f"{names} can't be asked")
        return None

    def _too_slow(self, check: Check, before: tuple[Shadow | None, int]) -> None:
        """No second answer came in time; a shadow that got on meanwhile may try again."""
        shadow = check.hop.shadow
        if shadow is not None:
            since = before[1] if shadow is before[0] else 0
            if shadow.length > since:
                return
        if check.asked is not None:
            late = PeerTimeoutError("gave no second answer in time")
            self._gave_none(check.asked, check.hop.span, late)
        self._lose(check.hop)

    def _gave_none(self, peer_id: str, span: Span, error: GptNodeError) -> None:
        wait_s = error.retry_after_s if isinstance(error, PeerBusyError) else ASK_AGAIN_S
        self._not_before_s[peer_id] = trio.current_time() + wait_s
        self._tell(span, f"{self._label(peer_id)}: {error.detail}")

    def _lose(self, hop: WatchedStage) -> None:
        """Another shadow will be opened when one is needed."""
        if hop.shadow is not None:
            self._opinions.close_soon(hop.shadow)
            hop.shadow = None

    def _agreed(self, check: Check) -> None:
        check.hop.found_right(check)
        self._told.discard(check.hop.span)
        self._count(compared=1)

    async def _judge(self, check: Check, first: Tensor, shadow: Shadow, second: Tensor) -> None:
        """Two answers differ: have whoever is wrong not used any more."""
        hop = check.hop
        verdict = await self._judging.judge(check, first, shadow, second)
        self._count(compared=1, wrong=len(verdict.peer_ids) if verdict is not None else 0)
        if verdict is None:
            hop.found_right(check)
            return
        if shadow.peer_id in verdict.peer_ids:
            self._lose(hop)
        if hop.peer_id in verdict.peer_ids:  # its step is under way, and all begin anew after it
            self._verdicts.append(verdict)
        elif self._distrust(verdict.peer_ids, verdict.cause):
            self._spoiled = True

    def _count(self, *, compared: int = 0, missed: int = 0, wrong: int = 0) -> None:
        self.tally = replace(
            self.tally,
            compared=self.tally.compared + compared,
            missed=self.tally.missed + missed,
            wrong=self.tally.wrong + wrong,
        )

    def _tell(self, span: Span, why: str, *, lasting: bool = False) -> None:
        """Say that a span isn't verified: once, until it is again."""
        if span not in self._told:
            self._told.add(span)
            for_now = "" if lasting else " for now"
            self._say(f"blocks {span} are not verified{for_now}: {why}")
