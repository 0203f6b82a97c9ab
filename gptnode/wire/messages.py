"""The messages of the gptnode protocol, version 1, as frozen dataclasses.

A message checks itself when it is made and raises LocalProtocolError: one that exists may be sent.
Knows nothing of bytes on a stream (frames.py), of how fields are encoded (codec.py), or of which
message may follow which (connection.py). Specification: docs/reference/wire-protocol.md.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TypeAlias

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
from gptnode.wire.ring import (
    Arrived,
    Fed,
    Feed,
    Forward,
    Forwarding,
    Relay,
    Relayed,
    Stranded,
    Trace,
    check_draw,
    check_feed_key,
)
from gptnode.wire.tensor import WireTensor

__all__ = [
    "ACTIVATIONS",
    "MODEL_DTYPES",
    "Arrived",
    "Close",
    "Closed",
    "Draw",
    "ErrorCode",
    "Failure",
    "Fed",
    "Feed",
    "Forward",
    "Forwarding",
    "Message",
    "Open",
    "Opened",
    "Ping",
    "Pong",
    "Relay",
    "Relayed",
    "Reply",
    "Request",
    "Step",
    "Stepped",
    "Stranded",
    "Trace",
    "Truncate",
    "Truncated",
    "WireTensor",
]

MODEL_DTYPES = ("bf16", "f16", "f32", "int8", "int4")
"""What a model may be computed in; hidden states of the last two are bf16."""
ACTIVATIONS = ("own", "int8")
"""How hidden states travel: in their own dtype, or in 8 bit with a scale for each row."""
_SCALABLE = ("bf16", "int8", "int4")
_MAX_NAME_CHARS = 256
_MAX_ID_CHARS = 128
_MAX_FAILURE_CHARS = 300


class ErrorCode(enum.StrEnum):
    """Why a session ended with Failure; what a client should do stands beside each."""

    REFUSED = "refused"  # ask the peer's owner to be let in, or take another peer
    BUSY = "busy"  # try again after retry_after_s
    LOADING = "loading"  # try again after retry_after_s
    NO_MODEL = "no_model"  # the peer doesn't serve this model
    NO_SPAN = "no_span"  # the peer doesn't serve all of these blocks
    MISMATCH = "mismatch"  # other weights, other configuration or another dtype
    BAD_POSITION = "bad_position"  # the step doesn't continue the session's cache
    TOO_LONG = "too_long"  # more tokens than the session was opened for, or than a chunk may have
    BAD_TENSOR = "bad_tensor"  # wrong shape or dtype, or numbers that aren't finite
    PROTOCOL = "protocol"  # the other side broke the protocol
    INTERNAL = "internal"  # the sender's own fault
    GOING_AWAY = "going_away"  # the sender shuts down, take another peer


@dataclass(frozen=True, slots=True)
class Open:
    """Client to server, first: take me in for a session over ``span`` of this very model.

    ``fingerprint`` names weights and configuration, ``max_tokens`` the longest context that the
    session will hold, ``dtype`` (one of MODEL_DTYPES) what the model is to be computed in.
    Whoever presents ``feed_key`` may feed the session with a ring's Relays; nobody, if it is "".
    With ``embed`` the session is given ids instead of hidden states, for a span that begins with
    block 0; with ``head`` it gives ids, for one that ends with the model's last. ``activations``
    (one of ACTIVATIONS) says how hidden states travel, both ways; int8 is for those in bf16.
    """

    model: str
    fingerprint: str
    span: Span
    max_tokens: int
    dtype: str
    feed_key: str = ""
    embed: bool = False
    head: bool = False
    activations: str = "own"

    def __post_init__(self) -> None:
        """Check every field."""
        check_name("model", self.model, longest=_MAX_NAME_CHARS)
        check_name("fingerprint", self.fingerprint, longest=_MAX_ID_CHARS)
        check_span("span", self.span)
        check_integer("max_tokens", self.max_tokens, least=1, most=MAX_TOKENS)
        if type(self.dtype) is not str or self.dtype not in MODEL_DTYPES:
            raise LocalProtocolError(f"dtype must be one of {', '.join(MODEL_DTYPES)}")
        if self.feed_key != "":
            check_feed_key(self.feed_key)
        if type(self.embed) is not bool or type(self.head) is not bool:
            raise LocalProtocolError("embed and head must be true or false")
        if type(self.activations) is not str or self.activations not in ACTIVATIONS:
            raise LocalProtocolError(f"activations must be one of {', '.join(ACTIVATIONS)}")
        if self.activations != "own" and self.dtype not in _SCALABLE:
            raise LocalProtocolError(f"activations of {self.dtype} travel as they are")


@dataclass(frozen=True, slots=True)
class Opened:
    """Server to client: a cache for ``max_tokens`` is reserved.

    ``epoch`` is one number for the life of this cache, so that a restarted server can't be taken
    for the old one; a Step may carry at most ``max_chunk_tokens``.
    """

    fingerprint: str
    span: Span
    epoch: int
    max_tokens: int
    max_chunk_tokens: int

    def __post_init__(self) -> None:
        """Check every field."""
        check_name("fingerprint", self.fingerprint, longest=_MAX_ID_CHARS)
        check_span("span", self.span)
        check_integer("epoch", self.epoch)
        check_integer("max_tokens", self.max_tokens, least=1, most=MAX_TOKENS)
        check_integer("max_chunk_tokens", self.max_chunk_tokens, least=1, most=MAX_TOKENS)


@dataclass(frozen=True, slots=True)
class Step:
    """Client to server: ``hidden`` (B, T, D), whose first token stands at ``position``.

    Idempotent by session and position: a step below the cache's length replaces what was there.
    A session with ``embed`` takes ids in its place, (1, T) i32. ``draw`` is for one with ``head``:
    None where no token is wanted.
    """

    position: int
    hidden: WireTensor
    draw: Draw | None = None

    def __post_init__(self) -> None:
        """Check every field."""
        check_integer("position", self.position, most=MAX_TOKENS)
        _check_tensor("hidden", self.hidden)
        check_draw(self.draw)


@dataclass(frozen=True, slots=True)
class Stepped:
    """Server to client: what the span makes of a Step, and the time that took.

    Of a session with ``head`` that is ids, (1, n) i32: those that were drawn, or -1 if none was
    wanted.
    ``queue_s`` is the time between arrival and start of the computation, ``compute_s`` that of
    the computation. Position, span, fingerprint and epoch say what was computed, to be compared.
    """

    position: int
    span: Span
    fingerprint: str
    epoch: int
    hidden: WireTensor
    queue_s: float
    compute_s: float

    def __post_init__(self) -> None:
        """Check every field."""
        check_integer("position", self.position, most=MAX_TOKENS)
        check_span("span", self.span)
        check_name("fingerprint", self.fingerprint, longest=_MAX_ID_CHARS)
        check_integer("epoch", self.epoch)
        _check_tensor("hidden", self.hidden)
        check_seconds("queue_s", self.queue_s)
        check_seconds("compute_s", self.compute_s)


@dataclass(frozen=True, slots=True)
class Truncate:
    """Client to server: forget all tokens from ``length`` on."""

    length: int

    def __post_init__(self) -> None:
        """Check every field."""
        check_integer("length", self.length, most=MAX_TOKENS)


@dataclass(frozen=True, slots=True)
class Truncated:
    """Server to client: the cache now holds ``length`` tokens."""

    length: int

    def __post_init__(self) -> None:
        """Check every field."""
        check_integer("length", self.length, most=MAX_TOKENS)


@dataclass(frozen=True, slots=True)
class Ping:
    """Client to server: are you there?"""

    nonce: int

    def __post_init__(self) -> None:
        """Check every field."""
        check_integer("nonce", self.nonce)


@dataclass(frozen=True, slots=True)
class Pong:
    """Server to client: yes, to the Ping with this nonce."""

    nonce: int

    def __post_init__(self) -> None:
        """Check every field."""
        check_integer("nonce", self.nonce)


@dataclass(frozen=True, slots=True)
class Close:
    """Client to server: this session is over, replies that are still due aren't wanted."""


@dataclass(frozen=True, slots=True)
class Closed:
    """Server to client: it is; the only clean end."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Either to the other: this session is over, and why.

    ``message`` is for people: it is cleaned of all that can't be printed and cut to 300
    characters, whoever makes the Failure. ``retry_after_s`` counts with BUSY and LOADING.
    """

    code: ErrorCode
    message: str
    retry_after_s: float = 0.0

    def __post_init__(self) -> None:
        """Check every field and clean the message."""
        if type(self.code) is not ErrorCode:
            raise LocalProtocolError("code must be one of ErrorCode")
        if type(self.message) is not str:
            raise LocalProtocolError(f"message must be text, not {type(self.message).__name__}")
        object.__setattr__(self, "message", clean_text(self.message, longest=_MAX_FAILURE_CHARS))
        check_seconds("retry_after_s", self.retry_after_s)


Request: TypeAlias = Open | Step | Truncate | Forward | Feed
Reply: TypeAlias = Opened | Stepped | Truncated | Forwarding | Fed
Message: TypeAlias = (
    Request | Reply | Relay | Relayed | Arrived | Stranded | Ping | Pong | Close | Closed | Failure
)


def _check_tensor(field: str, value: object) -> None:
    """``value`` is a WireTensor, which has checked itself; else LocalProtocolError."""
    if type(value) is not WireTensor:
        raise LocalProtocolError(f"{field} must be a tensor, not {type(value).__name__}")
