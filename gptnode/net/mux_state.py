"""The state of a connection's streams: windows, ends, and whose turn it is. Sans-io.

Bytes go in by ``receive`` and come out of ``next_batch``; streams are opened, written, read and
ended in between. Nothing waits here: a listener is told when a stream may be looked at again.

What a peer can make this side hold is bounded: unread bytes by the windows it was granted, whose
sum is bounded too, streams by their number, answers it doesn't read by ``max_control_bytes``. A
peer that goes beyond one of them has broken the rules (MuxViolationError) and is cut off. The rules
are those of docs/reference/stream-layer.md. Knows no clock, no sockets and no keys.
"""

from __future__ import annotations

from gptnode.net.mux_frames import (
    DATA,
    MAX_CREDIT_BYTES,
    MAX_STREAM_ID,
    EndCode,
    Frame,
    FrameReader,
    Kind,
    MuxViolationError,
    header,
)
from gptnode.net.mux_limits import FIRST_WINDOW_BYTES, Grants, MuxLimits
from gptnode.net.mux_stream import Listener, MuxStream, StreamBrokenError
from gptnode.net.mux_turns import Turns
from gptnode.net.muxer import Outgoing

__all__ = ["MuxState"]

# Less than this is always copied: what looks at it would be larger than it.
LOOKED_AT_BYTES = 1024


class MuxState:
    """One side of a connection."""

    def __init__(
        self, *, is_initiator: bool, listener: Listener, limits: MuxLimits | None = None
    ) -> None:
        """Who dialled is the initiator and has the odd stream ids."""
        self.streams: dict[int, MuxStream] = {}  # those that aren't over
        self.peer_leaves: EndCode | None = None
        self.lost: str | None = None
        self._listener = listener
        self._limits = limits or MuxLimits()
        self._frames = FrameReader()
        self._control = bytearray()
        self._turns = Turns(self._limits)
        self._next_own = 1 if is_initiator else 2
        self._next_peers = 2 if is_initiator else 1
        self._count = {0: 0, 1: 0}  # live streams with even and with odd ids
        self._grants = Grants(self._limits)
        self._unread_bytes = 0
        self._ping: int | None = None  # the value of the ping that wasn't answered yet
        self._pings = 0
        self._pong_due = False

    @property
    def unread_bytes(self) -> int:
        """Of all streams."""
        return self._unread_bytes

    @property
    def granted_bytes(self) -> int:
        """The windows of all live streams."""
        return self._grants.total_bytes

    # -- sending ---------------------------------------------------------------------------------

    @property
    def has_more(self) -> bool:
        """Whether there may be something to send."""
        return bool(self._control or self._turns)

    def next_batch(self) -> list[bytes | bytearray | memoryview]:
        """What to send now: first all that isn't DATA, then a quantum of each stream in turn."""
        buffers: list[bytes | bytearray | memoryview] = []
        if self._control:
            buffers.append(self._control)
            self._control = bytearray()
            self._pong_due = False
        for stream, piece in self._turns.batch():
            buffers += (header(DATA, stream.id, len(piece)), piece)
            if stream.outgoing is not None and not stream.outgoing.rest:
                stream.outgoing = None
                self._listener.writable(stream)
        return buffers

    def _say(self, kind: Kind, stream_id: int, value: int) -> None:
        self._control += header(kind, stream_id, value)

    # -- what this side does ---------------------------------------------------------------------

    def open(self) -> MuxStream:
        """A new stream; StreamBrokenError where the connection takes no more."""
        if self.lost is not None:
            raise StreamBrokenError(self.lost)
        if self.peer_leaves is not None:
            raise StreamBrokenError("the peer is about to leave")
        if self._count[self._next_own % 2] >= self._limits.max_streams:
            raise StreamBrokenError("too many streams are open on the connection")
        if self._next_own > MAX_STREAM_ID:
            raise StreamBrokenError("the connection has used up its stream ids")
        stream = self._new_stream(self._next_own, send_window=FIRST_WINDOW_BYTES)
        self._next_own += 2
        stream.recv_window += self._grants.grow(stream)
        self._say(Kind.OPEN, stream.id, stream.recv_window)
        return stream

    def submit(self, stream: MuxStream, outgoing: Outgoing) -> None:
        """Have ``outgoing`` sent, as credit and turns allow; one at a time a stream.

        Raises:
            StreamBrokenError: the stream has no sending side any more.
        """
        stream.check_writable()
        stream.outgoing = outgoing
        self._turns.give(stream)

    def withdraw(self, stream: MuxStream) -> None:
        """Send nothing more of what was submitted."""
        stream.outgoing = None

    def take(self, stream: MuxStream, max_bytes: int) -> bytes | None:
        """Bytes that arrived; b"" at the end of the stream; None: nothing is there yet.

        Raises:
            StreamBrokenError: it was reset or the connection lost, and all bytes are taken.
        """
        if not stream.unread_bytes:
            return stream.ending()
        data = stream.take_unread(max_bytes)
        self._unread_bytes -= len(data)
        stream.consumed += len(data)
        if stream.id in self.streams and not stream.got_close:
            self._release(stream)
        return data

    def close(self, stream: MuxStream) -> None:
        """Say that nothing more will be sent. Everything submitted must have been taken."""
        if stream.broken is None and not stream.sent_close:
            stream.sent_close = True
            stream.outgoing = None
            self._say(Kind.CLOSE, stream.id, 0)
            self._forget_if_done(stream)

    def reset(self, stream: MuxStream) -> None:
        """End it in both directions, and drop what it still has to say."""
        if stream.id in self.streams:
            self._say(Kind.RESET, stream.id, 0)
            self._break(stream, "this side reset the stream")
        self._unread_bytes -= stream.drop_unread()

    def ping(self) -> bool:
        """Ask for a sign of life; False while one is under way."""
        if self._ping is not None:
            return False
        self._pings = (self._pings + 1) % 2**32
        self._ping = self._pings
        self._say(Kind.PING, 0, self._ping)
        return True

    def leave(self, code: EndCode) -> None:
        """Say that the connection is about to end."""
        self._say(Kind.GOAWAY, 0, code)

    def lose(self, reason: str) -> None:
        """The connection is over. Unread bytes stay; so does the end of a stream that had one."""
        self.lost = reason
        self._turns.clear()
        self._control = bytearray()
        for stream in list(self.streams.values()):
            self._break(stream, reason)

    # -- what the peer does ----------------------------------------------------------------------

    def receive(self, data: bytes | bytearray | memoryview) -> None:
        """Take in what arrived. DATA is looked at, not copied, if it is a good part of ``data``.

        Raises:
            MuxViolationError: the peer broke a rule; everything before that was taken in.
        """
        # A stream that keeps a few bytes of a large buffer would keep all of it.
        copy_below = max(LOOKED_AT_BYTES, len(data) // 4)
        for frame in self._frames.feed(data):
            if frame.kind is DATA:
                self._on_data(frame, copy_below)
            else:
                self._on_other(frame)
        if len(self._control) > self._limits.max_control_bytes:
            raise MuxViolationError("the peer doesn't read what it asks for")

    def _on_data(self, frame: Frame, copy_below: int) -> None:
        stream = self._find(frame)
        if stream is None:  # under way when this side reset it
            return
        if stream.got_close:
            raise MuxViolationError(f"DATA after CLOSE on the stream {stream.id}")
        if frame.value > stream.recv_window:
            raise MuxViolationError(f"more than its window on the stream {stream.id}")
        self._unread_bytes += frame.value
        if self._unread_bytes > self._limits.max_unread_bytes:
            raise MuxViolationError("the peer sends more than is read")
        stream.recv_window -= frame.value
        stream.put(frame.data, copy=frame.value < copy_below)
        self._listener.readable(stream)

    def _on_other(self, frame: Frame) -> None:
        match frame.kind:
            case Kind.OPEN:
                self._on_open(frame)
            case Kind.PING:
                if self._pong_due:
                    raise MuxViolationError("PING before the last one was answered")
                self._pong_due = True
                self._say(Kind.PONG, 0, frame.value)
            case Kind.PONG:
                if frame.value != self._ping:
                    raise MuxViolationError("PONG without a PING")
                self._ping = None
            case Kind.GOAWAY:
                self.peer_leaves = EndCode(frame.value)
            case _:
                stream = self._find(frame)
                if stream is not None:
                    self._on_stream(frame, stream)

    def _on_open(self, frame: Frame) -> None:
        if frame.stream_id != self._next_peers:
            raise MuxViolationError(f"OPEN of {frame.stream_id} where {self._next_peers} is next")
        if self._count[frame.stream_id % 2] >= self._limits.max_streams:
            raise MuxViolationError("too many streams")
        self._next_peers += 2
        stream = self._new_stream(frame.stream_id, send_window=frame.value)
        grown = self._grants.grow(stream)
        if grown:
            stream.recv_window += grown
            self._say(Kind.WINDOW, stream.id, grown)
        self._listener.opened(stream)

    def _on_stream(self, frame: Frame, stream: MuxStream) -> None:
        if frame.kind is Kind.RESET:
            self._break(stream, "the peer reset the stream", keep_end=False)
        elif stream.got_close and frame.kind is Kind.CLOSE:
            raise MuxViolationError(f"a second CLOSE on the stream {stream.id}")
        elif frame.kind is Kind.CLOSE:
            stream.got_close = True
            self._listener.readable(stream)
            self._forget_if_done(stream)
        else:
            stream.send_window += frame.value
            if stream.send_window > MAX_CREDIT_BYTES:
                raise MuxViolationError(f"too much credit on the stream {stream.id}")
            self._turns.give(stream)
            if stream.outgoing is None:
                self._listener.writable(stream)

    def _find(self, frame: Frame) -> MuxStream | None:
        """The live stream; None if it is over; a violation if it never was."""
        stream = self.streams.get(frame.stream_id)
        if stream is None:
            own = frame.stream_id % 2 == self._next_own % 2
            if frame.stream_id >= (self._next_own if own else self._next_peers):
                raise MuxViolationError(f"{frame.kind.name} for a stream that wasn't opened")
        return stream

    # -- windows and ends ------------------------------------------------------------------------

    def _new_stream(self, stream_id: int, send_window: int) -> MuxStream:
        stream = MuxStream(stream_id, send_window, FIRST_WINDOW_BYTES)
        self.streams[stream_id] = stream
        self._count[stream_id % 2] += 1
        self._grants.begin(stream)
        return stream

    def _release(self, stream: MuxStream) -> None:
        """Tell the peer of what was read, once that is half of the window."""
        if 2 * stream.consumed >= stream.window:
            credit = stream.consumed + self._grants.grow(stream)
            stream.consumed = 0
            stream.recv_window += credit
            self._say(Kind.WINDOW, stream.id, credit)

    def _forget_if_done(self, stream: MuxStream) -> None:
        if stream.sent_close and stream.got_close:
            self._forget(stream)

    def _forget(self, stream: MuxStream) -> None:
        if self.streams.pop(stream.id, None) is not None:
            self._count[stream.id % 2] -= 1
            self._grants.end(stream)

    def _break(self, stream: MuxStream, reason: str, *, keep_end: bool = True) -> None:
        stream.break_off(reason, keep_end=keep_end)
        self._forget(stream)
        self._listener.readable(stream)
        self._listener.writable(stream)
