"""What a node's parts tell of their work, and somebody who listens: nobody, to begin with.

A `Meter` is handed to whoever has something to tell. Its methods are called where tokens are made,
so they take no time to speak of, never wait and never fail. Knows nothing of metrics and traces,
which are made of what is told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from gptnode.node.metric_catalogue import Reading
from gptnode.node.timing import TokenTiming

__all__ = ["NO_METER", "AnswerMeter", "HopName", "Meter"]


@dataclass(frozen=True, slots=True)
class HopName:
    """What people call a hop: its peer's label, and its blocks."""

    label: str
    blocks: str


class AnswerMeter:
    """Hears of one answer; this one does nothing."""

    def token(self, timing: TokenTiming, hops: Sequence[HopName]) -> None:
        """A token came; ``hops`` are those of ``timing``, which has none for a guessed one."""

    def ended(self, reason: str) -> None:
        """No more tokens come: a `StopReason`, or "failed". Only the first call counts."""


class Meter:
    """Hears of everything; this one does nothing."""

    def watch(self, read: Callable[[], Iterable[Reading]]) -> None:
        """``read`` is to be asked for the state of things whenever somebody looks."""

    # -- of a client

    def answer(self, model: str, prompt_tokens: int) -> AnswerMeter:
        """A prompt is about to be answered."""
        return _NO_ANSWER

    def guessed(self, model: str, tokens: int, right: int) -> None:
        """A step had so many guesses in it."""

    def hop_failed(self, peer: str, cause: str, *, was_open: bool) -> None:
        """``peer``, a label, failed in a session or, if not ``was_open``, at opening one."""

    def rerouted(self, cause: Literal["failure", "map_edit"]) -> None:
        """The route was made again, and is whole."""

    def refilled(self, model: str, tokens: int) -> None:
        """Hops were given so many tokens again."""

    # -- of both

    def map_edited(self, outcome: Literal["taken", "rejected"]) -> None:
        """The file of the map was edited."""

    # -- of a server

    def session_opened(self, model: str) -> None:
        """A client opened a session."""

    def session_refused(self, reason: str) -> None:
        """A client was told the code ``reason`` in place of a session."""

    def session_ended(self, how: str) -> None:
        """An open session ended."""

    def step(self, model: str, tokens: int, queue_s: float, compute_s: float) -> None:
        """A step of a session was computed."""

    def batch(self, steps: int, rows: int) -> None:
        """So many steps were computed as one; called in the lane's thread."""


_NO_ANSWER: Final = AnswerMeter()
NO_METER: Final = Meter()
"""For whoever has nobody to tell."""
