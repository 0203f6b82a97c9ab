"""The states of a session and the tables of which message leads from which to which.

::

    IDLE --Open--> OPENING --Opened--> OPEN --Close--> CLOSING --Closed--> CLOSED
    IDLE --Feed--> OPENING --Fed--> FEEDING --Close--> CLOSING --Closed--> CLOSED
      any of those but the last --Failure--> FAILED
      any of those but the last --bytes against the protocol--> BROKEN --Failure, sent--> FAILED

Close may also come in IDLE and OPENING. A pair that isn't in a table is a violation.
"""

from __future__ import annotations

import enum
from types import MappingProxyType
from typing import Final, TypeAlias

from gptnode.wire.messages import (
    Arrived,
    Close,
    Closed,
    Failure,
    Fed,
    Feed,
    Forward,
    Forwarding,
    Message,
    Open,
    Opened,
    Ping,
    Pong,
    Relay,
    Relayed,
    Step,
    Stepped,
    Stranded,
    Truncate,
    Truncated,
)

__all__ = [
    "CLIENT_RECEIVES",
    "CLIENT_SENDS",
    "ENDED",
    "REPLIES",
    "REPLY_OF",
    "SERVER_RECEIVES",
    "SERVER_SENDS",
    "State",
    "Transitions",
]


class State(enum.Enum):
    """Where a session stands, as seen by one side."""

    IDLE = "idle"
    OPENING = "opening"
    OPEN = "open"
    FEEDING = "feeding"
    CLOSING = "closing"
    CLOSED = "closed"
    FAILED = "failed"
    BROKEN = "broken"


_IDLE, _OPENING, _OPEN, _FEEDING = State.IDLE, State.OPENING, State.OPEN, State.FEEDING
_CLOSING, _CLOSED, _FAILED, _BROKEN = State.CLOSING, State.CLOSED, State.FAILED, State.BROKEN
ENDED = frozenset({_CLOSED, _FAILED, _BROKEN})

Transitions: TypeAlias = MappingProxyType[tuple[State, type[Message]], State]

SERVER_RECEIVES: Final[Transitions] = MappingProxyType(
    {
        (_IDLE, Open): _OPENING,
        (_IDLE, Feed): _OPENING,
        (_IDLE, Close): _CLOSING,
        (_IDLE, Failure): _FAILED,
        (_OPENING, Ping): _OPENING,
        (_OPENING, Close): _CLOSING,
        (_OPENING, Failure): _FAILED,
        (_OPEN, Step): _OPEN,
        (_OPEN, Truncate): _OPEN,
        (_OPEN, Forward): _OPEN,
        (_OPEN, Relay): _OPEN,
        (_OPEN, Ping): _OPEN,
        (_OPEN, Close): _CLOSING,
        (_OPEN, Failure): _FAILED,
        (_FEEDING, Relay): _FEEDING,
        (_FEEDING, Ping): _FEEDING,
        (_FEEDING, Close): _CLOSING,
        (_FEEDING, Failure): _FAILED,
        (_CLOSING, Failure): _FAILED,
    }
)
CLIENT_SENDS: Final[Transitions] = MappingProxyType(
    {**SERVER_RECEIVES, (_BROKEN, Failure): _FAILED}
)
_SERVER_SAYS = {
    (_IDLE, Failure): _FAILED,
    (_OPENING, Opened): _OPEN,
    (_OPENING, Fed): _FEEDING,
    (_OPENING, Pong): _OPENING,
    (_OPENING, Failure): _FAILED,
    (_OPEN, Stepped): _OPEN,
    (_OPEN, Truncated): _OPEN,
    (_OPEN, Forwarding): _OPEN,
    (_OPEN, Relayed): _OPEN,
    (_OPEN, Arrived): _OPEN,
    (_OPEN, Stranded): _OPEN,
    (_OPEN, Pong): _OPEN,
    (_OPEN, Failure): _FAILED,
    (_FEEDING, Relayed): _FEEDING,
    (_FEEDING, Pong): _FEEDING,
    (_FEEDING, Failure): _FAILED,
    (_CLOSING, Closed): _CLOSED,
    (_CLOSING, Failure): _FAILED,
}
SERVER_SENDS: Final[Transitions] = MappingProxyType({**_SERVER_SAYS, (_BROKEN, Failure): _FAILED})
CLIENT_RECEIVES: Final[Transitions] = MappingProxyType(
    {
        **_SERVER_SAYS,
        # These may have been under way when the client said Close.
        (_CLOSING, Opened): _CLOSING,
        (_CLOSING, Stepped): _CLOSING,
        (_CLOSING, Truncated): _CLOSING,
        (_CLOSING, Forwarding): _CLOSING,
        (_CLOSING, Fed): _CLOSING,
        (_CLOSING, Relayed): _CLOSING,
        (_CLOSING, Arrived): _CLOSING,
        (_CLOSING, Stranded): _CLOSING,
        (_CLOSING, Pong): _CLOSING,
    }
)

REPLY_OF: Final = MappingProxyType(
    {
        Open: Opened,
        Step: Stepped,
        Truncate: Truncated,
        Forward: Forwarding,
        Feed: Fed,
    }
)
REPLIES: Final = frozenset(REPLY_OF.values())
