"""One stream of the stream layer, as its connection's state keeps it. Sans-io.

Knows what is unread, what is granted, and how the stream ended. Knows no frames.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

from gptnode.net.muxer import Outgoing

__all__ = ["Listener", "MuxStream", "StreamBrokenError"]

# Copied pieces are joined up to this size: many tiny ones would take many times their bytes.
JOINED_BYTES = 64 * 1024


class StreamBrokenError(Exception):
    """The stream, or its connection, is over otherwise than by its orderly end: the text is why."""


class MuxStream:
    """Changed by MuxState alone, read by everyone."""

    __slots__ = (
        "_pieces",
        "broken",
        "consumed",
        "got_close",
        "has_turn",
        "id",
        "keeps_end",
        "outgoing",
        "recv_window",
        "send_window",
        "sent_close",
        "unread_bytes",
        "window",
    )

    def __init__(self, stream_id: int, send_window: int, recv_window: int) -> None:
        """Either window in bytes."""
        self.id = stream_id
        self.send_window = send_window  # what may be sent now
        self.recv_window = recv_window  # what the peer may send now
        self.window = recv_window  # what the peer may be ahead of the reader
        self.consumed = 0  # read, and not yet told to the peer
        self.unread_bytes = 0
        self.outgoing: Outgoing | None = None
        self.has_turn = False
        self.sent_close = False
        self.got_close = False
        self.broken: str | None = None
        self.keeps_end = True  # whether a CLOSE that came before it broke still counts
        self._pieces: deque[bytearray | memoryview] = deque()

    @property
    def stream_id(self) -> int:
        """For people."""
        return self.id

    def check_writable(self) -> None:
        """Raise StreamBrokenError if nothing can be sent any more."""
        if self.broken is not None:
            raise StreamBrokenError(self.broken)
        if self.sent_close:
            raise StreamBrokenError("this side closed the stream")

    def ending(self) -> bytes | None:
        """With nothing unread: b"" at the end, None if more may come, or StreamBrokenError."""
        if self.got_close and self.keeps_end:
            return b""
        if self.broken is not None:
            raise StreamBrokenError(self.broken)
        return None

    def break_off(self, reason: str, *, keep_end: bool) -> None:
        """No more will come or go; the first reason counts."""
        if self.broken is None:
            self.broken = reason
            self.keeps_end = keep_end
            self.outgoing = None

    def put(self, data: memoryview, *, copy: bool) -> None:
        """Bytes that arrived, to be copied or to be kept a look at."""
        self.unread_bytes += len(data)
        if not copy:
            self._pieces.append(data)
            return
        last = self._pieces[-1] if self._pieces else None
        if isinstance(last, bytearray) and len(last) + len(data) <= JOINED_BYTES:
            last += data
        else:
            self._pieces.append(bytearray(data))

    def take_unread(self, max_bytes: int) -> bytes:
        """Bytes off the front."""
        taken: list[bytearray | memoryview] = []
        room = max_bytes
        while self._pieces and room:
            piece = self._pieces[0]
            if len(piece) <= room:
                taken.append(self._pieces.popleft())
                room -= len(piece)
            else:
                view = memoryview(piece)
                taken.append(view[:room])
                self._pieces[0] = view[room:]
                room = 0
        data = bytes(taken[0]) if len(taken) == 1 else b"".join(taken)
        self.unread_bytes -= len(data)
        return data

    def drop_unread(self) -> int:
        """Throw it away; how many bytes it was."""
        dropped, self.unread_bytes = self.unread_bytes, 0
        self._pieces.clear()
        return dropped


class Listener(Protocol):
    """Who waits for streams. It must not call the state back."""

    def opened(self, stream: MuxStream) -> None:
        """The peer opened a stream."""

    def readable(self, stream: MuxStream) -> None:
        """There are bytes, or an end."""

    def writable(self, stream: MuxStream) -> None:
        """All of its outgoing bytes are taken, or it has credit again, or an end."""
