"""Those at the door: who hasn't said yet who it is, and who was turned away lately.

Kept so that a person can see them and let somebody in. Bounded, as strangers can make as many
identities as they like. Knows ids, addresses and times.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["MAX_REFUSED", "RefusedPeer", "RefusedPeers", "Stranger"]

MAX_REFUSED = 100

log = logging.getLogger("gptnode.net")


@dataclass(frozen=True, slots=True)
class Stranger:
    """A connection in the middle of its handshake; ``since_s`` is seconds since the epoch."""

    addr: str
    since_s: float


@dataclass(frozen=True, slots=True)
class RefusedPeer:
    """A peer that proved its id and isn't on the list; times are seconds since the epoch."""

    peer_id: str
    addr: str
    count: int
    first_s: float
    last_s: float


class RefusedPeers:
    """The peers refused last, each once; the one that was silent longest gives way."""

    def __init__(
        self, max_peers: int = MAX_REFUSED, *, clock: Callable[[], float] = time.time
    ) -> None:
        """Nobody was refused yet."""
        self.total = 0  # times, so far
        self._max_peers = max_peers
        self._clock = clock
        self._peers: dict[str, RefusedPeer] = {}  # the latest last

    def note(self, peer_id: str, addr: str) -> RefusedPeer:
        """``peer_id`` was refused at ``addr`` now; what is known of it."""
        self.total += 1
        now_s = self._clock()
        known = self._peers.pop(peer_id, None)
        count, first_s = (known.count, known.first_s) if known is not None else (0, now_s)
        found = self._peers[peer_id] = RefusedPeer(peer_id, addr, count + 1, first_s, now_s)
        while len(self._peers) > self._max_peers:
            del self._peers[next(iter(self._peers))]
        # Who keeps knocking must not fill the log.
        often = found.count not in (1, 10, 100) and found.count % 1000 != 0
        level = logging.DEBUG if often else logging.INFO
        log.log(level, "refused %s from %s: not in the BlocksMap (%d)", peer_id, addr, found.count)
        return found

    def forget(self, peer_id: str) -> None:
        """It was let in."""
        self._peers.pop(peer_id, None)

    def latest_first(self) -> tuple[RefusedPeer, ...]:
        """All that are remembered."""
        return tuple(reversed(self._peers.values()))
