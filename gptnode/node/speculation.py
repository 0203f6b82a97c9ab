"""Guessing the tokens that come next, so that one step computes several.

Text repeats itself: code that is edited, a text that is summarised. What followed the last few
tokens when they were there before is a guess that costs nothing (prompt lookup: Yang et al. 2023,
arXiv 2304.04487; Saxena 2023). Where a context doesn't repeat itself a small model may guess
(Leviathan et al. 2023, arXiv 2211.17192), and go on while the peers compute. A step then has the
last token and the guess; each position is sampled as ever, and counts as long as the guess was what
was sampled. So the tokens are those that there would be without it, with any sampling and any seed.

Knows ids and times. Knows no model: whoever drafts is a `DraftSource`.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

from gptnode.model.sampler import Sampler
from gptnode.node.draft_length import LENGTHS, DraftLength, StepCost
from gptnode.node.nursery import background_nursery

__all__ = ["DraftSource", "PromptLookup", "Ready", "Speculation", "common_prefix"]

GRAMS = (4, 3, 2)
"""How many of the last tokens have to have been there before; the longest that were count."""

HURRY_TOKENS = 64
"""More than these aren't read by a draft model while the peers have nothing to do."""


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


class DraftSource(Protocol):
    """Whoever makes guesses of its own for one context. Its work may be cancelled at any time."""

    def behind(self, ids: Sequence[int]) -> int:
        """How many tokens it has to read before it can guess what follows ``ids``."""
        ...

    async def follow(self, ids: Sequence[int]) -> None:
        """Read ``ids``, but for the last."""
        ...

    async def draft(
        self, ids: Sequence[int], most: int, sampler: Sampler, *, drawn: int = 0
    ) -> list[int]:
        """At most ``most`` tokens that may follow ``ids``.

        ``sampler`` is the one that will draw the tokens themselves, once it has drawn ``drawn``
        others.
        """
        ...

    def forget(self) -> None:
        """Give all memory of the context back."""
        ...


class Speculation:
    """Guesses for one context, and what became of them."""

    def __init__(self) -> None:
        """None yet."""
        self.guessed = 0
        self.right = 0
        self.drafted = 0  # of the guessed tokens, by a draft model
        self.drafted_right = 0
        self.drafting_s = 0.0
        self._lookup = PromptLookup()
        self._drafts: DraftSource | None = None
        cost = StepCost()
        self._by_lookup, self._by_drafts = DraftLength(cost), DraftLength(cost)
        self._origin = self._by_lookup  # of the last guess
        self._found: list[int] = []  # what was looked up, whether it was used or not
        self._guess_s = 0.0  # of drafting_s, without what had to be read first

    def draft_with(self, drafts: DraftSource) -> None:
        """Have ``drafts`` guess where the context doesn't repeat itself."""
        self._drafts = drafts

    async def draft(
        self, ids: Sequence[int], room: int, sampler: Sampler, *, waits: bool = False
    ) -> list[int]:
        """What to guess after ``ids``, at most ``room`` tokens.

        What is looked up and what is drafted both have a rate of tokens a second to be expected:
        the better one is taken. ``drafting_s`` then is how long that took.

        Args:
            ids: The context.
            room: The most that still fit.
            sampler: Will draw the tokens.
            waits: Whether there is time while a step is away, to read what is new.
        """
        self.drafting_s = self._guess_s = 0.0
        self._origin = self._by_lookup
        self._found = self._lookup.draft(ids, min(room, LENGTHS[-1]))
        looked_up = self._found[: self._by_lookup.best()]
        length = min(self._by_drafts.best(), room) if self._drafts is not None else 0
        if self._drafts is None or length <= 0:
            return looked_up
        if looked_up and self._by_lookup.rate(len(looked_up)) >= self._by_drafts.rate(length):
            return looked_up
        began_s = read_s = time.perf_counter()
        if self._drafts.behind(ids) > HURRY_TOKENS:
            if waits:
                return looked_up
            await self._drafts.follow(ids)
            read_s = time.perf_counter()
        drafted = await self._drafts.draft(ids, length, sampler)
        now_s = time.perf_counter()
        self.drafting_s, self._guess_s = now_s - began_s, now_s - read_s
        if drafted:
            self._origin = self._by_drafts
        return drafted or looked_up

    @asynccontextmanager
    async def meanwhile(
        self, ids: Sequence[int], sampler: Sampler, *, waits: bool, drawn: int = 0
    ) -> AsyncIterator[None]:
        """Draft what may follow ``ids`` while the body waits for the network.

        Args:
            ids: The context with what was guessed.
            sampler: Will draw the tokens.
            waits: Whether the body does wait for a network.
            drawn: How many tokens the sampler will have drawn by then.
        """
        drafts, likely = self._drafts, self._by_drafts.likely
        if drafts is None or not waits or likely == 0:
            yield
            return

        async def go_on() -> None:
            await drafts.follow(ids)
            await drafts.draft(ids, likely + 1, sampler, drawn=drawn)

        async with background_nursery() as nursery:
            nursery.start_soon(go_on)
            yield

    def note(self, guess: Sequence[int], tokens: Sequence[int], took_s: float) -> None:
        """A step with ``guess`` gave ``tokens``, all but the last of them guessed.

        It took ``took_s``, the making of the guess included.
        """
        guessed, right = len(guess), len(tokens) - 1
        self.guessed += guessed
        self.right += right
        self._origin.note(guessed, right, took_s - self.drafting_s, self._guess_s)
        if self._origin is self._by_drafts:
            self.drafted += guessed
            self.drafted_right += right
        if self._found and (self._origin is self._by_drafts or not guessed):
            seen = min(len(self._found), len(tokens))
            self._by_lookup.learn(seen, common_prefix(self._found[:seen], tokens))

    def forget(self) -> None:
        """Give all memory of the context back."""
        if self._drafts is not None:
            self._drafts.forget()


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


def common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """How many ids both begin with."""
    n = min(len(left), len(right))
    if list(left[:n]) == list(right[:n]):  # the usual case, at the speed of C
        return n
    return next(i for i in range(n) if left[i] != right[i])
