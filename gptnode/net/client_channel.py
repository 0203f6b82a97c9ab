"""The client's side of a session: requests and their replies, heartbeats, deadlines.

Drives wire's state machine through a Pump. Knows no libp2p (any ``trio.abc.Stream`` will do) and
nothing of models. A server that feeds another one is its client.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Protocol, overload

import trio

from gptnode.errors import (
    GptNodeError,
    LocalProtocolError,
    PeerTimeoutError,
    StreamLostError,
)
from gptnode.net.failures import error_from_failure
from gptnode.net.session import Channel, sleep_until_past
from gptnode.wire.codec import tag_of
from gptnode.wire.connection import ClientConnection
from gptnode.wire.limits import DEFAULT_LIMITS, Limits
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
    Reply,
    Request,
    Step,
    Stepped,
    Stranded,
    Truncate,
    Truncated,
)

__all__ = ["BENEFIT_OF_DOUBT_S", "CLOSED_WITHIN_S", "ClientChannel", "RingListener"]

# How long a client waits for Closed after its Close.
CLOSED_WITHIN_S = 1.0
# How long a client reads on before it takes silence for a loss.
BENEFIT_OF_DOUBT_S = 0.05


class RingListener(Protocol):
    """Who hears of what a session says unasked; called on trio's thread, must not fail."""

    def arrived(self, message: Arrived) -> None:
        """What came out of a ring that ends at this session."""

    def stranded(self, message: Stranded) -> None:
        """A Relay ended at this session, or its next hop was lost."""

    def session_ended(self) -> None:
        """The session is over: see ``lost``."""


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
        self._relay_slots = trio.Semaphore(limits.max_in_flight)
        self._waiting: deque[_Waiting] = deque()
        self._begun = trio.Event()
        self._listener: RingListener | None = None
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
    @overload
    async def request(self, message: Forward, *, timeout_s: float) -> Forwarding: ...
    @overload
    async def request(self, message: Feed, *, timeout_s: float) -> Fed: ...
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

    async def post(self, message: Relay) -> None:
        """Send ``message``, to which there is no reply; waits while the peer has no room for it.

        Raises:
            StreamLostError, PeerTimeoutError ...: see ``lost``.
            LocalProtocolError: the message may not be sent now, or is too large.
        """
        await self._relay_slots.acquire()
        try:
            self._raise_if_over()
            self._pump.write(self._connection.send(message))
        except BaseException:
            self._relay_slots.release()
            raise

    def expect_arrival(self) -> None:
        """A Relay goes into a ring that ends at this session: let its Arrived in.

        Raises:
            LocalProtocolError: the session isn't open.
        """
        self._connection.expect_arrival()

    def listen(self, listener: RingListener | None) -> None:
        """Tell ``listener`` what comes unasked from now on, in place of whoever listened before."""
        self._listener = listener

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
        waiting = await self._send(message)
        await waiting.answered.wait()
        if waiting.reply is not None:
            return waiting.reply
        self._raise_if_lost()
        raise StreamLostError("the session was closed before its reply came")

    async def _send(self, message: Request) -> _Waiting:
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
        return waiting

    def _raise_if_over(self) -> None:
        self._raise_if_lost()
        if self._over.is_set():
            raise StreamLostError("the session is closed")

    def _handle(self, message: Message) -> None:
        match message:
            case Relayed():
                for _ in range(message.count):
                    self._relay_slots.release()
            case Opened() | Stepped() | Truncated() | Forwarding() | Fed():
                waiting = self._waiting.popleft()
                waiting.reply = message
                waiting.answered.set()
                self._slots.release()
                if isinstance(message, Opened | Fed):
                    self._ping()
            case Arrived() if self._listener is not None:
                self._listener.arrived(message)
            case Stranded() if self._listener is not None:
                self._listener.stranded(message)
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
        for _ in range(self._relay_slots.statistics().tasks_waiting):
            self._relay_slots.release()  # to find that it is over
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.session_ended()

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
            await sleep_until_past(lambda: self._pump.last_read_s + self._heartbeat_s)
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
