"""What both sides of a session share: the pump below, the protocol machine, and how it all ends.

Knows neither requests nor replies: client_channel.py and server_channel.py are the two sides.
"""

from __future__ import annotations

import abc
import copy
from collections.abc import Awaitable, Callable

import trio

from gptnode.errors import GptNodeError, RemoteProtocolError, StreamLostError
from gptnode.net.pump import Pump, StartedStatus
from gptnode.wire.connection import ClientConnection, ServerConnection
from gptnode.wire.messages import ErrorCode, Failure, Message

__all__ = ["Channel", "sleep_until_past"]


class Channel(abc.ABC):
    """What both sides share: the pump, and how a session comes to be lost."""

    _connection: ClientConnection | ServerConnection

    def __init__(
        self,
        stream: trio.abc.Stream,
        stuck_after_s: float,
        on_stuck: Callable[[], Awaitable[None]] | None,
    ) -> None:
        self._pump = Pump(stream, self, stuck_after_s=stuck_after_s, on_stuck=on_stuck)
        self._lost: GptNodeError | None = None
        self._over = trio.Event()

    @property
    def lost(self) -> GptNodeError | None:
        """Why the session ended; None while it lives and after a clean end."""
        return self._lost

    def raise_limit(self, max_payload_bytes: int) -> None:
        """Allow tensors of up to so many bytes: ``limits.chunk_bytes(tokens, width, dtype)``.

        A server calls it before it sends Opened, a client before its first Step.
        """
        self._connection.raise_limit(max_payload_bytes)

    async def run(self, task_status: StartedStatus = trio.TASK_STATUS_IGNORED) -> None:
        """Read, write and watch the clock until the session is over, then close the stream.

        The owner starts it in a nursery of its own choice. A lost peer doesn't make it raise: see
        ``lost``. Cancelled, it needs up to a second to leave the stream in order.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch)
            await self._pump.run(task_status)
            nursery.cancel_scope.cancel()

    def received(self, data: bytes | bytearray) -> None:
        """Called by the pump with what was read."""
        if self._over.is_set():
            return
        try:
            if not data:
                self._connection.receive_eof()
            for message in self._connection.receive(data):
                self._handle(message)
        except RemoteProtocolError as error:
            self._say_last(Failure(ErrorCode.PROTOCOL, error.detail))
            self._end(error)
        except StreamLostError as error:
            self._end(error)

    @abc.abstractmethod
    def flushed(self) -> None:
        """Called by the pump when all that was queued is written."""

    def failed(self, error: GptNodeError) -> None:
        """Called by the pump when the stream broke."""
        self._end(error)

    def cancelled(self) -> None:
        """Called by the pump when ``run`` was cancelled."""
        self._say_last(self._farewell())
        self._end(StreamLostError("this node cancelled the session"))

    def _raise_if_lost(self) -> None:
        if self._lost is not None:
            # A copy each: several tasks may raise it, and each adds its own traceback.
            raise copy.copy(self._lost) from self._lost.__cause__

    def _end(self, error: GptNodeError | None) -> None:
        """The session is over, cleanly when ``error`` is None; the first call counts."""
        if not self._over.is_set():
            self._lost = error
            self._over.set()
            self._pump.finish()

    def _say_last(self, message: Message) -> None:
        """Send a message that ends the session, if the session hasn't ended."""
        if self._connection.can_send(type(message)):
            self._pump.write(self._connection.send(message))

    @abc.abstractmethod
    def _handle(self, message: Message) -> None:
        """Do what a message from the peer asks for."""

    @abc.abstractmethod
    def _farewell(self) -> Message:
        """What a cancelled side says last."""

    @abc.abstractmethod
    async def _watch(self) -> None:
        """Watch the clock while the pump runs; may end before it."""


async def sleep_until_past(deadline_s: Callable[[], float]) -> None:
    """Sleep until a deadline that may move away meanwhile."""
    while trio.current_time() < deadline_s():  # noqa: ASYNC110 (the deadline moves, no event)
        await trio.sleep_until(deadline_s())
