"""What a message says, as the fields of its head and the bytes behind it.

The counterpart of `decoding`. Knows which fields each message has, not how a head is packed.
"""

from __future__ import annotations

from typing import TypeAlias

from gptnode.span import Span
from gptnode.wire.messages import (
    Arrived,
    Close,
    Closed,
    Draw,
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

__all__ = ["Payload", "fields_of"]

Payload: TypeAlias = bytes | memoryview

_EMPTY = b""


def fields_of(message: Message) -> tuple[dict[str, object], Payload]:
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
