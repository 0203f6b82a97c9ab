"""How many tokens to guess: by how often guesses were right, and by what they cost.

A step costs its round trip and, for each row more, a little computation; a guess costs the wait for
whoever makes it. Knows times and counts alone.
"""

from __future__ import annotations

__all__ = ["LENGTHS", "DraftLength", "StepCost"]

LENGTHS = (0, 1, 2, 3, 5, 7, 11, 15)
"""Guesses that are tried: with the last token itself, 16 rows are what kernels like best."""

DECAY = 0.9
PROBE_EVERY = 16
PROBE_LENGTH = 3


class StepCost:
    """What steps of one context take, without the making of guesses; None where nothing is known.

    The round trip to the peers is in ``one_s``, so guesses are longer over slow links.
    """

    def __init__(self) -> None:
        """Nothing is known."""
        self.one_s: float | None = None  # a step of one row
        self.row_s: float | None = None  # each row more

    def note(self, guessed: int, took_s: float) -> None:
        """A step of ``guessed`` rows beside the one of the last token took that long."""
        if guessed == 0:
            self.one_s = _blend(self.one_s, took_s)
        elif self.one_s is not None:
            self.row_s = _blend(self.row_s, max(0.0, took_s - self.one_s) / guessed)


class DraftLength:
    """How long the guesses of one origin should be; origins share what their steps cost."""

    def __init__(self, cost: StepCost | None = None) -> None:
        """Guesses are believed to be right more often than not, until it is known."""
        self.chance = 0.6  # that a guessed token is right
        self._hits, self._trials = 1.2, 2.0
        self._cost = cost if cost is not None else StepCost()
        self._drafting_s: float | None = None  # for each guessed token
        self._without = 0  # steps since the last guess

    @property
    def likely(self) -> int:
        """How many tokens the next guess will have, as far as is known; 0 where it doesn't pay."""
        if self._cost.one_s is None or self._cost.row_s is None:
            return PROBE_LENGTH
        return max(LENGTHS, key=self.rate)

    def best(self) -> int:
        """How many tokens to guess now; 0 where it doesn't pay, but for a try now and then."""
        if self._cost.one_s is None:
            return 0
        length = self.likely
        if length == 0:
            self._without += 1
            return PROBE_LENGTH if self._without >= PROBE_EVERY else 0
        return length

    def rate(self, length: int) -> float:
        """Tokens a second to be expected of steps with ``length`` guessed tokens."""
        tokens = sum(self.chance**i for i in range(length + 1))
        row_s = (self._cost.row_s or 0.0) + (self._drafting_s or 0.0)
        return tokens / ((self._cost.one_s or 0.0) + length * row_s + 1e-9)

    def note(self, guessed: int, right: int, took_s: float, drafting_s: float = 0.0) -> None:
        """A step with ``guessed`` tokens beside the last one, of which ``right`` were right.

        It took ``took_s``, and before it the guess was waited for ``drafting_s``.
        """
        self._cost.note(guessed, took_s)
        if guessed > 0:
            self._without = 0
            self._drafting_s = _blend(self._drafting_s, drafting_s / guessed)
            self.learn(guessed, right)

    def learn(self, guessed: int, right: int) -> None:
        """So many of ``guessed`` tokens would have been right, or were."""
        self._hits = DECAY * self._hits + right
        self._trials = DECAY * self._trials + right + (right < guessed)
        self.chance = self._hits / self._trials


def _blend(before: float | None, now: float) -> float:
    return now if before is None else before + (1 - DECAY) * (now - before)
