"""Pump: one reader and one writer task between a trio stream and a protocol machine.

Cancelling a task inside a write may leave half a record on the connection below and kill it for
all its streams, and a cancelled read may drop bytes. So both tasks are shielded: a cancelled
``run`` lets the writer finish what it has in hand, closes the stream, and only then cancels them.
Callers never touch the stream: they queue bytes. Knows no messages.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol

import trio

from gptnode.errors import GptNodeError, PeerTimeoutError, StreamLostError

__all__ = ["CLOSE_S", "FLUSH_S", "READ_BYTES", "WRITE_BYTES", "Pump", "StartedStatus"]

# Every read of a libp2p stream costs a window update: read big.
READ_BYTES = 256 * 1024
# What fits one Noise record of libp2p; pieces are also the unit in which progress is seen.
WRITE_BYTES = 65_507
# How long the end of a session waits for its last words, then for the write that is under way.
FLUSH_S = 0.25
CLOSE_S = 0.5


class StartedStatus(Protocol):
    """What ``nursery.start`` hands over."""

    def started(self) -> None:
        """Tell the starter that the task runs."""


class Receiver(Protocol):
    """Who gets what the pump reads."""

    def received(self, data: bytes | bytearray) -> None:
        """Take in ``data``, which is b"" at the end of the stream."""

    def flushed(self) -> None:
        """All that was queued is written."""

    def failed(self, error: GptNodeError) -> None:
        """Reading or writing failed: no more of it."""

    def cancelled(self) -> None:
        """``run`` was cancelled: the last chance to queue something."""


class Pump:
    """Moves bytes; see the module's docstring.

    Resource handling: ``run`` closes the stream however it ends, ``aclose`` also when ``run`` was
    never called; either takes at most 2 * (FLUSH_S + CLOSE_S). What is queued is bounded by the
    callers, who know what a message is; it is looked at until it is written.
    """

    def __init__(
        self,
        stream: trio.abc.Stream,
        receiver: Receiver,
        *,
        stuck_after_s: float,
        on_stuck: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """``on_stuck`` is awaited after a write of WRITE_BYTES took ``stuck_after_s`` and more."""
        self._stream = stream
        self._receiver = receiver
        self._stuck_after_s = stuck_after_s
        self._on_stuck = on_stuck
        self._send_now: Callable[[memoryview], memoryview] | None = getattr(
            stream, "send_now", None
        )
        self._reading = False
        self._outbox: deque[memoryview] = deque()
        self._writing = False
        self._stuck = False
        self._wake = trio.Event()
        self._stop = trio.Event()
        self._running = False
        self._done = trio.Event()
        self._reads = trio.lowlevel.ParkingLot()
        self._writes = trio.lowlevel.ParkingLot()
        self.reads = 0
        self.last_read_s = trio.current_time()
        self.last_write_s = self.last_read_s

    @property
    def running(self) -> bool:
        """Whether ``run`` was called and has not ended."""
        return self._running and not self._done.is_set()

    @property
    def flushed(self) -> bool:
        """Whether all that was queued was handed to the stream."""
        return not self._outbox and not self._writing

    @property
    def queued_bytes(self) -> int:
        """Bytes that wait to be written."""
        return sum(len(buffer) for buffer in self._outbox)

    def write(self, buffers: Iterable[bytes | memoryview]) -> None:
        """Queue buffers, to be written in order; only small ones are copied.

        They are written at once, without the writer, as far as the stream takes them so.
        """
        at_once = self._send_now is not None and self._reading and self.flushed
        self._outbox.extend(memoryview(buffer) for buffer in buffers)
        if at_once:
            self._write_now()
        if self._outbox:
            self._wake.set()

    def finish(self) -> None:
        """End ``run``, after what is queued was written if that takes no more than FLUSH_S."""
        self._stop.set()

    async def wait_read(self, reads: int) -> None:
        """Wait until more than ``reads`` reads were made."""
        while self.reads <= reads:
            await self._reads.park()

    async def wait_flushed(self) -> None:
        """Wait until all that was queued was handed to the stream."""
        while not self.flushed:
            await self._writes.park()

    async def run(self, task_status: StartedStatus = trio.TASK_STATUS_IGNORED) -> None:
        """Read and write until finished, failed or cancelled; then close the stream."""
        self._running = True
        tasks = trio.CancelScope(shield=True)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._read_and_write, tasks)
                task_status.started()
                try:
                    await self._stop.wait()
                except trio.Cancelled:
                    self._receiver.cancelled()
                    raise
                finally:
                    with trio.CancelScope(shield=True):
                        await self._wind_up()
                    tasks.cancel()
        finally:
            self._done.set()

    async def aclose(self) -> None:
        """End ``run`` and wait until the stream is closed."""
        self.finish()
        with trio.CancelScope(shield=True):
            if self._running:
                await self._done.wait()
            else:
                await self._close_stream()

    async def _wind_up(self) -> None:
        with trio.move_on_after(FLUSH_S):
            await self.wait_flushed()
        self._drop_queue()
        # The piece in hand may belong to a connection that others use: it gets its own chance.
        with trio.move_on_after(FLUSH_S):
            await self.wait_flushed()
        try:
            if self._on_stuck is not None and (self._stuck or not self.flushed):
                with trio.move_on_after(CLOSE_S):
                    await self._on_stuck()
        finally:
            await self._close_stream()

    async def _close_stream(self) -> None:
        with trio.move_on_after(CLOSE_S):
            try:
                await self._stream.aclose()
            except Exception:
                # It is given up anyway, and whatever broke it was reported.
                pass

    async def _read_and_write(self, scope: trio.CancelScope) -> None:
        with scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._read)
                nursery.start_soon(self._write)

    async def _read(self) -> None:
        self._reading = True
        deliver_to = getattr(self._stream, "deliver_to", None)
        if deliver_to is not None:
            deliver_to(self._received)
        while not self._stop.is_set():
            try:
                data = await self._stream.receive_some(READ_BYTES)
            except Exception as error:
                self._fail("read from", error)
                return
            self._received(data)
            if not data:
                return

    def _received(self, data: bytes | bytearray) -> None:
        self.last_read_s = trio.current_time()
        self.reads += 1
        self._reads.unpark_all()
        self._receiver.received(data)

    async def _write(self) -> None:
        while True:
            while not self._outbox:
                self._wake = trio.Event()
                await self._wake.wait()
            try:
                await self._write_piece()
            except trio.TooSlowError:
                self._stuck = True
                took = f"the peer took nothing for {self._stuck_after_s:g} s"
                self._give_up(PeerTimeoutError(took))
                return
            except Exception as error:
                # A peer that closed may have said why: let the reader come to that first.
                with trio.move_on_after(FLUSH_S):
                    await self._stop.wait()
                self._fail("write to", error)
                return
            self.last_write_s = trio.current_time()
            self._writes.unpark_all()
            if not self._outbox:
                self._receiver.flushed()

    def _write_now(self) -> None:
        """What the stream takes without waiting; the rest stays queued, for the writer."""
        while self._outbox and self._send_now is not None:
            rest = self._send_now(memoryview(self._next_piece()))
            if len(rest):
                self._outbox.appendleft(rest)
                return
            self.last_write_s = trio.current_time()
        self._writes.unpark_all()
        self._receiver.flushed()

    async def _write_piece(self) -> None:
        self._writing = True
        try:
            with trio.fail_after(self._stuck_after_s):
                await self._stream.send_all(self._next_piece())
        finally:
            self._writing = False

    def _next_piece(self) -> bytes | memoryview:
        """Up to WRITE_BYTES off the queue: small buffers joined, large ones cut without a copy."""
        parts: list[memoryview] = []
        room_bytes = WRITE_BYTES
        while self._outbox and room_bytes:
            buffer = self._outbox.popleft()
            part, rest = buffer[:room_bytes], buffer[room_bytes:]
            parts.append(part)
            room_bytes -= len(part)
            if len(rest):
                self._outbox.appendleft(rest)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _fail(self, verb: str, error: Exception) -> None:
        """Map a foreign error: what a stream raises depends on what is below it."""
        if isinstance(error, GptNodeError):
            self._give_up(error)
        else:
            name = type(error).__name__
            lost = StreamLostError(f"can't {verb} the peer's stream ({name})")
            lost.__cause__ = error
            self._give_up(lost)

    def _give_up(self, error: GptNodeError) -> None:
        self._receiver.failed(error)
        self._drop_queue()
        self.finish()

    def _drop_queue(self) -> None:
        self._outbox.clear()
        self._writes.unpark_all()
