"""ConnectionPair: both machines of a session against each other, without a socket."""

from __future__ import annotations

from gptnode.span import Span
from gptnode.wire.connection import ClientConnection, ServerConnection
from gptnode.wire.limits import DEFAULT_LIMITS, Limits
from gptnode.wire.messages import Message, Open, Opened, Step, Stepped, WireTensor

SPAN = Span(0, 4)
OPEN = Open(model="tiny", fingerprint="f" * 32, span=SPAN, max_tokens=128, dtype="f32")
OPENED = Opened(fingerprint="f" * 32, span=SPAN, epoch=7, max_tokens=128, max_chunk_tokens=16)
LIMIT_BYTES = 4096


def tensor(n: int = 4, *, fill: bytes = b"\0") -> WireTensor:
    """An f32 tensor of (1, 1, n)."""
    return WireTensor("f32", (1, 1, n), fill * (4 * n))


def step(position: int = 0, n: int = 4) -> Step:
    return Step(position, tensor(n))


def stepped(position: int = 0, n: int = 4) -> Stepped:
    return Stepped(position, SPAN, "f" * 32, 7, tensor(n), 0.0, 0.5)


class ConnectionPair:
    """What one side sends, the other has received when ``client`` or ``server`` return."""

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        self.client = ClientConnection(limits)
        self.server = ServerConnection(limits)

    def client_says(self, *messages: Message) -> list[Message]:
        data = b"".join(b"".join(self.client.send(message)) for message in messages)
        return list(self.server.receive(data))

    def server_says(self, *messages: Message) -> list[Message]:
        data = b"".join(b"".join(self.server.send(message)) for message in messages)
        return list(self.client.receive(data))


def opened_pair(limits: Limits = DEFAULT_LIMITS) -> ConnectionPair:
    """A pair in the state OPEN, with payloads of up to LIMIT_BYTES let in."""
    pair = ConnectionPair(limits)
    pair.client_says(OPEN)
    pair.server.raise_limit(LIMIT_BYTES)
    pair.server_says(OPENED)
    pair.client.raise_limit(LIMIT_BYTES)
    return pair
