"""A ring: neighbouring hops that hand on to each other, so that a step makes one round.

In a star every hop answers the client: 2N one-way latencies for N hops. Here the first is given the
step, each hands on what it made of it, and the last one answers: N + 1. The sessions are those of
the star and stay usable as such, so a ring that breaks costs one repeated step.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count, zip_longest

import torch
import trio
from torch import Tensor

from gptnode.errors import GptNodeError, MismatchError
from gptnode.node.remote_stage import RemoteStage
from gptnode.node.stages import HopFailure
from gptnode.node.timing import HopTiming
from gptnode.wire.messages import Arrived, Draw, Relay, Stranded

__all__ = ["Ring", "RingFailure", "Round"]

LINK_TIMEOUT_S = 5.0


class RingFailure(Exception):
    """The ring can't be used, or no longer; its sessions may be well."""


@dataclass(slots=True, eq=False)
class Round:
    """A step on its way round; made by ``Ring.send`` alone."""

    ticket: int
    position: int
    tokens: int
    draw: Draw | None
    device: torch.device
    sent_s: float
    serialise_s: float
    over: trio.Event = field(default_factory=trio.Event)
    message: Arrived | None = None
    failure: Exception | None = None


class Ring:
    """Sessions in the order of their blocks, each handing on to the next.

    Error handling: a session that ends fails every round with HopFailure, which names the stage. A
    server that can't hand on fails it with RingFailure; the ring is then ``broken``.
    """

    def __init__(self, stages: Sequence[RemoteStage]) -> None:
        """At least two stages, whose blocks follow each other; nothing is said before ``link``."""
        self.stages = tuple(stages)
        self.broken: str | None = None
        self.timings: tuple[HopTiming, ...] = (HopTiming(),) * len(self.stages)
        # Not those of another ring over the same sessions, of which something may still come.
        self._tickets = count(secrets.randbits(48) + 1)
        self._links: set[int] = set()
        self._rounds: dict[int, Round] = {}
        for stage in self.stages:
            stage.channel.listen(_Ear(self, stage))

    @property
    def alive(self) -> bool:
        """Whether it may be used: not broken, no session lost."""
        return self.broken is None and not any(stage.lost for stage in self.stages)

    async def link(self) -> None:
        """Tell every server but the last where to hand on to.

        Raises:
            RingFailure: one of them can't.
            HopFailure: a session is lost.
        """

        async def link_one(stage: RemoteStage, following: RemoteStage | None) -> None:
            self._links.add(ticket := next(self._tickets))
            refusal = ""
            try:
                if following is None:
                    await stage.answer_here(ticket, timeout_s=LINK_TIMEOUT_S)
                else:
                    refusal = await stage.forward_to(following, ticket, timeout_s=LINK_TIMEOUT_S)
            except GptNodeError as error:
                if stage.lost is not None:
                    failures.append(HopFailure(stage, error))
                self.broken = f"{stage.label}: {error.detail}"
            else:
                if refusal:
                    self.broken = f"{stage.label}: {refusal}"

        failures: list[HopFailure] = []
        async with trio.open_nursery() as nursery:
            for stage, following in zip_longest(self.stages, self.stages[1:]):
                nursery.start_soon(link_one, stage, following)
        if failures:
            raise failures[0]
        if self.broken is not None:
            raise RingFailure(self.broken)

    async def send(self, hidden: Tensor, position: int, draw: Draw | None = None) -> Round:
        """Send ``hidden`` into the ring; rounds come back in the order of sending.

        What ``hidden`` and ``draw`` are, ``Stage.forward`` says.

        Raises:
            HopFailure, RingFailure: as ``receive``.
        """
        self._raise_if_over()
        begun_s = time.perf_counter()
        ticket = next(self._tickets)
        relay = Relay(ticket, position, self.stages[0].given(hidden), draw=draw)
        sent_s = time.perf_counter()
        round_ = Round(
            ticket, position, hidden.shape[1], draw, hidden.device, begun_s, sent_s - begun_s
        )
        self._rounds[ticket] = round_
        try:
            self.stages[-1].channel.expect_arrival()
            await self.stages[0].channel.post(relay)
        except GptNodeError as error:
            self._rounds.pop(ticket, None)
            self._raise_if_over()
            raise HopFailure(self.stages[0], error) from error
        except BaseException:
            self._rounds.pop(ticket, None)
            raise
        return round_

    async def receive(self, round_: Round) -> Tensor:
        """What the ring made of a round; ``timings`` then tell of it, hop by hop.

        Raises:
            HopFailure: a session was lost, or a server did other than it was asked.
            RingFailure: a server couldn't compute it or hand it on.
        """
        try:
            await round_.over.wait()
        finally:
            self._rounds.pop(round_.ticket, None)
        if round_.failure is not None or round_.message is None:
            raise round_.failure or RingFailure("the ring was given up")
        message, last = round_.message, self.stages[-1]
        answered_s = time.perf_counter()
        self._check_trail(message, round_)
        try:
            result = last.answer(message.hidden, round_.tokens, round_.draw, round_.device)
        except GptNodeError as error:
            raise HopFailure(last, error) from error
        done_s = time.perf_counter()
        self.timings = _timings(message, round_, answered_s, done_s)
        return result

    def arrived(self, message: Arrived) -> None:
        """Heard from the last session; a ticket that nobody waits for any more is dropped."""
        round_ = self._rounds.get(message.ticket)
        if round_ is not None and not round_.over.is_set():
            round_.message = message
            round_.over.set()

    def stranded(self, stage: RemoteStage, message: Stranded) -> None:
        """Heard from any session; of a step or ring that was given up it says nothing new."""
        if message.ticket in self._links or message.ticket in self._rounds:
            self._break(f"{stage.label}: {message.reason}")

    def session_ended(self, stage: RemoteStage) -> None:
        """Heard from a session."""
        for round_ in self._rounds.values():
            if not round_.over.is_set():
                lost = stage.lost or MismatchError(f"{stage.label} ended the session")
                round_.failure = HopFailure(stage, lost)
                round_.over.set()

    def _break(self, reason: str) -> None:
        if self.broken is None:
            self.broken = reason
        for round_ in self._rounds.values():
            if not round_.over.is_set():
                round_.failure = RingFailure(reason)
                round_.over.set()

    def _raise_if_over(self) -> None:
        for stage in self.stages:
            if stage.lost is not None:
                raise HopFailure(stage, stage.lost)
        if self.broken is not None:
            raise RingFailure(self.broken)

    def _check_trail(self, message: Arrived, round_: Round) -> None:
        """Refuse a way other than the one that was laid, before a token is sampled from it."""
        if message.position != round_.position or len(message.trail) != len(self.stages):
            raise HopFailure(
                self.stages[-1],
                MismatchError(
                    f"a step at position {round_.position} through {len(self.stages)} hops came "
                    f"back for position {message.position} through {len(message.trail)}"
                ),
            )
        for stage, trace in zip(self.stages, message.trail, strict=True):
            if (trace.span, trace.epoch) != (stage.span, stage.epoch):
                raise HopFailure(
                    stage, MismatchError(f"{stage.label} computed blocks {trace.span} in its place")
                )


class _Ear:
    """A ring's listener at one session."""

    def __init__(self, ring: Ring, stage: RemoteStage) -> None:
        self._ring = ring
        self._stage = stage

    def arrived(self, message: Arrived) -> None:
        self._ring.arrived(message)

    def stranded(self, message: Stranded) -> None:
        self._ring.stranded(self._stage, message)

    def session_ended(self) -> None:
        self._ring.session_ended(self._stage)


def _timings(
    message: Arrived, round_: Round, answered_s: float, done_s: float
) -> tuple[HopTiming, ...]:
    """Each hop's own word on queue and computation; what is left of the round is all hops' wire.

    What exceeds the time that passed is cut off, as with any hop.
    """
    away_s = max(0.0, answered_s - round_.sent_s - round_.serialise_s)
    claimed_s = sum(trace.queue_s + trace.compute_s for trace in message.trail)
    share = min(1.0, away_s / claimed_s) if claimed_s > 0 else 1.0
    n_hops = len(message.trail)
    wire_s = max(0.0, away_s - claimed_s) / n_hops
    serialise_s = (round_.serialise_s + done_s - answered_s) / n_hops
    return tuple(
        HopTiming(trace.queue_s * share, trace.compute_s * share, serialise_s, wire_s)
        for trace in message.trail
    )
