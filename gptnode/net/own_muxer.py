"""The stream layer between nodes of gptnode: MuxState over an encrypted connection, with a clock.

One task reads (``run``), one writes (the connection's), and neither is ever cancelled alone: who
sends hands its bytes over and waits until they are taken, so cancelling it leaves no half frame. A
frame goes out without a task switch when the socket takes it at once. Both directions can be
saturated: reading never waits for writing.

Knows trio, and who waits for which stream. The rules are MuxState's. Errors leave as trio's.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

import trio

from gptnode.net.mux_frames import EndCode, MuxViolationError
from gptnode.net.mux_limits import MuxLimits
from gptnode.net.mux_state import MuxState
from gptnode.net.mux_stream import MuxStream, StreamBrokenError
from gptnode.net.muxer import Outgoing
from gptnode.net.noise_connection import Plaintext
from gptnode.net.noise_records import Buffer, RecordError
from gptnode.net.waits import Waits

__all__ = ["PROTOCOL_ID", "Carrier", "OwnMuxer"]

PROTOCOL_ID = "/gptnode/mux/1.0.0"
# A connection on which nothing arrives for so long is asked for a sign of life, and must give it.
PING_AFTER_S = 15.0
PONG_WITHIN_S = 15.0
# This node may have been frozen itself: what came meanwhile is read before the peer is judged.
BENEFIT_OF_DOUBT_S = 0.05

log = logging.getLogger("gptnode.net")


class Carrier(Protocol):
    """An ordered, reliable, encrypted connection: NoiseConnection."""

    async def receive(self) -> Buffer:
        """At least a byte; b"" at the end; RecordError for a forged one."""

    def send_from(self, plaintext: Plaintext) -> None:
        """Where its bytes come from, batch by batch, once ``send_soon`` was called."""

    def send_soon(self) -> None:
        """There is something to send; doesn't wait."""

    def close_now(self) -> None:
        """End it at once."""


class OwnMuxer:
    """Streams of one connection, as Muxer has them."""

    def __init__(
        self,
        carrier: Carrier,
        peer_id: Any,
        *,
        is_initiator: bool,
        limits: MuxLimits | None = None,
    ) -> None:
        """Nothing is read before ``run``."""
        self.peer_id = peer_id
        self._carrier = carrier
        self._state = MuxState(is_initiator=is_initiator, listener=self, limits=limits)
        self._reading = Waits()
        self._writing = Waits()
        self._receivers: dict[MuxStream, Callable[[bytes], None]] = {}
        self._due: deque[MuxStream] = deque()  # to be handed to their receivers
        self._opened: deque[MuxStream] = deque()
        self._opening = trio.lowlevel.ParkingLot()
        self._heard_at_s = trio.current_time()
        carrier.send_from(self._state)

    @property
    def streams(self) -> dict[int, MuxStream]:
        """Those that are open, either way."""
        return self._state.streams

    @property
    def peer_leaves(self) -> bool:
        """Whether the peer said that it is about to end the connection."""
        return self._state.peer_leaves is not None

    # -- the life of the connection --------------------------------------------------------------

    async def run(self) -> None:
        """Live until the connection ends; ``accept`` ends with it. The connection is closed."""
        reason = "the connection was lost"
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._keep_alive)
                reason = await self._read()
                nursery.cancel_scope.cancel()
        finally:
            self._end(reason)

    def leave(self) -> None:
        """Tell the peer that this side is about to end the connection."""
        if self._state.lost is None:
            self._state.leave(EndCode.LEAVING)
            self._carrier.send_soon()

    async def _read(self) -> str:
        """Until the end; why it ended."""
        while self._state.lost is None:
            try:
                data = await self._carrier.receive()
                if not data:
                    break
                self._heard_at_s = trio.current_time()
                self._state.receive(data)
                while self._due:
                    self._hand_over(self._due.popleft())
            except (MuxViolationError, RecordError) as error:
                log.warning("the peer broke the stream layer, connection closed: %s", error)
                self._state.leave(EndCode.VIOLATION)
                self._carrier.send_soon()
                return f"the peer broke the stream layer: {error}"
            if self._state.has_more:
                self._carrier.send_soon()
        return "the connection was lost"

    async def _keep_alive(self) -> None:
        while True:
            await trio.sleep_until(self._heard_at_s + PING_AFTER_S)
            if trio.current_time() < self._heard_at_s + PING_AFTER_S:
                continue
            heard_at_s = self._heard_at_s
            if self._state.ping():
                self._carrier.send_soon()
            for patience_s in (PONG_WITHIN_S, BENEFIT_OF_DOUBT_S):
                if self._heard_at_s == heard_at_s:
                    await trio.sleep(patience_s)
            if self._heard_at_s == heard_at_s:
                self._state.leave(EndCode.SILENT)
                self._carrier.send_soon()
                self._end(f"the peer is silent for {PING_AFTER_S + PONG_WITHIN_S:g} s")
                return

    def _hand_over(self, stream: MuxStream) -> None:
        receiver = self._receivers.get(stream)
        if receiver is not None and stream.unread_bytes:
            receiver(self._state.take(stream, stream.unread_bytes) or b"")
            if self._state.has_more:  # a window, perhaps
                self._carrier.send_soon()

    def _end(self, reason: str) -> None:
        if self._state.lost is None:
            self._state.lose(reason)
        self._carrier.close_now()
        self._opening.unpark_all()

    # -- opening and accepting -------------------------------------------------------------------

    async def open(self) -> MuxStream:
        """A new stream, or BrokenResourceError: connection lost, or too many streams on it."""
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            stream = self._state.open()
        except StreamBrokenError as error:
            raise trio.BrokenResourceError(str(error)) from None
        self._carrier.send_soon()
        return stream

    async def accept(self) -> MuxStream:
        """The next stream that the peer opened; EndOfChannel when the connection has ended."""
        await trio.lowlevel.checkpoint()
        while True:
            while self._opened:
                stream = self._opened.popleft()
                if stream.broken is None:
                    return stream
                self._state.reset(stream)  # nobody will read it
            if self._state.lost is not None:
                raise trio.EndOfChannel
            await self._opening.park()

    # -- reading ---------------------------------------------------------------------------------

    async def wait_readable(self, stream: MuxStream) -> None:
        """Wait until there are bytes, or the end of the stream, or ``wake``."""
        if not stream.unread_bytes and not stream.got_close and stream.broken is None:
            await self._reading.wait(stream)

    def wake(self, stream: MuxStream) -> None:
        """Let ``wait_readable`` return."""
        self.readable(stream)

    def deliver(self, stream: MuxStream, receiver: Callable[[bytes], None] | None) -> None:
        """Hand what has arrived, and arrives, to ``receiver`` at once; None: no more.

        It must not fail. There is no switch of tasks, and nothing is left for ``take`` that could
        be overtaken. Ends of the stream still show to whoever waits for it.
        """
        self._receivers.pop(stream, None)
        if receiver is not None:
            self._receivers[stream] = receiver
            self._hand_over(stream)

    async def take(self, stream: MuxStream, max_bytes: int) -> bytes | None:
        """What is there; see Muxer."""
        try:
            data = self._state.take(stream, max_bytes)
        except StreamBrokenError as error:
            raise trio.BrokenResourceError(str(error)) from None
        if self._state.has_more:  # a window, perhaps
            self._carrier.send_soon()
        return data

    # -- writing ---------------------------------------------------------------------------------

    async def wait_writable(self, stream: MuxStream) -> None:
        """Wait until the peer's window has room, or raise BrokenResourceError."""
        while True:
            try:
                stream.check_writable()
            except StreamBrokenError as error:
                raise trio.BrokenResourceError(str(error)) from None
            if stream.send_window and stream.outgoing is None:
                return
            await self._writing.wait(stream)

    async def send_all(self, stream: MuxStream, outgoing: Outgoing) -> None:
        """Return when all is taken; cancelled, or broken, ``outgoing`` tells what wasn't."""
        try:
            self._state.submit(stream, outgoing)
            self._carrier.send_soon()
            if not outgoing.rest:
                await trio.lowlevel.cancel_shielded_checkpoint()
                return
            while stream.outgoing is outgoing:
                await self._writing.wait(stream)
            if outgoing.rest:
                stream.check_writable()
        except StreamBrokenError as error:
            raise trio.BrokenResourceError(str(error)) from None
        except trio.Cancelled:
            self._state.withdraw(stream)
            raise

    def send_now(self, stream: MuxStream, outgoing: Outgoing) -> None:
        """As ``send_all``, but what can't go at once stays in ``outgoing``. Raises nothing."""
        try:
            if stream.outgoing is None:
                self._state.submit(stream, outgoing)
                self._carrier.send_soon()
                self._state.withdraw(stream)
        except StreamBrokenError:
            pass  # whoever sends the rest will hear of it

    # -- ending ----------------------------------------------------------------------------------

    async def finish(self, stream: MuxStream) -> None:
        """Say that nothing more will be sent (CLOSE). Doesn't wait, doesn't raise."""
        self._state.close(stream)
        self._carrier.send_soon()

    async def reset(self, stream: MuxStream) -> None:
        """End the stream in both directions. Doesn't wait, doesn't raise."""
        self._state.reset(stream)
        self._carrier.send_soon()

    # -- told by the state -----------------------------------------------------------------------

    def opened(self, stream: MuxStream) -> None:
        """The peer opened a stream."""
        self._opened.append(stream)
        self._opening.unpark_all()

    def readable(self, stream: MuxStream) -> None:
        """There are bytes, or an end."""
        if stream in self._receivers and stream.unread_bytes:
            self._due.append(stream)
        if stream not in self._receivers or stream.got_close or stream.broken is not None:
            self._reading.wake(stream)

    def writable(self, stream: MuxStream) -> None:
        """All was taken, or there is credit, or an end."""
        self._writing.wake(stream)
