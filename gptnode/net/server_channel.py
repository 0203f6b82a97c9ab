"""The server's side of a session: requests in order, answers to pings, what a quiet client means.

Drives wire's state machine through a Pump. Knows no libp2p (any ``trio.abc.Stream`` will do) and
nothing of models.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable

import trio

from gptnode.errors import GptNodeError, PeerTimeoutError, StreamLostError
from gptnode.net.failures import error_from_failure
from gptnode.net.session import Channel, sleep_until_past
from gptnode.wire.connection import ServerConnection
from gptnode.wire.limits import DEFAULT_LIMITS, Limits
from gptnode.wire.messages import (
    Arrived,
    Close,
    Closed,
    ErrorCode,
    Failure,
    Feed,
    Forward,
    Message,
    Open,
    Ping,
    Pong,
    Relay,
    Relayed,
    Reply,
    Request,
    Step,
    Stranded,
    Truncate,
)

__all__ = ["ServerChannel"]


class ServerChannel(Channel):
    """The server's side of a session.

    ``run`` must be running for anything to move; it answers Pings and Close by itself, also while
    a step computes. Requests wait in a queue, at most ``limits.max_in_flight`` of them: a client
    that sends more breaks the protocol, so that a session never holds more than
    ``max_in_flight`` tensors of the size that ``raise_limit`` allowed.

    Error handling: a client from which no byte came for ``idle_after_s`` (it pings every second),
    or that takes nothing for ``stuck_after_s``, is lost with PeerTimeoutError; for ``on_stuck``
    see ClientChannel.

    Resource handling: ``fail``, ``aclose``, or the end of ``run``, closes the stream.
    """

    def __init__(
        self,
        stream: trio.abc.Stream,
        *,
        limits: Limits = DEFAULT_LIMITS,
        idle_after_s: float = 30.0,
        stuck_after_s: float = 10.0,
        on_stuck: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """Nothing is read or written before ``run``."""
        super().__init__(stream, stuck_after_s, on_stuck)
        self._connection: ServerConnection = ServerConnection(limits)
        self._idle_after_s = idle_after_s
        self._limits = limits
        self._relays_done = 0
        self._requests: deque[Request | Relay] = deque()
        self._pings: deque[int] = deque()
        self._arrived = trio.Event()
        self._begun = trio.Event()

    async def receive(self) -> Request | Relay | Close:
        """The next request, in order.

        Close, which was answered already, is the clean end: it drops the requests before it that
        weren't taken yet, and is returned again by every later call. Call it from one task.

        Raises:
            StreamLostError: the stream ended without Close, or this side ended the session.
            PeerTimeoutError: the client is silent or takes nothing.
            RemoteProtocolError: it broke the protocol, and was told so.
            GptNodeError: as the client's Failure said.
        """
        # No checkpoint after a request was taken: cancellation must not lose one.
        await trio.lowlevel.checkpoint()
        while not self._requests and not self._over.is_set():
            self._arrived = trio.Event()
            await self._arrived.wait()
        self._raise_if_lost()
        return Close() if self._over.is_set() else self._requests.popleft()

    async def send(self, reply: Reply) -> None:
        """Queue the reply that is due; it doesn't wait for it to be written.

        A tensor's bytes are read later, then: don't write to that memory again. After the
        client's Close replies aren't wanted: they are dropped.

        Raises:
            StreamLostError, PeerTimeoutError, RemoteProtocolError: see ``lost``.
            LocalProtocolError: it isn't the reply that is due, or too large.
        """
        await trio.lowlevel.checkpoint()
        self._raise_if_lost()
        if not self._over.is_set():
            self._pump.write(self._connection.send(reply))

    def done_with_relay(self) -> None:
        """A Relay that ``receive`` gave out is computed and handed on; tells the client in time."""
        self._relays_done += 1
        if 2 * self._relays_done >= self._limits.max_in_flight:
            done, self._relays_done = self._relays_done, 0
            if not self._over.is_set() and self._connection.can_send(Relayed):
                self._pump.write(self._connection.send(Relayed(done)))

    def tell(self, message: Arrived | Stranded) -> None:
        """Queue what the client didn't ask for; dropped when the session is over or was closed."""
        if not self._over.is_set() and self._connection.can_send(type(message)):
            self._pump.write(self._connection.send(message))

    async def fail(self, code: ErrorCode, message: str, *, retry_after_s: float = 0.0) -> None:
        """Send Failure, wait until it is written, and close the stream. Never fails.

        Does nothing but close when the session is over already.
        """
        self._say_last(Failure(code, message, retry_after_s))
        self._end(StreamLostError(f"this node ended the session ({code.value})"))
        await self._pump.aclose()

    async def aclose(self) -> None:
        """Close the stream; a client whose session isn't over is told GOING_AWAY. Never fails."""
        await self.fail(ErrorCode.GOING_AWAY, "the server ended the session")

    def _handle(self, message: Message) -> None:
        match message:
            case Open() | Step() | Truncate() | Forward() | Feed() | Relay():
                self._requests.append(message)
                self._arrived.set()
                self._begun.set()
            case Ping():
                self._pings.append(message.nonce)
                if self._pump.flushed:
                    self.flushed()
            case Failure():
                self._end(error_from_failure(message))
            case Close():
                self._pump.write(self._connection.send(Closed()))
                self._end(None)

    def _end(self, error: GptNodeError | None) -> None:
        super()._end(error)
        self._requests.clear()
        self._pings.clear()
        self._arrived.set()

    def flushed(self) -> None:
        """Called by the pump: answer Pings now.

        Only now, so that a client that pings and doesn't read runs into the limit of unanswered
        Pings instead of filling this node's memory with Pongs.
        """
        while self._pings:
            self._pump.write(self._connection.send(Pong(self._pings.popleft())))

    def _farewell(self) -> Message:
        return Failure(ErrorCode.GOING_AWAY, "the server ended the session")

    async def _watch(self) -> None:
        """Lose a client that is silent, or that doesn't come to the point."""
        with trio.move_on_after(self._idle_after_s):
            await self._begun.wait()
        if not self._begun.is_set():
            self._end(PeerTimeoutError(f"the client didn't open within {self._idle_after_s:g} s"))
            return
        # A client that takes a long reply has no reason to ping.
        await sleep_until_past(
            lambda: max(self._pump.last_read_s, self._pump.last_write_s) + self._idle_after_s
        )
        self._end(PeerTimeoutError(f"the client is silent for {self._idle_after_s:g} s"))
