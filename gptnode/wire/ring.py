"""The messages of ring routes, as frozen dataclasses: hops that hand on to each other.

A ring is a row of sessions of one client. Each has a feed key that the client made up; a server is
told the next peer and its session's key (Forward), presents the key there (Feed), and from then on
hands on what comes to it as Relay. The last one sends its client what came out, as Arrived.
Specification: docs/reference/wire-protocol.md.
"""

from __future__ import annotations

from dataclasses import dataclass

from gptnode.errors import LocalProtocolError
from gptnode.span import Span
from gptnode.wire.checks import (
    MAX_TOKENS,
    check_integer,
    check_name,
    check_seconds,
    check_span,
    clean_text,
)
from gptnode.wire.draw import Draw
from gptnode.wire.tensor import WireTensor

__all__ = [
    "MAX_TRAIL",
    "Arrived",
    "Fed",
    "Feed",
    "Forward",
    "Forwarding",
    "Relay",
    "Relayed",
    "Stranded",
    "Trace",
    "check_draw",
    "check_feed_key",
]

MAX_TRAIL = 64
"""Hops of a ring at most."""
_MAX_ID_CHARS = 128
_KEY_CHARS = 64
_MAX_REASON_CHARS = 300


def check_feed_key(value: object) -> None:
    """1 to 64 printable characters, else LocalProtocolError."""
    check_name("feed_key", value, longest=_KEY_CHARS)


def check_draw(value: object) -> None:
    """A Draw, which has checked itself, or None; else LocalProtocolError."""
    if value is not None and type(value) is not Draw:
        raise LocalProtocolError(f"draw must be a draw or nothing, not {type(value).__name__}")


@dataclass(frozen=True, slots=True)
class Trace:
    """One hop's word on what it did for a Relay: which blocks, in which life, and the time."""

    span: Span
    epoch: int
    queue_s: float
    compute_s: float

    def __post_init__(self) -> None:
        """Check every field."""
        check_span("trail.span", self.span)
        check_integer("trail.epoch", self.epoch)
        check_seconds("trail.queue_s", self.queue_s)
        check_seconds("trail.compute_s", self.compute_s)


@dataclass(frozen=True, slots=True)
class Forward:
    """Client to server: hand on Relays to the session at ``peer_id`` that has ``feed_key``.

    Replaces what was said before. Only the server's own map says where that peer is. ``ticket`` is
    the client's number for it. Both texts are "" where the session is to hand on no more.
    """

    ticket: int
    peer_id: str
    feed_key: str

    def __post_init__(self) -> None:
        """Check every field."""
        check_integer("ticket", self.ticket, least=1)
        if (self.peer_id, self.feed_key) != ("", ""):
            check_name("peer_id", self.peer_id, longest=_MAX_ID_CHARS)
            check_feed_key(self.feed_key)


@dataclass(frozen=True, slots=True)
class Forwarding:
    """Server to client: the next peer is reached and the key was right there, or why not."""

    refusal: str = ""

    def __post_init__(self) -> None:
        """Check and clean the field."""
        object.__setattr__(self, "refusal", _cleaned("refusal", self.refusal))


@dataclass(frozen=True, slots=True)
class Feed:
    """Server to server, first: let me feed the session that was opened with this key."""

    feed_key: str

    def __post_init__(self) -> None:
        """Check every field."""
        check_feed_key(self.feed_key)


@dataclass(frozen=True, slots=True)
class Fed:
    """Server to server: Relays may come, with tensors of up to ``max_chunk_tokens`` tokens."""

    max_chunk_tokens: int

    def __post_init__(self) -> None:
        """Check every field."""
        check_integer("max_chunk_tokens", self.max_chunk_tokens, least=1, most=MAX_TOKENS)


@dataclass(frozen=True, slots=True)
class Relay:
    """Client to the first server, server to server: compute, and hand on what comes out.

    ``ticket`` is the client's number for the step; the other fields are as in Step. ``trail`` says
    which hops it went through, in order. ``draw`` is handed on to the one with the head.
    """

    ticket: int
    position: int
    hidden: WireTensor
    trail: tuple[Trace, ...] = ()
    draw: Draw | None = None

    def __post_init__(self) -> None:
        """Check every field."""
        _check_travelling(self)
        check_draw(self.draw)


@dataclass(frozen=True, slots=True)
class Relayed:
    """The ``count`` oldest Relays are done with: there is room for as many more.

    No reply to each: a server says it when half of the room is used up.
    """

    count: int

    def __post_init__(self) -> None:
        """Check every field."""
        check_integer("count", self.count, least=1, most=MAX_TOKENS)


@dataclass(frozen=True, slots=True)
class Arrived:
    """The last server to its client, unasked: what came out of the ring for ``ticket``."""

    ticket: int
    position: int
    hidden: WireTensor
    trail: tuple[Trace, ...]

    def __post_init__(self) -> None:
        """Check every field."""
        _check_travelling(self)


@dataclass(frozen=True, slots=True)
class Stranded:
    """A server to its client, unasked: a Relay ends here, or a Forward; the session lives on.

    ``ticket`` says which. A Forward ends when the next peer can't be reached any more.
    """

    ticket: int
    reason: str

    def __post_init__(self) -> None:
        """Check every field and clean the reason."""
        check_integer("ticket", self.ticket, least=1)
        object.__setattr__(self, "reason", _cleaned("reason", self.reason))


def _cleaned(field: str, value: object) -> str:
    if type(value) is not str:
        raise LocalProtocolError(f"{field} must be text, not {type(value).__name__}")
    return clean_text(value, longest=_MAX_REASON_CHARS)


def _check_travelling(message: Relay | Arrived) -> None:
    check_integer("ticket", message.ticket, least=1)
    check_integer("position", message.position, most=MAX_TOKENS)
    if type(message.hidden) is not WireTensor:
        raise LocalProtocolError(f"hidden must be a tensor, not {type(message.hidden).__name__}")
    if type(message.trail) is not tuple or len(message.trail) > MAX_TRAIL:
        raise LocalProtocolError(f"trail must be at most {MAX_TRAIL} hops")
    if not all(type(trace) is Trace for trace in message.trail):
        raise LocalProtocolError("trail must hold traces alone")
