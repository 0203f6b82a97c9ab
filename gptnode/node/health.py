"""What a client remembers of its peers' troubles, to choose its next route by."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

import trio

from gptnode.errors import GptNodeError, PeerBusyError

__all__ = ["PeerHealth", "Trouble", "TroubleKind"]

DOWN_S = 15.0
SLOW_S = 60.0
MAX_LOSSES = 3


class TroubleKind(Enum):
    """How a peer failed, which decides how soon it is asked again."""

    LOST = "lost"  # a running session broke: it may have been restarted and be back at once
    BUSY = "busy"  # it said when to come back
    DOWN = "down"  # it could not be dialled, or refused
    SLOW = "slow"  # it works, though much slower than it used to: better than none
    WRONG = "wrong"  # its answers aren't those of others: worse than none, until a person says so


@dataclass(frozen=True, slots=True)
class Trouble:
    """The last failure of a peer; until ``until_s`` (trio's clock) others are preferred."""

    kind: TroubleKind
    cause: GptNodeError
    until_s: float


class PeerHealth:
    """Troubles by peer id. A peer without one is believed to be well.

    Several contexts may share what they know. How often a peer was lost each of them counts for
    itself: one crash ends the sessions of all, and is one loss.
    """

    def __init__(self, shared: PeerHealth | None = None) -> None:
        """All peers are well, or as ``shared`` knows them, now and later."""
        self._troubles: dict[str, Trouble] = shared._troubles if shared is not None else {}
        self._losses: dict[str, int] = {}

    def note(
        self, peer_id: str, cause: GptNodeError, *, was_open: bool, slow: bool = False
    ) -> Trouble:
        """Remember that ``peer_id`` failed; ``was_open``: in a running session; ``slow``: alive."""
        now_s = trio.current_time()
        before = self.trouble(peer_id)
        if before is not None and before.kind is TroubleKind.WRONG:
            return before
        losses = (self._losses.get(peer_id, 0) if before else 0) + was_open
        self._losses[peer_id] = losses
        if slow:
            trouble = Trouble(TroubleKind.SLOW, cause, now_s + SLOW_S)
        elif isinstance(cause, PeerBusyError):
            trouble = Trouble(TroubleKind.BUSY, cause, now_s + cause.retry_after_s)
        elif was_open and losses < MAX_LOSSES:
            trouble = Trouble(TroubleKind.LOST, cause, now_s + DOWN_S)
        else:
            trouble = Trouble(TroubleKind.DOWN, cause, now_s + DOWN_S)
        self._troubles[peer_id] = trouble
        return trouble

    def distrust(self, peer_id: str, cause: GptNodeError) -> None:
        """Never ask ``peer_id`` again, unless a person forgives it."""
        self._troubles[peer_id] = Trouble(TroubleKind.WRONG, cause, math.inf)

    def trouble(self, peer_id: str) -> Trouble | None:
        """The trouble that still counts against ``peer_id``."""
        trouble = self._troubles.get(peer_id)
        return trouble if trouble is not None and trouble.until_s > trio.current_time() else None

    def avoid(self, *kinds: TroubleKind) -> frozenset[str]:
        """The peers that are in trouble of one of ``kinds`` now."""
        return frozenset(
            peer_id
            for peer_id in self._troubles
            if (trouble := self.trouble(peer_id)) is not None and trouble.kind in kinds
        )

    def forgive(self, peer_id: str) -> None:
        """It works again, or a person says so."""
        self._troubles.pop(peer_id, None)

    def ask_again(self) -> None:
        """Forgive those who were lost or down: somebody waits for any of them."""
        for peer_id in self.avoid(TroubleKind.LOST, TroubleKind.DOWN):
            self.forgive(peer_id)

    def forgive_all(self, *, even_wrong: bool = False) -> None:
        """Ask every peer anew: a person tries again.

        ``even_wrong``: also those whose answers were wrong, as that person asks for it.
        """
        spared = frozenset() if even_wrong else self.avoid(TroubleKind.WRONG)
        for peer_id in self._troubles.keys() - spared:
            self.forgive(peer_id)
