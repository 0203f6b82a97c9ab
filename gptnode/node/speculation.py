"""Guessing the tokens that come next, so that one step computes several.

Text repeats itself: code that is edited, a text that is summarised. What followed the last few
tokens when they were there before is a guess that costs nothing (prompt lookup: Yang et al. 2023,
arXiv 2304.04487; Saxena 2023). A step then has the last token and the guess; each position is
sampled as ever, and counts as long as the guess was what was sampled. So the tokens are those that
there would be without it, with any sampling and any seed.

Knows ids and times. Knows no model.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

__all__ = ["DraftLength", "PromptLookup", "Ready", "Speculation"]

GRAMS = (4, 3, 2)
"""How many of the last tokens have to have been there before; the longest that were count."""

LENGTHS = (0, 1, 2, 3, 5, 7, 11, 15)
"""Guesses that are tried: with the last token itself, 16 rows are what kernels like best."""

DECAY = 0.9
PROBE_EVERY = 16
PROBE_LENGTH = 3


class PromptLookup:
    """What followed the last tokens of a context when they were in it before."""

    def __init__(self) -> None:
        """Nothing was seen."""
        self._ids: list[int] = []
        self._after: dict[tuple[int, ...], int] = {}  # where what follows a gram begins

    def draft(self, ids: Sequence[int], most: int) -> list[int]:
        """At most ``most`` tokens that may follow ``ids``; often none."""
        self._follow(ids)
        for n in GRAMS:
            at = self._after.get(tuple(self._ids[-n:]))
            if at is not None:
                return self._ids[at : at + most]
        return []

    def _follow(self, ids: Sequence[int]) -> None:
        """Take up what is new in ``ids``; begin anew if they aren't a continuation."""
        known = len(self._ids)
        if len(ids) < known or list(ids[:known]) != self._ids:
            self._ids, self._after, known = [], {}, 0
        self._ids.extend(ids[known:])
        for at in range(max(known, 1), len(self._ids)):  # what follows a gram that ends before at
            for n in GRAMS:
                if n <= at:
                    self._after[tuple(self._ids[at - n : at])] = at


class DraftLength:
    """How long a guess pays: by how often guesses were right, and what a row more costs.

    The round trip to the peers is in the time of a step, so guesses are longer over slow links.
    """

    def __init__(self) -> None:
        """Guesses are believed to be right more often than not, until it is known."""
        self.chance = 0.6  # that a guessed token is right
        self._hits, self._trials = 1.2, 2.0
        self._one_s: float | None = None  # a step of one row
        self._row_s: float | None = None  # each row more
        self._without = 0  # steps since the last guess

    def best(self) -> int:
        """How many tokens to guess now; 0 where it doesn't pay, but for a try now and then."""
        if self._one_s is None:
            return 0
        if self._row_s is None:
            return PROBE_LENGTH
        length = max(LENGTHS, key=self._rate)
        if length == 0:
            self._without += 1
            return PROBE_LENGTH if self._without >= PROBE_EVERY else 0
        return length

    def note(self, guessed: int, right: int, took_s: float) -> None:
        """A step with ``guessed`` tokens beside the last one, of which ``right`` were right."""
        if guessed == 0:
            self._one_s = _blend(self._one_s, took_s)
            return
        self._without = 0
        self._hits = DECAY * self._hits + right
        self._trials = DECAY * self._trials + right + (right < guessed)
        self.chance = self._hits / self._trials
        if self._one_s is not None:
            self._row_s = _blend(self._row_s, max(0.0, took_s - self._one_s) / guessed)

    def _rate(self, length: int) -> float:
        """Tokens a second to be expected."""
        tokens = sum(self.chance**i for i in range(length + 1))
        return tokens / ((self._one_s or 0.0) + length * (self._row_s or 0.0) + 1e-9)


class Speculation:
    """Guesses for one context, and what became of them."""

    def __init__(self) -> None:
        """None yet."""
        self.guessed = 0
        self.right = 0
        self._lookup = PromptLookup()
        self._length = DraftLength()

    def draft(self, ids: Sequence[int], room: int) -> list[int]:
        """What to guess after ``ids``, at most ``room`` tokens."""
        length = min(self._length.best(), room)
        return self._lookup.draft(ids, length) if length > 0 else []

    def note(self, guessed: int, right: int, took_s: float) -> None:
        """See `DraftLength.note`."""
        self.guessed += guessed
        self.right += right
        self._length.note(guessed, right, took_s)


class Ready:
    """Tokens that are sampled already, for whoever goes on with the very same context."""

    def __init__(
        self, ids: Sequence[int] = (), tokens: Sequence[int] = (), sampler: object = None
    ) -> None:
        """``tokens`` follow ``ids``, drawn by ``sampler``."""
        self._ids = list(ids)
        self._tokens = deque(tokens)
        self._sampler = sampler

    def take(self, ids: Sequence[int], sampler: object) -> int | None:
        """The token after ``ids``; None if it isn't known. Another context ends it all."""
        if not self._tokens:
            return None
        if sampler is not self._sampler or len(ids) != len(self._ids) or list(ids) != self._ids:
            self._tokens.clear()
            return None
        token = self._tokens.popleft()
        self._ids.append(token)
        return token


def _blend(before: float | None, now: float) -> float:
    return now if before is None else before + (1 - DECAY) * (now - before)
