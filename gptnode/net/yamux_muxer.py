"""Streams with any libp2p node: py-libp2p's Yamux, with what it lacks.

Between nodes of gptnode the stream layer is OwnMuxer; this is for all others.

Added to the stock class of 0.8.1 (all of it local: the bytes on the wire are plain Yamux):

- reading never loses bytes: a cancelled read takes nothing, and what arrived before the connection
  ended can still be read afterwards (the stock class drops it, so a peer's last word got lost);
- the end of a stream (FIN) is told apart from a reset and from a lost connection;
- a write waits for room as long as it takes (the stock class gives up after 5 s of a closed window)
  and is cancelled only between whole frames;
- a stream's window is fixed, and told in few frames; one connection buffers a bounded number of
  bytes (stock: 600 MiB were seen on one unread stream).

Knows frames and windows. Knows no protocols above them. Errors leave as trio's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import trio
from libp2p.abc import ISecureConn
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.stream_muxer.exceptions import MuxedConnUnavailable
from libp2p.stream_muxer.yamux.yamux import Yamux

from gptnode.net.muxer import Outgoing
from gptnode.net.socket_connection import SocketConnection

__all__ = ["YamuxMuxer"]

# A Yamux frame of this payload is just one Noise record; one byte more would make two.
WRITE_BYTES = 65_507
# How far a peer may be ahead of the reader once a stream has proved to carry much (256 KiB before);
# 80 MB/s at a round trip of 50 ms. Yamux would double it at every few small reads, up to 16 MiB.
WINDOW_BYTES = 4 * 1024 * 1024
# A window update a read would cost a frame each; this many bytes are released at a time.
RELEASE_BYTES = 64 * 1024
# Unread bytes of all streams of a connection: 32 streams with a full window each.
BUFFERED_LIMIT_BYTES = 32 * WINDOW_BYTES
# The stock class blocks for ever at 256 open streams: refuse before that.
OPEN_STREAMS_LIMIT = 200
# Windows open without an event: how often a sender looks again if nothing else wakes it.
WINDOW_POLL_S = 0.01


@dataclass(slots=True)
class _Tail:
    """What a stream still had to say when its connection ended."""

    unread: bytearray
    ended: bool  # its FIN had come


class YamuxMuxer(Yamux):  # type: ignore[misc]
    """Streams of one connection, as Muxer has them.

    The stream objects are libp2p's; they are opaque to everyone else.
    """

    def __init__(self, secured: ISecureConn, raw: SocketConnection) -> None:
        """``secured`` runs over ``raw``, whose outbox makes every write here immediate."""
        super().__init__(secured, secured.get_remote_peer(), is_initiator=raw.is_initiator)
        self._raw = raw
        self._tails: dict[int, _Tail] = {}
        self._unreleased: dict[int, int] = {}  # bytes that were read, not yet told to the peer

    @property
    def peer_leaves(self) -> bool:
        """Yamux peers end without a word."""
        return False

    async def run(self) -> None:
        """Live until the connection ends; ``accept`` ends with it."""
        try:
            await self.start()
        finally:
            self._raw.close_now()
            self.new_stream_send_channel.close()

    def leave(self) -> None:
        """Nothing is said: the end of the connection is enough."""

    # -- opening and accepting -------------------------------------------------------------------

    async def open(self) -> Any:
        """A new stream, or BrokenResourceError: connection lost, or too many streams on it."""
        if self.event_shutting_down.is_set():
            raise trio.BrokenResourceError("the connection is lost")
        if len(self.streams) >= OPEN_STREAMS_LIMIT:
            raise trio.BrokenResourceError("too many streams are open on the connection")
        # Cancelled in the middle, it would leave the slot of the stream taken.
        with trio.CancelScope(shield=True):
            try:
                return await self.open_stream()
            except Exception as error:
                raise trio.BrokenResourceError(f"no stream could be opened: {error}") from error

    async def accept(self) -> Any:
        """The next stream that the peer opened; EndOfChannel when the connection has ended."""
        try:
            return await self.accept_stream()
        except MuxedConnUnavailable:
            raise trio.EndOfChannel from None

    # -- reading ---------------------------------------------------------------------------------

    async def wait_readable(self, stream: Any) -> None:
        """Wait until there are bytes, or the end of the stream, or ``wake``."""
        event = self.stream_events.get(stream.stream_id)
        if event is not None and self._is_quiet(stream):
            if event.is_set():  # left over from bytes that were read since
                event = self.stream_events[stream.stream_id] = trio.Event()
            await event.wait()

    def wake(self, stream: Any) -> None:
        """Let ``wait_readable`` return."""
        event = self.stream_events.get(stream.stream_id)
        if event is not None:
            event.set()

    async def take(self, stream: Any, max_bytes: int) -> bytes | None:
        """What is there, at most ``max_bytes``; b"" at the end of the stream; None: nothing yet.

        Raises BrokenResourceError after a reset or a lost connection, once all bytes are taken.
        """
        sid = stream.stream_id
        tail = self._tails.get(sid)
        unread = tail.unread if tail is not None else self.stream_buffers.get(sid)
        if unread:
            data = bytes(unread[:max_bytes])
            del unread[:max_bytes]
            if tail is None:
                with trio.CancelScope(shield=True):
                    await self._opened_window(stream, len(data))
            return data
        if unread is None or stream.recv_closed or stream.closed:  # no more will come
            self._unreleased.pop(sid, None)
        if tail is not None:
            if tail.ended:
                return b""
            raise trio.BrokenResourceError("the connection was lost")
        if stream.reset_received:
            raise trio.BrokenResourceError("the peer reset the stream")
        if stream.recv_closed:
            return b""
        if unread is None or stream.closed or self.event_shutting_down.is_set():
            raise trio.BrokenResourceError("the connection was lost")
        return None

    def _is_quiet(self, stream: Any) -> bool:
        return not (
            self.stream_buffers.get(stream.stream_id)
            or stream.reset_received
            or stream.recv_closed
            or stream.closed
            or self.event_shutting_down.is_set()
        )

    async def _opened_window(self, stream: Any, n_bytes: int) -> None:
        """After a read: let the peer send as much again; drop the books of a done stream."""
        try:
            if stream.closed:
                await self._finalize_stream(stream, fully_closed=True)
            elif not stream.recv_closed:
                await self._release(stream, n_bytes)
        except Exception:  # the connection is lost: the next read says so
            self._raw.close_now()

    async def _release(self, stream: Any, n_bytes: int) -> None:
        n_bytes += self._unreleased.pop(stream.stream_id, 0)
        if n_bytes < RELEASE_BYTES:
            self._unreleased[stream.stream_id] = n_bytes
            return
        if stream.target_recv_window < WINDOW_BYTES:  # the first time: it is a stream for much
            n_bytes += WINDOW_BYTES - stream.target_recv_window
            stream.target_recv_window = WINDOW_BYTES
        stream.recv_window += n_bytes
        await stream.send_window_update(n_bytes)

    # -- writing ---------------------------------------------------------------------------------

    async def wait_writable(self, stream: Any) -> None:
        """Wait until the peer's window and the outbox have room, or raise BrokenResourceError."""
        while True:
            if stream.send_closed or stream.closed or self.event_shutting_down.is_set():
                raise trio.BrokenResourceError("the stream or its connection was closed")
            if not self._raw.has_room:
                await self._raw.wait_room()
            elif stream.send_window > 0:
                return
            else:
                with trio.move_on_after(WINDOW_POLL_S):
                    await self._raw.wait_read_done()

    async def send_all(self, stream: Any, outgoing: Outgoing) -> None:
        """Send it frame by frame. Cancelled only between two: one is sent whole or not at all."""
        while outgoing.rest:
            await trio.lowlevel.checkpoint_if_cancelled()
            await self.wait_writable(stream)
            piece = outgoing.take(min(WRITE_BYTES, stream.send_window))
            with trio.CancelScope(shield=True):
                try:
                    await stream.write(bytes(piece))
                except Exception as error:
                    raise trio.BrokenResourceError(str(error)) from error

    # -- ending ----------------------------------------------------------------------------------

    async def finish(self, stream: Any) -> None:
        """Say that nothing more will be sent (FIN). Doesn't wait, doesn't raise."""
        with trio.CancelScope(shield=True):
            try:
                await stream.close()
            except Exception:
                self._raw.close_now()

    async def reset(self, stream: Any) -> None:
        """End the stream in both directions (RST). Doesn't wait, doesn't raise."""
        self._tails.pop(stream.stream_id, None)
        self._unreleased.pop(stream.stream_id, None)
        with trio.CancelScope(shield=True):
            try:
                if stream.closed:  # an RST may have come with unread bytes before it
                    self.stream_buffers.pop(stream.stream_id, None)
                    await self._finalize_stream(stream, fully_closed=True)
                else:
                    self.stream_buffers.get(stream.stream_id, bytearray()).clear()
                    self.wake(stream)
                    await stream.reset()
            except Exception:
                self._raw.close_now()

    # -- changed in the stock class --------------------------------------------------------------

    async def _read_data_body(self, length: int) -> bytes:
        buffered = sum(map(len, self.stream_buffers.values()))
        if buffered + length > BUFFERED_LIMIT_BYTES:
            self._raw.close_now()
            raise ConnectionClosedError("the peer sends more than is read", transport="tcp")
        return bytes(await super()._read_data_body(length))

    async def _cleanup_on_error(self) -> None:
        for sid, stream in self.streams.items():
            ended = bool(stream.recv_closed and not stream.reset_received)
            self._tails[sid] = _Tail(self.stream_buffers.get(sid) or bytearray(), ended)
        # The stock class clears the dictionary, not the buffers that are kept here.
        await super()._cleanup_on_error()
