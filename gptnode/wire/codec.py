"""Messages to the two parts of a frame and back: a head in msgpack, and a tensor's bytes behind it.

The head is one map of text keys with the message's tag under "type". A tensor's bytes aren't part
of it: sent, they are handed on uncopied; received, they stand in a buffer of their own, aligned,
which the tensor code can use as it is. Fields that this version doesn't know are passed over, so
that a newer peer may add some; missing ones are errors. Knows neither streams nor states; which
fields a message has is known to `encoding` and `decoding`.
"""

from __future__ import annotations

import msgpack

from gptnode.errors import LocalProtocolError, RemoteProtocolError
from gptnode.wire.decoding import READERS
from gptnode.wire.encoding import Payload, fields_of
from gptnode.wire.fields import Fields, unpack
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

__all__ = ["decode", "encode", "tag_of"]

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
    fields, payload = fields_of(message)
    return msgpack.packb({"type": tag_of(message), **fields}, use_bin_type=True), payload


def decode(head: bytes, payload: memoryview) -> Message:
    """The message in a frame.

    Raises:
        RemoteProtocolError: whatever else it is.
    """
    fields = Fields("message", unpack(head))
    tag = fields.text("type")
    read = READERS.get(tag)
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
