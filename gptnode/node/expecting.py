"""Which contexts will be back with their next step in a moment, judging by when they used to be.

Knows times and contexts; what is made of it is `gptnode.node.batching`'s business.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from gptnode.model.kv_cache import KVCache
from gptnode.model.shard import BlockStack

__all__ = ["Expected"]

LATE = 1.5
"""After so many times its usual gap a context isn't waited for any more."""

NEW_SHARE = 0.5
"""The weight of the last gap in the usual one."""


@dataclass(slots=True)
class _Habit:
    """When a context got its last answer, and how long it usually takes to ask again."""

    stack: BlockStack
    answered_at: float
    gap_s: float | None = None
    away: bool = True


class Expected:
    """The contexts that were answered. All times are of one clock, in seconds.

    Not safe for use from several threads. It keeps no context alive.
    """

    def __init__(self) -> None:
        """Nobody was here."""
        self._habits: WeakKeyDictionary[KVCache, _Habit] = WeakKeyDictionary()

    def asked(self, cache: KVCache, at: float) -> None:
        """A context asks for a step."""
        habit = self._habits.get(cache)
        if habit is not None and habit.away:
            gap_s, habit.away = max(0.0, at - habit.answered_at), False
            usual_s = gap_s if habit.gap_s is None else habit.gap_s
            habit.gap_s = usual_s + NEW_SHARE * (gap_s - usual_s)

    def answered(self, cache: KVCache, stack: BlockStack, at: float) -> None:
        """It has its answer, a step over ``stack``."""
        habit = self._habits.setdefault(cache, _Habit(stack, at))
        habit.stack, habit.answered_at, habit.away = stack, at, True

    def worth_waiting(
        self, stack: BlockStack, now: float, most_s: float, saved_s: Callable[[int], float]
    ) -> float | None:
        """Until when to wait for contexts over ``stack``; None if that pays for nobody.

        As many are waited for as pays: ``saved_s`` says what it saves if so many come, never more
        than ``most_s``, and the last of them should be back before that time is over. What was
        waited so far doesn't count.
        """
        soon = sorted(
            (habit.answered_at + habit.gap_s, habit.answered_at + LATE * habit.gap_s)
            for habit in self._habits.values()
            if habit.away
            and habit.stack is stack
            and habit.gap_s is not None
            and habit.answered_at + habit.gap_s < now + most_s
            and habit.answered_at + LATE * habit.gap_s > now
        )
        for count in range(len(soon), 0, -1):
            until = now + saved_s(count)
            if max(now, soon[count - 1][0]) < until:
                return min(max(late for _, late in soon[:count]), until)
        return None
