"""What a server lends to its clients, reserved when a session opens: sessions and cache memory.

Each limit counts twice, for one peer and for all of them together, so that nobody who is let in can
keep the others out. Also the word for no: `Refusal`, which becomes a Failure on the wire.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType

from gptnode.wire.messages import ErrorCode

__all__ = ["KVBudget", "Lent", "Refusal"]

RETRY_BUSY_S = 2.0


class Refusal(Exception):
    """A request that gets a Failure for an answer, which ends the session."""

    def __init__(self, code: ErrorCode, message: str, retry_after_s: float = 0.0) -> None:
        """``message`` is one line for the person at the other end."""
        super().__init__(message)
        self.code = code
        self.message = message
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class Lent:
    """What somebody has now."""

    sessions: int = 0
    n_bytes: int = 0

    def plus(self, sessions: int, n_bytes: int) -> Lent:
        """The same and so much more; negative numbers take away."""
        return Lent(self.sessions + sessions, self.n_bytes + n_bytes)


class KVBudget:
    """How many sessions there may be, and what their caches may reserve together."""

    def __init__(
        self,
        max_bytes: int,
        max_sessions: int,
        *,
        max_peer_bytes: int | None = None,
        max_peer_sessions: int | None = None,
    ) -> None:
        """All limits hold from the opening of a session to its end.

        Args:
            max_bytes: Cache memory of all sessions together.
            max_sessions: How many there may be.
            max_peer_bytes: Cache memory of one peer's sessions; as much as of all when None.
            max_peer_sessions: How many one peer may have; likewise.
        """
        self.max_bytes = max_bytes
        self.max_sessions = max_sessions
        self.max_peer_bytes = _least(max_bytes, max_peer_bytes)
        self.max_peer_sessions = _least(max_sessions, max_peer_sessions)
        self._total = Lent()
        self._by_peer: dict[str, Lent] = {}

    @property
    def total(self) -> Lent:
        """What all peers have together."""
        return self._total

    @property
    def by_peer(self) -> Mapping[str, Lent]:
        """What each peer has; peers without a session are left out."""
        return MappingProxyType(self._by_peer)

    @contextmanager
    def lease(self, n_bytes: int, peer_id: str) -> Iterator[None]:
        """Reserve room for one session's cache.

        Raises:
            Refusal: TOO_LONG where it could never fit, BUSY where it doesn't now.
        """
        self._check(n_bytes, self._by_peer.get(peer_id, Lent()))
        self._lend(peer_id, 1, n_bytes)
        try:
            yield
        finally:
            self._lend(peer_id, -1, -n_bytes)

    def _check(self, n_bytes: int, had: Lent) -> None:
        if n_bytes > self.max_peer_bytes:
            raise Refusal(
                ErrorCode.TOO_LONG,
                f"a context of this length takes {n_bytes >> 20} MiB of cache here, "
                f"one peer may have {self.max_peer_bytes >> 20} MiB",
            )
        if self._total.sessions >= self.max_sessions:
            raise _busy(f"all {self.max_sessions} sessions are in use")
        if self._total.n_bytes + n_bytes > self.max_bytes:
            raise _busy(f"all cache memory is in use by {self._total.sessions} sessions")
        if had.sessions >= self.max_peer_sessions:
            raise _busy(f"this peer has {had.sessions} sessions here already, which is the most")
        if had.n_bytes + n_bytes > self.max_peer_bytes:
            raise _busy(
                f"{had.sessions} other sessions of this peer have its share of the cache memory"
            )

    def _lend(self, peer_id: str, sessions: int, n_bytes: int) -> None:
        self._total = self._total.plus(sessions, n_bytes)
        now = self._by_peer.get(peer_id, Lent()).plus(sessions, n_bytes)
        if now.sessions:
            self._by_peer[peer_id] = now
        else:
            self._by_peer.pop(peer_id, None)


def _least(in_all: int, of_one: int | None) -> int:
    return in_all if of_one is None else min(in_all, of_one)


def _busy(message: str) -> Refusal:
    return Refusal(ErrorCode.BUSY, message, RETRY_BUSY_S)
