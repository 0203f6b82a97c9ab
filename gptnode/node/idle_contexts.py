"""Contexts that nobody uses now, kept with their caches: which of them to go on with, which to end.

Knows token ids and the order of use. Knows neither peers nor clocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Generic, Protocol, TypeVar

from gptnode.node.speculation import common_prefix

__all__ = ["HoldsIds", "IdleContexts"]


class HoldsIds(Protocol):
    """A context, as far as it matters here."""

    @property
    def cached_ids(self) -> Sequence[int]:
        """The ids that its caches hold."""
        ...


C = TypeVar("C", bound=HoldsIds)


class IdleContexts(Generic[C]):
    """Idle contexts, the one that was used longest ago first."""

    def __init__(self, room: int) -> None:
        """None yet; ``room`` for so many."""
        self._room = room
        self._contexts: list[C] = []

    def __len__(self) -> int:
        """How many there are."""
        return len(self._contexts)

    def __iter__(self) -> Iterator[C]:
        """From the one that was used longest ago."""
        return iter(tuple(self._contexts))

    def take(self, ids: Sequence[int]) -> C | None:
        """The one to go on with for ``ids``, which leaves; None where a new one is better.

        It is the one that shares the longest beginning with ``ids``; of several the one that was
        used longest ago. What it holds beyond is lost to whoever might come back for it. So it is
        taken if at least half of what it holds is of use, which is so for a conversation that goes
        on, and for questions that share a long beginning. Else it is taken only where there is no
        room for one more, and it would soon have to go anyway.
        """
        best: C | None = None
        shared = 0
        for context in self._contexts:
            n = common_prefix(context.cached_ids, ids)
            if n > shared:
                best, shared = context, n
        if best is None:
            return None
        if 2 * shared < len(best.cached_ids) and len(self._contexts) < self._room:
            return None
        self._contexts.remove(best)
        return best

    def put(self, context: C) -> C | None:
        """Keep ``context``; the one that has to go for it, if any."""
        self._contexts.append(context)
        return self._contexts.pop(0) if len(self._contexts) > self._room else None

    def pop(self, unwanted: Callable[[C], bool] = lambda context: True) -> C | None:
        """The first that is ``unwanted``, which leaves."""
        for place, context in enumerate(self._contexts):
            if unwanted(context):
                return self._contexts.pop(place)
        return None
