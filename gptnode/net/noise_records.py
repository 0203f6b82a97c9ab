"""Noise transport messages, many at a time: a buffer of records in, a buffer of plaintext out.

The bytes are those of any libp2p node with Noise
(https://github.com/libp2p/specs/tree/master/noise#wire-format): a length of two bytes, big endian,
then ChaCha20-Poly1305 over at most 65,519 bytes with the count of records as nonce. Only how they
are made differs: in place, without a copy of what is large, one buffer for all of them.

Sans-io. Knows keys and counters. Knows no handshake: that is libp2p's.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

__all__ = [
    "LENGTH_BYTES",
    "MAX_PLAIN_BYTES",
    "MAX_RECORD_BYTES",
    "Buffer",
    "Opener",
    "RecordError",
    "Sealer",
]

Buffer = bytes | bytearray | memoryview

LENGTH_BYTES = 2
TAG_BYTES = 16
MAX_PLAIN_BYTES = 65_535 - TAG_BYTES
MAX_RECORD_BYTES = LENGTH_BYTES + 65_535
# The last nonce is kept for rekeying, which libp2p doesn't do: a connection ends before it.
MAX_NONCE = 2**64 - 1
# Smaller buffers are joined into a record: copying them costs less than a record of their own.
JOIN_BYTES = 32 * 1024

_LENGTH = struct.Struct(">H")
_NONCE = struct.Struct("<4xQ")


class RecordError(Exception):
    """A record that wasn't made by the peer of the handshake, or no further one may be made."""


class Sealer:
    """Encrypts for the peer. The nonce is in order by construction: every call goes on from it."""

    def __init__(self, key: bytes, nonce: int) -> None:
        """``nonce`` is the next to be used: 0 right after a handshake."""
        self._cipher = ChaCha20Poly1305(key)
        self._nonce = nonce
        self._sealed = bytearray()

    def seal(self, buffers: Sequence[Buffer]) -> memoryview:
        """All of ``buffers`` as records, in order; empty if there is nothing to seal.

        The next call overwrites it.

        Raises:
            RecordError: the nonces are used up.
        """
        small = sum(map(len, buffers)) <= JOIN_BYTES
        chunks = [joined] if small and (joined := b"".join(buffers)) else list(_chunks(buffers))
        if self._nonce + len(chunks) > MAX_NONCE:
            raise RecordError("the connection has used up its nonces")
        overhead = LENGTH_BYTES + TAG_BYTES
        size = sum(map(len, chunks)) + len(chunks) * overhead
        if size > len(self._sealed):
            self._sealed = bytearray(size)
        sealed = self._sealed
        view = memoryview(sealed)
        at = 0
        for chunk in chunks:
            body = len(chunk) + TAG_BYTES
            _LENGTH.pack_into(sealed, at, body)
            at += LENGTH_BYTES
            nonce = _NONCE.pack(self._nonce)
            self._cipher.encrypt_into(nonce, chunk, None, view[at : at + body])
            self._nonce += 1
            at += body
        return view[:size]


class Opener:
    """Decrypts what the peer sent, in its order: a record that is missing or moved is an error."""

    def __init__(self, key: bytes, nonce: int) -> None:
        """``nonce`` is the next to be expected: 0 right after a handshake."""
        self._cipher = ChaCha20Poly1305(key)
        self._nonce = nonce

    def open(self, received: Buffer) -> tuple[bytearray, int]:
        """The plaintext of the whole records at the front, and how many bytes those are.

        Raises:
            RecordError: one isn't the peer's next record, or the nonces are used up.
        """
        view = memoryview(received)
        starts, used = _whole_records(view)
        plain = bytearray(used - len(starts) * (LENGTH_BYTES + TAG_BYTES))
        if self._nonce + len(starts) > MAX_NONCE:
            raise RecordError("the connection has used up its nonces")
        out = memoryview(plain)
        at = 0
        for start, stop in starts:
            end = at + stop - start - TAG_BYTES
            nonce = _NONCE.pack(self._nonce)
            try:
                self._cipher.decrypt_into(nonce, view[start:stop], None, out[at:end])
            except InvalidTag:
                raise RecordError("a record failed its authentication") from None
            self._nonce += 1
            at = end
        return plain, used


def _whole_records(view: memoryview) -> tuple[list[tuple[int, int]], int]:
    """Where the ciphertexts of the whole records start and stop, and where the last one ends."""
    found = []
    at, end = 0, len(view)
    while at + LENGTH_BYTES <= end:
        (length,) = _LENGTH.unpack_from(view, at)
        if length < TAG_BYTES:
            raise RecordError(f"a record of {length} bytes")
        if at + LENGTH_BYTES + length > end:
            break
        found.append((at + LENGTH_BYTES, at + LENGTH_BYTES + length))
        at += LENGTH_BYTES + length
    return found, at


def _chunks(buffers: Iterable[Buffer]) -> Iterator[Buffer]:
    """Plaintexts of records: small neighbours joined, large buffers cut without a copy."""
    joined = bytearray()
    for buffer in buffers:
        if len(buffer) <= JOIN_BYTES:
            if len(joined) + len(buffer) > MAX_PLAIN_BYTES:
                yield joined
                joined = bytearray()
            joined += buffer
            continue
        if joined:
            yield joined
            joined = bytearray()
        view = memoryview(buffer)
        for at in range(0, len(view), MAX_PLAIN_BYTES):
            yield view[at : at + MAX_PLAIN_BYTES]
    if joined:
        yield joined
