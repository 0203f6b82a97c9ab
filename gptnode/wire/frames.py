"""Where one message ends and the next begins: frames of two parts, each with its length in front.

::

    +-----------------+--------------------+-----------+--------------+
    | u32 head length | u32 payload length | head      | payload      |
    +-----------------+--------------------+-----------+--------------+

Both lengths are big endian and checked before a byte of either part is kept. The payload (a
tensor's bytes; mostly there is none) has a length of its own so that it can be bounded apart from
the head, goes out uncopied, and comes in to a buffer of its own. Knows nothing of messages.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from gptnode.errors import LocalProtocolError, RemoteProtocolError
from gptnode.wire.limits import Limits

__all__ = ["PREFIX_BYTES", "Frame", "FrameDecoder", "encode_frame"]

_PREFIX = struct.Struct(">II")
PREFIX_BYTES = _PREFIX.size


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame as received; ``payload`` is a writable buffer that nobody else holds."""

    head: bytes
    payload: memoryview


def encode_frame(head: bytes, payload: bytes | memoryview) -> tuple[bytes | memoryview, ...]:
    """Prefix and head in one buffer, then the payload as it was given, if there is one."""
    start = _PREFIX.pack(len(head), len(payload)) + head
    return (start, payload) if len(payload) else (start,)


class FrameDecoder:
    """Cuts a stream of bytes into frames.

    Memory: at most one frame within the limits, plus what one ``feed`` brought. A part grows with
    the bytes that arrive, so that a length alone, however large, takes nothing.
    """

    def __init__(self, limits: Limits) -> None:
        """No payload is let in before ``raise_limit``."""
        self._limits = limits
        self._max_payload_bytes = 0
        self._input = memoryview(b"")
        self._prefix = bytearray()
        self._head = bytearray()
        self._payload = bytearray()
        self._due: tuple[int, int] | None = None  # head and payload bytes of the frame begun

    @property
    def max_payload_bytes(self) -> int:
        """The largest payload that is let in now."""
        return self._max_payload_bytes

    @property
    def buffered_bytes(self) -> int:
        """Bytes held: the frame begun and the input that isn't cut yet."""
        return len(self._prefix) + len(self._head) + len(self._payload) + len(self._input)

    @property
    def between_frames(self) -> bool:
        """Whether all that came in so far was whole frames, taken by ``next_frame``."""
        return self.buffered_bytes == 0

    def raise_limit(self, max_payload_bytes: int) -> None:
        """Let payloads of up to ``max_payload_bytes`` in from now on.

        Raises:
            LocalProtocolError: lower than before, or above the ceiling of the limits.
        """
        if not self._max_payload_bytes <= max_payload_bytes <= self._limits.max_payload_bytes:
            raise LocalProtocolError(
                f"the limit of payloads can be raised from {self._max_payload_bytes} to at most"
                f" {self._limits.max_payload_bytes} bytes, not set to {max_payload_bytes}"
            )
        self._max_payload_bytes = max_payload_bytes

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Take in what was read; all of the data fed before must have been cut into frames.

        ``data`` is looked at, not copied, until ``next_frame`` returns None.
        """
        if len(self._input):
            raise LocalProtocolError("bytes were fed before the frames in the last ones were taken")
        self._input = memoryview(data)

    def next_frame(self) -> Frame | None:
        """The next whole frame, or None when more bytes are needed.

        Raises:
            RemoteProtocolError: the frame is larger than what is let in.
        """
        if self._due is None:
            self._move(self._prefix, PREFIX_BYTES)
            if len(self._prefix) < PREFIX_BYTES:
                return None
            self._due = self._checked(*_PREFIX.unpack(self._prefix))
        head_bytes, payload_bytes = self._due
        self._move(self._head, head_bytes)
        self._move(self._payload, payload_bytes)
        if len(self._head) < head_bytes or len(self._payload) < payload_bytes:
            return None
        frame = Frame(bytes(self._head), memoryview(self._payload))
        self._due = None
        self._prefix.clear()
        self._head.clear()
        self._payload = bytearray()
        return frame

    def _checked(self, head_bytes: int, payload_bytes: int) -> tuple[int, int]:
        if not 1 <= head_bytes <= self._limits.max_head_bytes:
            raise RemoteProtocolError(
                f"the peer announced a message of {head_bytes} bytes,"
                f" {self._limits.max_head_bytes} are let in"
            )
        if payload_bytes > self._max_payload_bytes:
            raise RemoteProtocolError(
                f"the peer announced a tensor of {payload_bytes} bytes,"
                f" {self._max_payload_bytes} are let in"
            )
        return head_bytes, payload_bytes

    def _move(self, part: bytearray, due_bytes: int) -> None:
        """Move input to the end of ``part`` until that is complete or the input used up."""
        taken = self._input[: due_bytes - len(part)]
        part += taken
        self._input = self._input[len(taken) :]
