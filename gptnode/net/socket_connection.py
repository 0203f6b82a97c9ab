"""A TCP socket as libp2p's handshake and muxer want it, without the traps of the library's own.

Two things differ from ``libp2p.io.trio.TrioTCPStream``, and four traps of py-libp2p go with them:

- *Reads* take what the socket has and hand out exactly what was asked for, so no reader gives up
  after 100 partial reads; before the peer is authenticated they are bounded in size and in sum, so
  that a stranger's length prefix allocates nothing.
- *Writes* append to an outbox and never wait; one task empties it. A write that is cancelled is
  therefore on the wire whole or not at all (elsewhere half a Noise record ends the connection), and
  the muxer, which answers pings and opens windows between two reads, can't be stopped by a peer
  that writes without reading (elsewhere both sides then wait for ever). Whoever has much to say
  calls ``wait_room`` first: that is the back pressure.

Knows sockets. Knows no keys, streams or peers.
"""

from __future__ import annotations

import contextlib
import socket

import trio
from libp2p.abc import IRawConnection
from libp2p.connection_types import ConnectionType
from libp2p.io.exceptions import ConnectionClosedError

__all__ = ["SocketConnection"]

RECEIVE_BYTES = 256 * 1024
# While a peer isn't authenticated: a handshake takes less than 1,000 bytes each way.
HANDSHAKE_RECEIVE_BYTES = 16 * 1024
# Senders wait above this; enough to keep a fast link busy while the next records are encrypted.
OUTBOX_ROOM_BYTES = 512 * 1024
# Above this the peer takes nothing, yet makes us answer: it is cut off.
OUTBOX_LIMIT_BYTES = 16 * 1024 * 1024


class SocketConnection(IRawConnection):  # type: ignore[misc]
    """One connected socket; owned by whoever made it, who closes it.

    Until ``start_outbox``, writes go straight to the socket (the handshake, under its deadline).
    """

    def __init__(self, stream: trio.SocketStream, *, is_initiator: bool) -> None:
        """Take over the socket; the kernel will find a peer that vanishes without a word."""
        self.is_initiator = is_initiator
        self.bytes_received = 0
        self._stream = stream
        self._inbox = bytearray()
        self._outbox = bytearray()
        self._sending_bytes = 0
        self._authenticated = False
        self._closed = False
        self._finishing = False
        self._wake_writer = trio.Event()
        self._outbox_moved = trio.lowlevel.ParkingLot()
        self._read_done = trio.lowlevel.ParkingLot()
        _find_vanished_peers(stream.socket)

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

    async def write(self, data: bytes) -> None:
        """Put ``data`` into the outbox at once (no checkpoint), or raise ConnectionClosedError."""
        if self._closed or self._finishing:
            raise ConnectionClosedError("the connection is closed", transport="tcp")
        if not self._authenticated:
            try:
                await self._stream.send_all(data)
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
        return len(self._outbox) + self._sending_bytes

    @property
    def has_room(self) -> bool:
        """Whether a sender should go on."""
        return self.unsent_bytes < OUTBOX_ROOM_BYTES

    async def wait_room(self) -> None:
        """Wait until ``has_room``, or until the connection is closed."""
        while not self.has_room and not self._closed:
            await self._outbox_moved.park()

    def start_outbox(self) -> None:
        """The peer is authenticated: lift the bounds, and leave writing to ``run_outbox``."""
        self._authenticated = True

    async def run_outbox(self) -> None:
        """Send what is in the outbox until the connection ends; then close it. Never raises."""
        try:
            while not self._closed:
                if self._outbox:
                    batch, self._outbox = self._outbox, bytearray()
                    self._sending_bytes = len(batch)
                    await self._stream.send_all(memoryview(batch))
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

    async def finish(self) -> None:
        """Send what is in the outbox, then close. Cancel it to close at once."""
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
        self._closed = True
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
        if found is None:
            return ""
        host, port = found
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def get_remote_address(self) -> tuple[str, int] | None:
        """Host and port of the other end, for IPv4 and IPv6."""
        try:
            host, port = self._stream.socket.getpeername()[:2]
        except OSError:
            return None
        return str(host), int(port)

    def get_transport_addresses(self) -> list[object]:
        """Nothing: only libp2p's own swarm wants them."""
        return []

    def get_connection_type(self) -> ConnectionType:
        """Direct: relays aren't used."""
        return ConnectionType.DIRECT


def _find_vanished_peers(sock: trio.socket.SocketType) -> None:
    """Let the kernel end a connection whose other machine is gone, after 20 to 25 s.

    A frozen process is not gone to the kernel: heartbeats in the sessions find that.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", 10),
        ("TCP_KEEPINTVL", 5),
        ("TCP_KEEPCNT", 3),
        ("TCP_USER_TIMEOUT", 20_000),
    ):
        option = getattr(socket, name, None)
        if option is not None:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, option, value)
