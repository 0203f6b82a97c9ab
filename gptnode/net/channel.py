"""Channels: one session of the protocol over one trio stream, seen from either side.

They drive wire's state machines through a Pump, and add what needs a clock: heartbeats, deadlines,
waiting for replies. Knows no libp2p (any ``trio.abc.Stream`` will do) and nothing of models.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import overload

import trio

from gptnode.errors import (
    GptNodeError,
    LocalProtocolError,
    PeerTimeoutError,
    StreamLostError,
)
from gptnode.net.failures import error_from_failure
from gptnode.net.session import Channel
from gptnode.wire.codec import tag_of
from gptnode.wire.connection import ClientConnection, ServerConnection
from gptnode.wire.limits import DEFAULT_LIMITS, Limits
from gptnode.wire.messages import (
    Close,
    Closed,
    ErrorCode,
    Failure,
    Message,
    Open,
    Opened,
    Ping,
    Pong,
    Reply,
    Request,
    Step,
    Stepped,
    Truncate,
    Truncated,
)

__all__ = ["BENEFIT_OF_DOUBT_S", "CLOSED_WITHIN_S", "ClientChannel", "ServerChannel"]

# How long a client waits for Closed after its Close.
CLOSED_WITHIN_S = 1.0
# How long a client reads on before it takes silence for a loss.
BENEFIT_OF_DOUBT_S = 0.05


class _Waiting:
    """A request whose reply is due; nobody may be waiting for it any more."""

    def __init__(self) -> None:
        self.answered = trio.Event()
        self.reply: Reply | None = None


class ClientChannel(Channel):
    """The client's side of a session.

    ``run`` must be running for anything to move. Several tasks may ask at once: requests are sent
    and answered in order, at most ``limits.max_in_flight`` at a time, the others wait their turn.

    Error handling: once the session is lost, ``lost`` says why and every request, waiting or
    later, raises it. A peer that is silent for ``silent_after_s`` although it was pinged, or takes
    nothing for as long, is lost with PeerTimeoutError. When a write is stuck, cutting it off may
    leave half a record on the connection below: ``on_stuck`` is then awaited and should
    disconnect the peer.

    Resource handling: ``aclose``, or the end of ``run``, closes the stream.
    """

    def __init__(
        self,
        stream: trio.abc.Stream,
        *,
        limits: Limits = DEFAULT_LIMITS,
        heartbeat_s: float = 1.0,
        silent_after_s: float = 3.0,
        on_stuck: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """Nothing is read or written before ``run``."""
        if not 0 < heartbeat_s < silent_after_s:
            raise LocalProtocolError(
                "silent_after_s must be more than heartbeat_s, and both than 0"
            )
        super().__init__(stream, silent_after_s, on_stuck)
        self._connection: ClientConnection = ClientConnection(limits)
        self._heartbeat_s = heartbeat_s
        self._silent_after_s = silent_after_s
        self._slots = trio.Semaphore(limits.max_in_flight)
        self._waiting: deque[_Waiting] = deque()
        self._begun = trio.Event()
        self._nonce = 0
        self._pinged_at_s = 0.0
        self._round_trip_s: float | None = None

    @property
    def round_trip_s(self) -> float | None:
        """Time between the last Ping that was answered and its Pong; None before the first."""
        return self._round_trip_s

    @overload
    async def request(self, message: Open, *, timeout_s: float) -> Opened: ...
    @overload
    async def request(self, message: Step, *, timeout_s: float) -> Stepped: ...
    @overload
    async def request(self, message: Truncate, *, timeout_s: float) -> Truncated: ...
    async def request(self, message: Request, *, timeout_s: float) -> Reply:
        """Send ``message`` and wait for its reply, for ``timeout_s`` in all.

        Cancelled or timed out, it leaves the channel usable: the request may or may not have been
        carried out, and its late reply is dropped. A tensor's bytes are read until they are
        written, which may be after a cancelled request ended: don't write to that memory again.

        Raises:
            PeerRefusedError, PeerBusyError, MismatchError, ContextError: the peer said Failure.
            StreamLostError, RemoteProtocolError: see ``lost``.
            PeerTimeoutError: no reply in time; the session lives on unless ``lost`` says the same.
            LocalProtocolError: the message may not be sent now, or is too large.
        """
        with trio.move_on_after(timeout_s):
            return await self._ask(message)
        raise PeerTimeoutError(f"no reply to {tag_of(message)} within {timeout_s:g} s")

    async def aclose(self) -> None:
        """End the session: Close, Closed within a second, close the stream. Never fails.

        Cancelled, it doesn't wait for Closed.
        """
        try:
            if self._pump.running and not self._over.is_set():
                self._say_last(Close())
                with trio.move_on_after(CLOSED_WITHIN_S):
                    await self._over.wait()
        finally:
            self._end(StreamLostError("this node closed the session"))
            await self._pump.aclose()

    async def _ask(self, message: Request) -> Reply:
        await self._slots.acquire()
        try:
            self._raise_if_over()
            buffers = self._connection.send(message)
        except BaseException:
            self._slots.release()
            raise
        waiting = _Waiting()
        self._waiting.append(waiting)
        self._pump.write(buffers)
        self._begun.set()
        await waiting.answered.wait()
        if waiting.reply is not None:
            return waiting.reply
        self._raise_if_lost()
        raise StreamLostError("the session was closed before its reply came")

    def _raise_if_over(self) -> None:
        self._raise_if_lost()
        if self._over.is_set():
            raise StreamLostError("the session is closed")

    def _handle(self, message: Message) -> None:
        match message:
            case Opened() | Stepped() | Truncated():
                waiting = self._waiting.popleft()
                waiting.reply = message
                waiting.answered.set()
                self._slots.release()
                if isinstance(message, Opened):
                    self._ping()
            case Pong():
                self._round_trip_s = trio.current_time() - self._pinged_at_s
            case Failure():
                self._end(error_from_failure(message))
            case Closed():
                self._end(None)

    def _end(self, error: GptNodeError | None) -> None:
        super()._end(error)
        while self._waiting:
            self._waiting.popleft().answered.set()
            self._slots.release()

    def flushed(self) -> None:
        """Called by the pump: nothing of a client's waits for that."""

    def _farewell(self) -> Message:
        return Close()

    def _ping(self) -> None:
        """Send a Ping unless one is under way, or the session is being closed."""
        if self._connection.can_send(Ping) and not self._connection.pings_in_flight:
            self._nonce += 1
            self._pinged_at_s = trio.current_time()
            self._pump.write(self._connection.send(Ping(self._nonce)))

    async def _watch(self) -> None:
        """Ping a peer that is quiet; lose one that stays silent."""
        await self._begun.wait()
        while True:
            await _sleep_until_past(lambda: self._pump.last_read_s + self._heartbeat_s)
            reads = self._pump.reads
            self._ping()
            # What is still being written can't be answered yet; the pump sees whether it gets on.
            await self._pump.wait_flushed()
            with trio.move_on_after(self._silent_after_s - self._heartbeat_s):
                await self._pump.wait_read(reads)
            # This node may have been frozen itself: read what came meanwhile before judging.
            with trio.move_on_after(BENEFIT_OF_DOUBT_S):
                await self._pump.wait_read(reads)
            if self._pump.reads == reads:
                self._end(PeerTimeoutError(f"the peer is silent for {self._silent_after_s:g} s"))
                return


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
        self._requests: deque[Request] = deque()
        self._pings: deque[int] = deque()
        self._arrived = trio.Event()
        self._begun = trio.Event()

    async def receive(self) -> Open | Step | Truncate | Close:
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
            case Open() | Step() | Truncate():
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
        await _sleep_until_past(
            lambda: max(self._pump.last_read_s, self._pump.last_write_s) + self._idle_after_s
        )
        self._end(PeerTimeoutError(f"the client is silent for {self._idle_after_s:g} s"))


async def _sleep_until_past(deadline_s: Callable[[], float]) -> None:
    """Sleep until a deadline that may move away meanwhile."""
    while trio.current_time() < deadline_s():  # noqa: ASYNC110 (the deadline moves, no event)
        await trio.sleep_until(deadline_s())
