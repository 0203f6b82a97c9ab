"""Frames of the stream layer: a header of nine bytes, and for DATA the bytes of a stream.

::

    +---------+---------------+-----------+----------------------+
    | u8 kind | u32 stream id | u32 value | value bytes, if DATA |
    +---------+---------------+-----------+----------------------+

All numbers are big endian. A header is checked the moment it is whole, so nothing is kept but a
part of a header, and a length takes no memory. Sans-io: knows bytes, and nothing of what frames do.
The specification is docs/reference/stream-layer.md.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

__all__ = [
    "DATA",
    "HEADER_BYTES",
    "MAX_CREDIT_BYTES",
    "MAX_DATA_BYTES",
    "MAX_STREAM_ID",
    "EndCode",
    "Frame",
    "FrameReader",
    "Kind",
    "MuxViolationError",
    "header",
]

_HEADER = struct.Struct(">BII")
HEADER_BYTES = _HEADER.size
# Longer pieces would hold up what other streams have to say.
MAX_DATA_BYTES = 262_144
MAX_STREAM_ID = 2**31 - 1
MAX_CREDIT_BYTES = 2**31 - 1


class Kind(IntEnum):
    """What a frame is; ``value`` means something else in each."""

    OPEN = 1  # a new stream; value: bytes that the other side may send on it
    DATA = 2  # value: how many bytes of the stream follow
    WINDOW = 3  # value: so many bytes more may be sent
    CLOSE = 4  # nothing more will be sent; value 0
    RESET = 5  # the stream is over in both directions; value 0
    PING = 6  # value: to be said again
    PONG = 7  # value: that of the ping
    GOAWAY = 8  # the connection is about to end; value: an EndCode


class EndCode(IntEnum):
    """Why a side ends the connection."""

    LEAVING = 0
    VIOLATION = 1
    SILENT = 2


class MuxViolationError(Exception):
    """The peer broke the rules of the stream layer: the connection must end. The text says how."""


class Frame(NamedTuple):
    """One frame; DATA that arrived in parts comes as several frames of the same stream."""

    kind: Kind
    stream_id: int
    value: int
    data: memoryview


NO_DATA = memoryview(b"")
DATA = Kind.DATA  # looked up once: every message has one
_OF_CONNECTION = frozenset((Kind.PING, Kind.PONG, Kind.GOAWAY))
# The least and the largest value of each kind.
_VALUES = {
    Kind.OPEN: (0, MAX_CREDIT_BYTES),
    Kind.DATA: (1, MAX_DATA_BYTES),
    Kind.WINDOW: (1, MAX_CREDIT_BYTES),
    Kind.CLOSE: (0, 0),
    Kind.RESET: (0, 0),
    Kind.PING: (0, 2**32 - 1),
    Kind.PONG: (0, 2**32 - 1),
    Kind.GOAWAY: (0, max(EndCode)),
}
_KINDS = {int(kind): kind for kind in Kind}


def header(kind: Kind, stream_id: int, value: int) -> bytes:
    """The header; it is the whole frame for all kinds but DATA."""
    return _HEADER.pack(kind, stream_id, value)


class FrameReader:
    """Cuts received bytes into frames, however they arrive."""

    def __init__(self) -> None:
        """At the beginning of a connection."""
        self._partial = bytearray()
        self._stream_id = 0
        self._data_left = 0

    @property
    def between_frames(self) -> bool:
        """Whether all that came in so far was whole frames."""
        return not self._partial and not self._data_left

    def feed(self, data: bytes | bytearray | memoryview) -> Iterator[Frame]:
        """The frames in ``data``; those of DATA look into it, uncopied. Take all of them.

        Raises:
            MuxViolationError: at the first header that no rule allows.
        """
        view = memoryview(data)
        at, end = 0, len(view)
        while at < end:
            if self._data_left:
                piece = view[at : at + self._data_left]
                self._data_left -= len(piece)
                at += len(piece)
                yield Frame(DATA, self._stream_id, len(piece), piece)
                continue
            if self._partial or end - at < HEADER_BYTES:
                missing = view[at : at + HEADER_BYTES - len(self._partial)]
                self._partial += missing
                at += len(missing)
                if len(self._partial) < HEADER_BYTES:
                    return
                kind, stream_id, value = _checked(*_HEADER.unpack(self._partial))
                self._partial.clear()
            else:
                kind, stream_id, value = _checked(*_HEADER.unpack_from(view, at))
                at += HEADER_BYTES
            if kind is DATA:
                self._stream_id, self._data_left = stream_id, value
            else:
                yield Frame(kind, stream_id, value, NO_DATA)


def _checked(number: int, stream_id: int, value: int) -> tuple[Kind, int, int]:
    kind = _KINDS.get(number)
    if kind is None:
        raise MuxViolationError(f"a frame of the unknown kind {number}")
    least, largest = _VALUES[kind]
    if not least <= value <= largest:
        raise MuxViolationError(f"{kind.name} with the value {value}")
    if stream_id > MAX_STREAM_ID or (stream_id == 0) != (kind in _OF_CONNECTION):
        raise MuxViolationError(f"{kind.name} for the stream {stream_id}")
    return kind, stream_id, value
