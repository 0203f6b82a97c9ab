"""The state machines of a session's two sides: which message may follow which, and how many.

One connection is one session. It turns messages into buffers to write (``send``) and bytes read
into messages (``receive``), and does neither reading nor writing: it knows no socket and no clock.

Requests (those with a reply, see states.REPLY_OF) are answered in order, Pings in order among
themselves; Close makes the replies that are still due unwanted. Relays have no replies: a server
says now and then for how many more it has room. Of what comes unasked, Arrived is let in as often
as this side said that it expects one. A violation by the peer is a RemoteProtocolError, one by this
node a LocalProtocolError, which sends nothing and changes nothing.
"""

from __future__ import annotations

import abc
from collections import deque
from collections.abc import Iterator

from gptnode.errors import LocalProtocolError, RemoteProtocolError, StreamLostError
from gptnode.wire.codec import decode, encode, tag_of
from gptnode.wire.frames import FrameDecoder, encode_frame
from gptnode.wire.limits import DEFAULT_LIMITS, Limits
from gptnode.wire.messages import Arrived, Close, Message, Ping, Pong, Relay, Relayed
from gptnode.wire.states import (
    CLIENT_RECEIVES,
    CLIENT_SENDS,
    ENDED,
    REPLIES,
    REPLY_OF,
    SERVER_RECEIVES,
    SERVER_SENDS,
    State,
    Transitions,
)

__all__ = ["ClientConnection", "ServerConnection"]


class _Connection(abc.ABC):
    """What both sides share: limits, decoder, state, and the queues of what awaits an answer."""

    _sends: Transitions
    _receives: Transitions

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        self._limits = limits
        self._decoder = FrameDecoder(limits)
        self._state = State.IDLE
        self._due: deque[type[Message]] = deque()  # types of the replies, oldest request first
        self._nonces: deque[int] = deque()  # of the Pings without a Pong, oldest first
        self._relays = 0  # that the server hasn't said to be done with

    @property
    def state(self) -> State:
        """Where the session stands."""
        return self._state

    @property
    def ended(self) -> bool:
        """Whether the session is over: closed, failed or broken."""
        return self._state in ENDED

    @property
    def in_flight(self) -> int:
        """Requests without a reply."""
        return len(self._due)

    @property
    def relays_in_flight(self) -> int:
        """Relays that the server hasn't said to be done with."""
        return self._relays

    @property
    def pings_in_flight(self) -> int:
        """Pings without a Pong."""
        return len(self._nonces)

    @property
    def buffered_bytes(self) -> int:
        """Bytes received of which no message was made yet."""
        return self._decoder.buffered_bytes

    @property
    def max_payload_bytes(self) -> int:
        """The largest tensor that may be sent or received now; 0 until ``raise_limit``."""
        return self._decoder.max_payload_bytes

    def raise_limit(self, max_payload_bytes: int) -> None:
        """Allow tensors of up to ``max_payload_bytes`` both ways; see ``limits.chunk_bytes``.

        A server calls it before it sends Opened, a client when it received Opened.

        Raises:
            LocalProtocolError: lower than before, above the limits' ceiling, or no Open yet.
        """
        if self._state is State.IDLE:
            raise LocalProtocolError("the limit of payloads can't be raised before Open")
        self._decoder.raise_limit(max_payload_bytes)

    def can_send(self, kind: type[Message]) -> bool:
        """Whether the state allows a message of this type now (its queue may still be full)."""
        return (self._state, kind) in self._sends

    def send(self, message: Message) -> tuple[bytes | memoryview, ...]:
        """The buffers to write, in order, uncopied where large; ``message`` counts as sent.

        Raises:
            LocalProtocolError: not in this state, too many in flight, too large. Nothing changed.
        """
        after = self._sends.get((self._state, type(message)))
        if after is None:
            raise LocalProtocolError(f"{tag_of(message)} can't be sent when {self._state.value}")
        head, payload = encode(message)
        if len(head) > self._limits.max_head_bytes:
            raise LocalProtocolError(
                f"a {tag_of(message)} of {len(head)} bytes is too large to be sent,"
                f" {self._limits.max_head_bytes} are let in"
            )
        if len(payload) > self.max_payload_bytes:
            raise LocalProtocolError(
                f"a tensor of {len(payload)} bytes is too large to be sent,"
                f" {self.max_payload_bytes} are let in"
            )
        trouble = self._account_sent(message)
        if trouble is not None:
            raise LocalProtocolError(f"{tag_of(message)} can't be sent: {trouble}")
        self._enter(after)
        return encode_frame(head, payload)

    def receive(self, data: bytes | bytearray | memoryview) -> Iterator[Message]:
        """Take in bytes; the messages that they complete, one by one, as they are asked for.

        Go through them to the end before the next call. What follows the end of a session is not
        looked at.

        Raises:
            RemoteProtocolError: from the iterator, after the messages before the violation; the
                connection is then BROKEN and only Failure may still be sent.
        """
        if self.ended:
            return iter(())
        self._decoder.feed(data)
        return self._messages()

    def receive_eof(self) -> None:
        """The peer's side of the stream ended.

        Raises:
            StreamLostError: before the session's end was said.
        """
        if self.ended:
            return
        where = "between messages" if self._decoder.between_frames else "inside a message"
        raise StreamLostError(f"the peer's stream ended {where}, without saying that it was done")

    def _messages(self) -> Iterator[Message]:
        while not self.ended:
            try:
                frame = self._decoder.next_frame()
                if frame is None:
                    return
                message = decode(frame.head, frame.payload)
                after = self._receives.get((self._state, type(message)))
                if after is None:
                    raise RemoteProtocolError(
                        f"the peer sent {tag_of(message)} to a session that is {self._state.value}"
                    )
                trouble = self._account_received(message)
                if trouble is not None:
                    raise RemoteProtocolError(f"the peer sent {tag_of(message)}: {trouble}")
            except RemoteProtocolError:
                self._enter(State.BROKEN)
                raise
            self._enter(after)
            yield message

    def _enter(self, state: State) -> None:
        self._state = state
        if self.ended:
            self._due.clear()
            self._nonces.clear()
            self._relays = 0

    @abc.abstractmethod
    def _account_sent(self, message: Message) -> str | None:
        """Count a message to be sent; what is wrong with it, or None."""

    @abc.abstractmethod
    def _account_received(self, message: Message) -> str | None:
        """Count a message that came; what is wrong with it, or None."""

    def _asked(self, message: Message) -> str | None:
        """A client's message adds to what is due, on both sides alike; what is wrong, or None."""
        if isinstance(message, Ping):
            if len(self._nonces) >= self._limits.max_pings:
                return f"{len(self._nonces)} pings are without an answer"
            self._nonces.append(message.nonce)
        if isinstance(message, Relay):
            if self._relays >= self._limits.max_in_flight:
                return f"{self._relays} relays are not done with"
            self._relays += 1
        reply = REPLY_OF.get(type(message))
        if reply is not None:
            if len(self._due) >= self._limits.max_in_flight:
                return f"{len(self._due)} requests are without a reply"
            self._due.append(reply)
        return None

    def _answered(self, message: Message) -> str | None:
        """A server's message takes from it, on both sides alike; what is wrong, or None."""
        if isinstance(message, Pong):
            if not self._nonces or self._nonces[0] != message.nonce:
                return "that isn't the oldest ping without an answer"
            self._nonces.popleft()
        elif isinstance(message, Relayed):
            if message.count > self._relays:
                return f"{self._relays} relays are not done with, and not {message.count}"
            self._relays -= message.count
        elif type(message) in REPLIES:
            if not self._due or self._due[0] is not type(message):
                due = tag_of(self._due[0]) if self._due else "none"
                return f"the reply that is due is {due}"
            self._due.popleft()
        return None


class ClientConnection(_Connection):
    """The side that opens the session and asks."""

    _sends = CLIENT_SENDS
    _receives = CLIENT_RECEIVES

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        """A session that hasn't begun."""
        super().__init__(limits)
        self._arrivals = 0

    def expect_arrival(self) -> None:
        """Let one more Arrived in: a Relay goes into a ring that ends at this session.

        Raises:
            LocalProtocolError: the session isn't open.
        """
        if self._state is not State.OPEN:
            raise LocalProtocolError(f"nothing can arrive when {self._state.value}")
        self._arrivals += 1

    def _account_sent(self, message: Message) -> str | None:
        return self._asked(message)

    def _account_received(self, message: Message) -> str | None:
        if isinstance(message, Arrived):
            if not self._arrivals:
                return "nothing was sent into a ring that ends here"
            self._arrivals -= 1
        return self._answered(message)


class ServerConnection(_Connection):
    """The side that answers."""

    _sends = SERVER_SENDS
    _receives = SERVER_RECEIVES

    def receive_eof(self) -> None:
        """The client's side of the stream ended; after its Close that is no loss.

        Raises:
            StreamLostError: before the session's end was said.
        """
        if self._state is not State.CLOSING:
            super().receive_eof()

    def _account_sent(self, message: Message) -> str | None:
        return self._answered(message)

    def _account_received(self, message: Message) -> str | None:
        if isinstance(message, Close):
            # The client doesn't wait for these any more.
            self._due.clear()
            self._nonces.clear()
            self._relays = 0
        return self._asked(message)
