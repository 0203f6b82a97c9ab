"""Waiting where some blocks have no live peer: for how long, for whom, and what is said of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import trio

from gptnode.errors import ContextError, PeerRefusedError, ProtocolError, RouteError
from gptnode.node.planning import Planner, why
from gptnode.span import Span

__all__ = ["Patience"]

BUSY_PATIENCE_S = 30.0
RETRY_S = 1.0
LASTING = (PeerRefusedError, ProtocolError, ContextError)
"""Troubles that only a person can end: a chat that never worked tells them at once."""


class Patience:
    """How long one answer waits for peers, all its waits together."""

    def __init__(self, planner: Planner, say: Callable[[str], None], wait_s: float) -> None:
        """``wait_s`` may be infinite; for peers that are busy it is half a minute at least."""
        self.has_worked = False
        self._planner = planner
        self._say = say
        self._wait_s = wait_s
        self._news = trio.Event()
        self._since_s: float | None = None
        self._said: str | None = None

    def begin(self) -> None:
        """Somebody asks anew, or got an answer: nothing has been waited for yet."""
        self._since_s = self._said = None

    def wake(self) -> None:
        """Something has changed: who waits should plan again."""
        self._news.set()
        self._news = trio.Event()

    async def wait(self, no_route: RouteError, gaps: Sequence[Span]) -> None:
        """Wait until it makes sense to plan ``gaps`` again, and say so once.

        Raises:
            GptNodeError: it makes no sense any more: what the peer that could serve them failed
                with, or RouteError where several did.
        """
        now_s, health = trio.current_time(), self._planner.health
        causes = self._planner.causes(gaps)
        busy_until_s = self._planner.busy_until_s(gaps)
        if not causes and self._planner.holds(gaps):
            await trio.lowlevel.checkpoint()  # whatever it was has just ended
            return
        if self._since_s is None:
            self._since_s = now_s
        patience_s = self._wait_s
        if busy_until_s is not None:
            patience_s = max(patience_s, BUSY_PATIENCE_S)
        elif causes and not self.has_worked and all(isinstance(c, LASTING) for c in causes):
            patience_s = 0.0
        until_s = self._since_s + patience_s
        again_s = busy_until_s if busy_until_s is not None else now_s + RETRY_S
        if now_s >= until_s or (busy_until_s is not None and again_s > until_s):
            health.forgive_all()  # who tries again wants every peer asked again
            raise why(causes, no_route)
        if no_route.detail != self._said:
            self._said = no_route.detail
            because = f": {'; '.join(cause.detail for cause in causes)}" if causes else ""
            self._say(
                f"waiting: {no_route.detail}{because}; "
                "goes on when a peer is there or the BlocksMap is edited"
            )
        news = self._news
        with trio.move_on_at(min(until_s, again_s)):
            await news.wait()
        health.ask_again()
