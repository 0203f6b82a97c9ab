"""The contexts of a service: who gets which one, and when each of them ends.

As many answer at once as there are places; the others wait their turn. One that has answered is
kept for a while, for whoever goes on where it stopped. Knows contexts; what they run over, and who
asks, is the service's business.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeAlias

import trio

from gptnode.node.config import ServiceLimits
from gptnode.node.idle_contexts import IdleContexts
from gptnode.node.service_context import Context
from gptnode.node.turns import Line, Turns

__all__ = ["ContextPool", "MakeRoom"]

EXPIRY_STEPS = 4
LOOK_EVERY_S = 1.0

MakeRoom: TypeAlias = Callable[[str], Awaitable[bool]]
"""Has a session less with a peer that is full; whether it makes sense to ask it again."""


class ContextPool:
    """Lends contexts, and makes them as they are needed.

    Resource handling: ``nursery`` owns the goodbyes of contexts that end.
    """

    def __init__(
        self,
        make: Callable[[str, MakeRoom], Context],
        nursery: trio.Nursery,
        limits: ServiceLimits,
    ) -> None:
        """No contexts yet.

        Args:
            make: Makes one, given whose it is and what it calls when a peer is full.
            nursery: Closes them in the background.
            limits: How many.
        """
        self.last: Context | None = None
        """The one that was lent last, unless it has ended."""
        self._make = make
        self._nursery = nursery
        self._idle_s = limits.idle_s
        self._turns = Turns(limits.max_contexts, limits.max_waiting)
        self._answering: set[Context] = set()
        self._idle: IdleContexts[Context] = IdleContexts(limits.max_idle)
        self._line = Line()  # for room at peers that are full of this node's own sessions
        self._opened = 0

    def __iter__(self) -> Iterator[Context]:
        """All there are, those that answer first."""
        return iter((*self._answering, *self._idle))

    @property
    def answering(self) -> int:
        """How many are lent now."""
        return self._turns.busy

    @property
    def waiting(self) -> int:
        """How many wait for one."""
        return self._turns.waiting

    @property
    def idle(self) -> int:
        """How many are kept for whoever goes on with them."""
        return len(self._idle)

    @asynccontextmanager
    async def context(self, ids: Sequence[int]) -> AsyncIterator[Context]:
        """See ``Service.context``."""
        async with self._turns.turn():
            context = self._idle.take(ids) or self._new()
            self._answering.add(context)
            self.last = context
            try:
                yield context
            except BaseException:
                self._answering.remove(context)
                self._end_soon(context)
                raise
            self._answering.remove(context)
            self._keep(context)

    def end_idle(self, unwanted: Callable[[Context], bool]) -> None:
        """End those that nobody uses now and that are ``unwanted``."""
        while (context := self._idle.pop(unwanted)) is not None:
            self._end_soon(context)

    async def expire(self) -> None:
        """End contexts that were idle for too long; for ever."""
        while True:
            await trio.sleep(min(LOOK_EVERY_S, max(0.01, self._idle_s / EXPIRY_STEPS)))
            self.end_idle(partial(_idle_since, trio.current_time() - self._idle_s))

    async def aclose(self) -> None:
        """End all contexts."""
        contexts = list(self)
        while self._idle.pop() is not None:
            pass
        async with trio.open_nursery() as nursery:
            for context in contexts:
                nursery.start_soon(context.close)

    def _new(self) -> Context:
        self._opened += 1
        context: Context | None = None

        async def make_room(peer_id: str) -> bool:
            return context is not None and await self._make_room(context, peer_id)

        context = self._make(f"context {self._opened}", make_room)
        return context

    def _keep(self, context: Context) -> None:
        """It is idle from now on, unless others need its place."""
        if len(self._line):
            self._end_soon(context)
            return
        context.idle_since_s = trio.current_time()
        spare = self._idle.put(context)
        if spare is not None:
            self._end_soon(spare)

    def _end_soon(self, context: Context) -> None:
        if self.last is context:
            self.last = None
        self._nursery.start_soon(self._end, context)

    async def _end(self, context: Context) -> None:
        await context.close()
        self._line.call()

    async def _make_room(self, asking: Context, peer_id: str) -> bool:
        """See ``MakeRoom``.

        Idle contexts go first. Else, where others of this node have sessions there, it waits until
        one of them ends.
        """
        spare = self._idle.pop(lambda context: context.uses(peer_id))
        if spare is not None:
            await spare.close()
            return True
        if not any(context.uses(peer_id) for context in self._answering - {asking}):
            return False
        await self._line.wait(asking)
        return True


def _idle_since(since_s: float, context: Context) -> bool:
    return context.idle_since_s <= since_s
