"""A message's fields and the bytes behind its head, as the message: a reader for each tag.

The counterpart of `encoding`. What doesn't fit is RemoteProtocolError, or an error of the message's
own checks, which `codec` turns into one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, TypeAlias

from gptnode.wire.fields import Fields
from gptnode.wire.messages import (
    Arrived,
    Close,
    Closed,
    ErrorCode,
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

__all__ = ["READERS", "Reader"]

Reader: TypeAlias = Callable[[Fields, memoryview], Message]


def _read_open(fields: Fields, _: memoryview) -> Open:
    return Open(
        model=fields.text("model"),
        fingerprint=fields.text("fingerprint"),
        span=fields.span("span"),
        max_tokens=fields.integer("max_tokens"),
        dtype=fields.text("dtype"),
        feed_key=fields.text("feed_key"),
        embed=fields.flag("embed"),
        head=fields.flag("head"),
        activations=fields.text("activations"),
    )


def _read_opened(fields: Fields, _: memoryview) -> Opened:
    return Opened(
        fingerprint=fields.text("fingerprint"),
        span=fields.span("span"),
        epoch=fields.integer("epoch"),
        max_tokens=fields.integer("max_tokens"),
        max_chunk_tokens=fields.integer("max_chunk_tokens"),
    )


def _read_step(fields: Fields, payload: memoryview) -> Step:
    draw, payload = fields.draw("draw", payload)
    return Step(fields.integer("position"), fields.tensor("hidden", payload), draw)


def _read_stepped(fields: Fields, payload: memoryview) -> Stepped:
    return Stepped(
        position=fields.integer("position"),
        span=fields.span("span"),
        fingerprint=fields.text("fingerprint"),
        epoch=fields.integer("epoch"),
        hidden=fields.tensor("hidden", payload),
        queue_s=fields.seconds("queue_s"),
        compute_s=fields.seconds("compute_s"),
    )


def _read_relay(fields: Fields, payload: memoryview) -> Relay:
    draw, payload = fields.draw("draw", payload)
    return Relay(
        fields.integer("ticket"),
        fields.integer("position"),
        fields.tensor("hidden", payload),
        fields.trail("trail"),
        draw,
    )


def _read_arrived(fields: Fields, payload: memoryview) -> Arrived:
    return Arrived(
        fields.integer("ticket"),
        fields.integer("position"),
        fields.tensor("hidden", payload),
        fields.trail("trail"),
    )


def _read_failure(fields: Fields, _: memoryview) -> Failure:
    try:
        code = ErrorCode(fields.text("code"))
    except ValueError:
        # A code of a newer version still ends the session in order.
        code = ErrorCode.INTERNAL
    return Failure(code, fields.text("message"), fields.seconds("retry_after_s"))


READERS: Final[Mapping[str, Reader]] = MappingProxyType(
    {
        "open": _read_open,
        "opened": _read_opened,
        "step": _read_step,
        "stepped": _read_stepped,
        "truncate": lambda fields, _: Truncate(fields.integer("length")),
        "truncated": lambda fields, _: Truncated(fields.integer("length")),
        "forward": lambda fields, _: Forward(
            fields.integer("ticket"), fields.text("peer_id"), fields.text("feed_key")
        ),
        "forwarding": lambda fields, _: Forwarding(fields.text("refusal")),
        "feed": lambda fields, _: Feed(fields.text("feed_key")),
        "fed": lambda fields, _: Fed(fields.integer("max_chunk_tokens")),
        "relay": _read_relay,
        "relayed": lambda fields, _: Relayed(fields.integer("count")),
        "arrived": _read_arrived,
        "stranded": lambda fields, _: Stranded(fields.integer("ticket"), fields.text("reason")),
        "ping": lambda fields, _: Ping(fields.integer("nonce")),
        "pong": lambda fields, _: Pong(fields.integer("nonce")),
        "close": lambda fields, _: Close(),
        "closed": lambda fields, _: Closed(),
        "failure": _read_failure,
    }
)
"""What reads the message of each tag, from its fields and the bytes behind its head."""
