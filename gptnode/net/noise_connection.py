"""A connection after its Noise handshake: libp2p's keys, records by the batch.

py-libp2p reads and writes one record at a time, in several scheduler passes and copies each. This
takes over its two keys when the handshake is done and does the same with all that the socket has,
so the other side can't tell the difference. libp2p's multistream-select and Yamux use ``read`` and
``write``; OwnMuxer uses ``receive`` and ``send_from``. Knows sockets and records. Knows no streams.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from typing import Protocol

from libp2p.connection_types import ConnectionType
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.security.base_session import BaseSession
from libp2p.security.secure_session import SecureSession

from gptnode.net.noise_records import MAX_RECORD_BYTES, Buffer, Opener, RecordError, Sealer
from gptnode.net.socket_connection import SocketConnection

__all__ = ["NoiseConnection", "Plaintext"]

# What is received at a time once the peer has proved to send much; idle connections keep less.
RECEIVE_BYTES = 512 * 1024

log = logging.getLogger("gptnode.net")


class Plaintext(Protocol):
    """Who has something to send: asked for it when the socket takes it."""

    @property
    def has_more(self) -> bool:
        """Whether ``next_batch`` may have something."""

    def next_batch(self) -> Sequence[Buffer]:
        """The next bytes; nothing if there are none now."""


class NoiseConnection(BaseSession):  # type: ignore[misc]
    """One encrypted connection over ``raw``, which stays its owner's to close."""

    def __init__(self, session: SecureSession, raw: SocketConnection) -> None:
        """Take over ``session``, fresh from its handshake: nothing may have been read of it."""
        super().__init__(
            local_peer=session.get_local_peer(),
            local_private_key=session.get_local_private_key(),
            remote_peer=session.get_remote_peer(),
            remote_permanent_pubkey=session.get_remote_public_key(),
            is_initiator=raw.is_initiator,
        )
        noise = session.conn.noise_state.noise_protocol
        sending, receiving = noise.cipher_state_encrypt, noise.cipher_state_decrypt
        self._sealer = Sealer(sending.k, sending.n)
        self._opener = Opener(receiving.k, receiving.n)
        self._raw = raw
        self._buffer = bytearray(MAX_RECORD_BYTES)
        self._filled = 0
        self._pieces: deque[memoryview] = deque()  # decrypted, for ``read``
        self._held_bytes = 0
        self._plaintext: Plaintext | None = None

    # -- many records at a time ------------------------------------------------------------------

    async def receive(self) -> Buffer:
        """All that has arrived, at least a byte; b"" at the end. Cancelled, it has taken nothing.

        Raises:
            RecordError: a record that isn't the peer's next one.
        """
        if self._pieces:
            data = b"".join(self._pieces)
            self._pieces.clear()
            self._held_bytes = 0
            return data
        while True:
            received = await self._raw.receive_into(memoryview(self._buffer)[self._filled :])
            if not received:
                return b""  # also in the middle of a record: the layer above knows its own end
            self._filled += received
            plain = self._open()
            if plain:
                return plain

    def _open(self) -> bytearray:
        plain, used = self._opener.open(memoryview(self._buffer)[: self._filled])
        left = self._filled - used
        if self._filled == len(self._buffer) < RECEIVE_BYTES:
            self._buffer = self._buffer[used:].ljust(RECEIVE_BYTES, b"\0")
        elif left and used:
            self._buffer[:left] = self._buffer[used : self._filled]
        self._filled = left
        return plain

    def send_from(self, plaintext: Plaintext) -> None:
        """From now on send what ``plaintext`` has; ``write`` is over."""
        self._plaintext = plaintext
        self._raw.start_outbox(self)

    def send_soon(self) -> None:
        """``plaintext`` has something. Doesn't wait; part of it is on its way when this returns."""
        self._raw.send_soon()

    @property
    def has_more(self) -> bool:
        """Asked by the socket's writer."""
        return self._plaintext is not None and self._plaintext.has_more

    def next_batch(self) -> memoryview:
        """Asked by the socket's writer: sealed bytes."""
        try:
            return self._sealer.seal(self._plaintext.next_batch() if self._plaintext else ())
        except RecordError as error:
            log.warning("connection closed: %s", error)
            self._raw.close_now()
            return memoryview(b"")

    def close_now(self) -> None:
        """End the connection at once."""
        self._raw.close_now()

    # -- as libp2p wants it ----------------------------------------------------------------------

    async def read(self, n: int | None = None) -> bytes:
        """Exactly ``n`` bytes; fewer only at the end of the connection."""
        wanted = 1 if n is None else n
        while self._held_bytes < wanted:
            try:
                data = await self._receive_more()
            except RecordError as error:
                self._raw.close_now()
                raise ConnectionClosedError(str(error), transport="tcp") from error
            if not data:
                break
            self._pieces.append(memoryview(data))
            self._held_bytes += len(data)
        if wanted and not self._held_bytes:
            raise ConnectionClosedError("the peer closed the connection", transport="tcp")
        return self._take(self._held_bytes if n is None else n)

    async def _receive_more(self) -> Buffer:
        held, self._pieces = self._pieces, deque()
        try:
            return await self.receive()
        finally:
            self._pieces = held

    def _take(self, n_bytes: int) -> bytes:
        taken = []
        while self._pieces and n_bytes:
            piece = self._pieces.popleft()
            if len(piece) > n_bytes:
                self._pieces.appendleft(piece[n_bytes:])
                piece = piece[:n_bytes]
            taken.append(piece)
            n_bytes -= len(piece)
        data = b"".join(taken)
        self._held_bytes -= len(data)
        return data

    async def write(self, data: bytes) -> None:
        """Seal and send, as SocketConnection.write does it."""
        try:
            sealed = self._sealer.seal((data,))
        except RecordError as error:
            self._raw.close_now()
            raise ConnectionClosedError(str(error), transport="tcp") from error
        await self._raw.write(bytes(sealed))

    async def close(self) -> None:
        """As ``close_now``, in libp2p's words."""
        self._raw.close_now()

    def get_remote_address(self) -> tuple[str, int] | None:
        """Of the socket."""
        return self._raw.get_remote_address()

    def get_transport_addresses(self) -> list[object]:
        """Of the socket."""
        return self._raw.get_transport_addresses()

    def get_connection_type(self) -> ConnectionType:
        """Of the socket."""
        return self._raw.get_connection_type()
