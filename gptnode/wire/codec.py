"""Messages to the two parts of a frame and back: a head in msgpack, and a tensor's bytes behind it.

The head is one map of text keys with the message's tag under "type". A tensor's bytes aren't part
of it: sent, they are handed on uncopied; received, they stand in a buffer of their own, aligned,
which the tensor code can use as it is. Fields that this version doesn't know are passed over, so
that a newer peer may add some; missing ones are errors. Knows neither streams nor states.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import msgpack

from gptnode.errors import LocalProtocolError, RemoteProtocolError
from gptnode.span import Span
from gptnode.wire.fields import Fields, unpack
from gptnode.wire.messages import (
    Arrived,
    Close,
    Closed,
    Draw,
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
    Trace,
    Truncate,
    Truncated,
    WireTensor,
)

__all__ = ["decode", "encode", "tag_of"]

Payload: TypeAlias = bytes | memoryview

_EMPTY = b""

_TAGS: dict[type[Message], str] = {
    Open: "open",
    Opened: "opened",
    Step: "step",
    Stepped: "stepped",
    Truncate: "truncate",
    Truncated: "truncated",
    Forward: "forward",
    Forwarding: "forwarding",
    Feed: "feed",
    Fed: "fed",
    Relay: "relay",
    Relayed: "relayed",
    Arrived: "arrived",
    Stranded: "stranded",
    Ping: "ping",
    Pong: "pong",
    Close: "close",
    Closed: "closed",
    Failure: "failure",
}


def tag_of(message: Message | type[Message]) -> str:
    """The name that a message has on the wire and in errors: "open", "stepped" ..."""
    return _TAGS[message if isinstance(message, type) else type(message)]


def encode(message: Message) -> tuple[bytes, Payload]:
    """Head and payload of the frame that carries ``message``; the payload is not copied."""
    fields, payload = _fields_of(message)
    return msgpack.packb({"type": tag_of(message), **fields}, use_bin_type=True), payload


def decode(head: bytes, payload: memoryview) -> Message:
    """The message in a frame.

    Raises:
        RemoteProtocolError: whatever else it is.
    """
    fields = Fields("message", unpack(head))
    tag = fields.text("type")
    read = _READERS.get(tag)
    if read is None:
        raise RemoteProtocolError(f"the peer sent a message of a type unknown here: {tag[:40]!r}")
    try:
        fields = Fields(tag, fields.values)
        message = read(fields, payload)
    except (LocalProtocolError, ValueError) as error:
        # The constructors check values; what is this node's fault there is the peer's here.
        raise RemoteProtocolError(f"the peer sent a bad {tag} message: {error}") from None
    if len(payload) and not isinstance(message, Step | Stepped | Relay | Arrived):
        raise RemoteProtocolError(f"the peer sent {len(payload)} bytes behind a {tag} message")
    return message


def _fields_of(message: Message) -> tuple[dict[str, object], Payload]:
    """The head's fields but for the type, and the payload."""
    match message:
        case Open():
            return {
                "model": message.model,
                "fingerprint": message.fingerprint,
                "span": _span_out(message.span),
                "max_tokens": message.max_tokens,
                "dtype": message.dtype,
                "feed_key": message.feed_key,
                "embed": message.embed,
                "head": message.head,
                "activations": message.activations,
            }, _EMPTY
        case Opened():
            return {
                "fingerprint": message.fingerprint,
                "span": _span_out(message.span),
                "epoch": message.epoch,
                "max_tokens": message.max_tokens,
                "max_chunk_tokens": message.max_chunk_tokens,
            }, _EMPTY
        case Step():
            return {
                "position": message.position,
                "hidden": _tensor_out(message.hidden),
                "draw": _draw_out(message.draw),
            }, _payload_out(message.hidden, message.draw)
        case Stepped():
            return {
                "position": message.position,
                "span": _span_out(message.span),
                "fingerprint": message.fingerprint,
                "epoch": message.epoch,
                "hidden": _tensor_out(message.hidden),
                "queue_s": message.queue_s,
                "compute_s": message.compute_s,
            }, message.hidden.data
        case Truncate() | Truncated():
            return {"length": message.length}, _EMPTY
        case Forward():
            return {
                "ticket": message.ticket,
                "peer_id": message.peer_id,
                "feed_key": message.feed_key,
            }, _EMPTY
        case Feed():
            return {"feed_key": message.feed_key}, _EMPTY
        case Fed():
            return {"max_chunk_tokens": message.max_chunk_tokens}, _EMPTY
        case Relay():
            return {
                **_travelling_out(message),
                "draw": _draw_out(message.draw),
            }, _payload_out(message.hidden, message.draw)
        case Arrived():
            return _travelling_out(message), message.hidden.data
        case Relayed():
            return {"count": message.count}, _EMPTY
        case Stranded():
            return {"ticket": message.ticket, "reason": message.reason}, _EMPTY
        case Ping() | Pong():
            return {"nonce": message.nonce}, _EMPTY
        case Forwarding():
            return {"refusal": message.refusal}, _EMPTY
        case Close() | Closed():
            return {}, _EMPTY
        case Failure():
            return {
                "code": message.code.value,
                "message": message.message,
                "retry_after_s": message.retry_after_s,
            }, _EMPTY


def _span_out(span: Span) -> list[int]:
    return [span.start, span.stop]


def _tensor_out(tensor: WireTensor) -> dict[str, object]:
    return {"dtype": tensor.dtype, "shape": list(tensor.shape)}


def _payload_out(tensor: WireTensor, draw: Draw | None) -> Payload:
    """The tensor's bytes, uncopied unless ids follow them."""
    if draw is None or draw.seen is None:
        return tensor.data
    return b"".join((tensor.data, draw.seen.data))


def _draw_out(draw: Draw | None) -> dict[str, object] | None:
    if draw is None:
        return None
    return {
        "temperature": draw.temperature,
        "top_k": draw.top_k,
        "top_p": draw.top_p,
        "min_p": draw.min_p,
        "repetition_penalty": draw.repetition_penalty,
        "seed": draw.seed,
        "drawn": draw.drawn,
        "guess": list(draw.guess),
        "seen": draw.seen.shape[0] if draw.seen is not None else 0,
    }


def _travelling_out(message: Relay | Arrived) -> dict[str, object]:
    return {
        "ticket": message.ticket,
        "position": message.position,
        "hidden": _tensor_out(message.hidden),
        "trail": [_trace_out(trace) for trace in message.trail],
    }


def _trace_out(trace: Trace) -> dict[str, object]:
    return {
        "span": _span_out(trace.span),
        "epoch": trace.epoch,
        "queue_s": trace.queue_s,
        "compute_s": trace.compute_s,
    }


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


_READERS: dict[str, Callable[[Fields, memoryview], Message]] = {
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
