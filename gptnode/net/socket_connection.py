"""A TCP socket as libp2p's handshake and muxer want it, without the traps of the library's own.

Two things differ from ``libp2p.io.trio.TrioTCPStream``, and four traps of py-libp2p go with them:

- *Reads* take what the socket has and hand out exactly what was asked for, so no reader gives up
  after 100 partial reads; before the peer is authenticated they are bounded in size and in sum, so
  that a stranger's length prefix allocates nothing.
- *Writes* append to an outbox and never wait; one task empties it. A write that is cancelled is
  therefore on the wire whole or not at all (elsewhere half a Noise record ends the connection), and
  the muxer, which answers pings and opens windows between two reads, can't be stopped by a peer
  that writes without reading (elsewhere both sides then wait for ever). Whoever has much to say
  calls ``wait_room`` first: that is the back pressure. A *source* needs no outbox: it is asked for
  the next batch when the socket takes it, so what is urgent can still go before what is large.

Knows sockets. Knows no keys, streams or peers.
"""

from __future__ import annotations

import contextlib
import socket
from typing import Protocol

import trio
from libp2p.abc import IRawConnection
from libp2p.connection_types import ConnectionType
from libp2p.io.exceptions import ConnectionClosedError

from gptnode.net.addresses import host_port_text, other_end
from gptnode.net.socket_options import find_vanished_peers, keep_line_busy

__all__ = ["SocketConnection", "Source"]

RECEIVE_BYTES = 256 * 1024
# While a peer isn't authenticated: a handshake takes less than 1,000 bytes each way.
HANDSHAKE_RECEIVE_BYTES = 16 * 1024
# Senders wait above this; enough to keep a fast link busy while the next records are encrypted.
OUTBOX_ROOM_BYTES = 512 * 1024
# Above this the peer takes nothing, yet makes us answer: it is cut off.
OUTBOX_LIMIT_BYTES = 16 * 1024 * 1024


class Source(Protocol):
    """Who makes what is to be sent, when it can be sent."""

    @property
    def has_more(self) -> bool:
        """Whether ``next_batch`` may have something."""

    def next_batch(self) -> memoryview:
        """The next bytes for the wire; empty if there are none now. Asked again when they went."""


class SocketConnection(IRawConnection):  # type: ignore[misc]
    """One connected socket; owned by whoever made it, who closes it.

    Until ``start_outbox``, writes go straight to the socket (the handshake, under its deadline).
    """

    def __init__(self, stream: trio.SocketStream, *, is_initiator: bool) -> None:
        """Take over the socket; the kernel will find a peer that vanishes without a word."""
        self.is_initiator = is_initiator
        self.bytes_received = 0
        self.bytes_sent = 0
        self._stream = stream
        # The same descriptor, for sends that don't wait; given up before the descriptor is.
        self._unwaiting = socket.socket(fileno=stream.socket.fileno())
        self._unwaiting.setblocking(False)
        self._inbox = bytearray()
        self._outbox = bytearray()
        self._rest = memoryview(b"")  # of a batch that was sent in part
        self._source: Source | None = None
        self._waits_for_line = False
        self._sending_bytes = 0
        self._authenticated = False
        self._closed = False
        self._finishing = False
        self._wake_writer = trio.Event()
        self._outbox_moved = trio.lowlevel.ParkingLot()
        self._read_done = trio.lowlevel.ParkingLot()
        find_vanished_peers(stream.socket)
        keep_line_busy(stream.socket)

    # -- reading ---------------------------------------------------------------------------------

    async def read(self, n: int | None = None) -> bytes:
        """Exactly ``n`` bytes; fewer only at the end of the connection."""
        self._read_done.unpark_all()
        wanted = RECEIVE_BYTES if n is None else n
        if not self._authenticated and wanted > HANDSHAKE_RECEIVE_BYTES * 4:
            raise self._refuse("it announced too large a message before it was known")
        while len(self._inbox) < wanted:
            data = await self._receive()
            if not data:
                break
            self._inbox += data
            if n is None:
                break
        result = bytes(self._inbox[:wanted])
        del self._inbox[:wanted]
        if not result and wanted:
            raise ConnectionClosedError("the peer closed the connection", transport="tcp")
        return result

    async def receive_into(self, room: memoryview) -> int:
        """Put what there is into ``room``; how many bytes, at the end 0 (also if it was lost)."""
        if self._read_done:
            self._read_done.unpark_all()
        if self._inbox or not self._authenticated:
            try:
                data = bytes(self._inbox) or await self._receive()
            except ConnectionClosedError:
                return 0
            taken = min(len(data), len(room))
            room[:taken] = data[:taken]
            self._inbox[:] = data[taken:]
            return taken
        while not self._closed:
            try:
                # In this order each read is one scheduler pass and one system call.
                await trio.lowlevel.wait_readable(self._unwaiting)
                received = self._unwaiting.recv_into(room)
            except BlockingIOError:
                continue
            except (OSError, trio.ClosedResourceError):
                break
            self.bytes_received += received
            return received
        return 0

    async def _receive(self) -> bytes:
        room = RECEIVE_BYTES if self._authenticated else HANDSHAKE_RECEIVE_BYTES
        try:
            data = await self._stream.receive_some(room)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise ConnectionClosedError("the connection is lost", transport="tcp") from error
        self.bytes_received += len(data)
        if not self._authenticated and self.bytes_received > HANDSHAKE_RECEIVE_BYTES:
            raise self._refuse("it sent too much before it was known")
        return bytes(data)

    def _refuse(self, why: str) -> ConnectionClosedError:
        self.close_now()
        return ConnectionClosedError(why, transport="tcp")

    async def wait_read_done(self) -> None:
        """Wait until the reader asks for more: what it got before has been dealt with then."""
        await self._read_done.park()

    # -- writing ---------------------------------------------------------------------------------

    async def write(self, data: bytes | bytearray) -> None:
        """Put ``data`` into the outbox at once (no checkpoint), or raise ConnectionClosedError."""
        if self._closed or self._finishing:
            raise ConnectionClosedError("the connection is closed", transport="tcp")
        if not self._authenticated:
            try:
                await self._stream.send_all(data)
                self.bytes_sent += len(data)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise ConnectionClosedError("the connection is lost", transport="tcp") from error
            return
        self._outbox += data
        self._wake_writer.set()
        if self.unsent_bytes > OUTBOX_LIMIT_BYTES:
            raise self._refuse("the peer doesn't read")

    @property
    def unsent_bytes(self) -> int:
        """What the kernel hasn't taken yet."""
        return len(self._outbox) + len(self._rest) + self._sending_bytes

    @property
    def has_room(self) -> bool:
        """Whether a sender should go on."""
        return self.unsent_bytes < OUTBOX_ROOM_BYTES

    async def wait_room(self) -> None:
        """Wait until ``has_room``, or until the connection is closed."""
        while not self.has_room and not self._closed:
            await self._outbox_moved.park()

    def start_outbox(self, source: Source | None = None) -> None:
        """The peer is authenticated: lift the bounds, and leave writing to ``run_outbox``.

        With a ``source`` there are no writes any more: it is asked, first by ``send_soon``.
        """
        self._authenticated = True
        self._source = source

    def send_soon(self) -> None:
        """The source has something. Sends of it at once what the kernel takes, without waiting."""
        if self._closed or self._source is None:
            return
        if self._waits_for_line or self._sending_bytes or self._rest or self._outbox:
            return  # the writer asks the source when it is done with what it has
        batch = self._source.next_batch()
        try:
            sent = self._unwaiting.send(batch) if batch else 0
        except BlockingIOError:
            sent = 0
        except OSError:
            self.close_now()
            return
        self.bytes_sent += sent
        if sent < len(batch):
            self._rest = batch[sent:]
        if self._rest or self._source.has_more:
            self._wake_writer.set()

    async def run_outbox(self) -> None:
        """Send what is in the outbox until the connection ends; then close it. Never raises."""
        try:
            while not self._closed:
                if self._source is not None and self._source.has_more and not self._rest:
                    # What is urgent can overtake what is here, not what the kernel has.
                    self._waits_for_line = True
                    await self._stream.wait_send_all_might_not_block()
                    self._waits_for_line = False
                batch = self._next_batch()
                if batch:
                    self._sending_bytes = len(batch)
                    await self._stream.send_all(batch)
                    self.bytes_sent += len(batch)
                    self._sending_bytes = 0
                    self._outbox_moved.unpark_all()
                elif self._finishing:
                    with contextlib.suppress(trio.ClosedResourceError):
                        await self._stream.send_eof()
                    return
                else:
                    self._wake_writer = trio.Event()
                    await self._wake_writer.wait()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            self.close_now()

    def _next_batch(self) -> memoryview:
        if self._rest:
            batch, self._rest = self._rest, memoryview(b"")
            return batch
        if self._outbox:
            written, self._outbox = self._outbox, bytearray()
            return memoryview(written)
        return self._source.next_batch() if self._source is not None else memoryview(b"")

    async def finish(self) -> None:
        """Send what outbox and source have, then close. Cancel it to close at once."""
        self._finishing = True
        self._wake_writer.set()
        try:
            while not self._closed:
                await self._outbox_moved.park()
        finally:
            self.close_now()

    # -- the end ---------------------------------------------------------------------------------

    @property
    def is_closed(self) -> bool:
        """Whether nothing more comes or goes."""
        return self._closed

    def close_now(self) -> None:
        """Close the socket and wake all who wait. Idempotent, immediate."""
        if not self._closed:
            self._closed = True
            self._unwaiting.detach()
            self._stream.socket.close()
        self._wake_writer.set()
        self._outbox_moved.unpark_all()
        self._read_done.unpark_all()

    async def close(self) -> None:
        """As ``close_now``, in libp2p's words."""
        self.close_now()

    # -- what libp2p asks beside -----------------------------------------------------------------

    @property
    def remote_addr(self) -> str:
        """The other end as ``HOST:PORT``, for people; empty when it is gone already."""
        found = self.get_remote_address()
        return host_port_text(*found) if found is not None else ""

    def get_remote_address(self) -> tuple[str, int] | None:
        """Host and port of the other end, for IPv4 and IPv6."""
        return other_end(self._stream.socket)

    def get_transport_addresses(self) -> list[object]:
        """Nothing: only libp2p's own swarm wants them."""
        return []

    def get_connection_type(self) -> ConnectionType:
        """Direct: relays aren't used."""
        return ConnectionType.DIRECT
