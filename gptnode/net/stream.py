"""PeerStream: one stream to an authenticated peer, as trio knows streams.

Knows trio and the muxer's verbs. Knows no protocol.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import trio

from gptnode.net.muxer import Muxer, Outgoing
from gptnode.net.own_muxer import OwnMuxer

__all__ = ["PeerStream"]

DEFAULT_RECEIVE_BYTES = 1024 * 1024


class PeerStream(trio.abc.Stream):
    """A stream of bytes in both directions with ``peer_id``, whose key the Noise handshake proved.

    One task may send and another receive at a time (else BusyResourceError). After ``b""`` from
    ``receive_some`` the peer has finished in order; a reset, a kill or a lost connection is
    BrokenResourceError, after all that had arrived was handed out.
    """

    def __init__(
        self, muxer: Muxer, muxed: Any, peer_id: str, linger: Callable[[PeerStream], None]
    ) -> None:
        """``linger`` takes a stream whose end the peer hasn't confirmed yet; made by Host alone."""
        self.peer_id = peer_id
        self._muxer = muxer
        self._muxed = muxed
        self._linger = linger
        self._closed = False
        self._broken = False
        self._sending = False
        self._receiving = False

    def __repr__(self) -> str:
        state = "closed" if self._closed else "broken" if self._broken else "open"
        return f"<PeerStream {self._muxed.stream_id} with {self.peer_id}, {state}>"

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of ``data``, waiting as long as the peer's window and the network take.

        Cancelled half-way, part of ``data`` has been sent: the stream is reset then, so that the
        peer never takes what follows for the rest. The connection and its other streams go on.
        """
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        self._sending = True
        outgoing = Outgoing(data)
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
            self._check_open()
            if outgoing.rest:
                await self._muxer.send_all(self._muxed, outgoing)
        except trio.BrokenResourceError:
            self._broken = True
            self._check_open_here()
            raise
        except trio.Cancelled:
            if outgoing.begun:
                await self.reset()
            raise
        finally:
            self._sending = False

    def send_now(self, data: memoryview) -> memoryview:
        """Send what can go at once, without a switch of tasks; what is left of ``data``.

        Only the own stream layer can do that: over Yamux all of it is left. Raises nothing: an end
        of the stream shows when the rest is sent.
        """
        if self._sending or self._closed or self._broken or not isinstance(self._muxer, OwnMuxer):
            return data
        outgoing = Outgoing(data)
        self._muxer.send_now(self._muxed, outgoing)
        return outgoing.take(outgoing.rest)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the peer's window and the network have room."""
        await trio.lowlevel.checkpoint_if_cancelled()
        self._check_open()
        try:
            await self._muxer.wait_writable(self._muxed)
        except trio.BrokenResourceError:
            self._check_open_here()
            raise

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """What has arrived (1 MiB at most by default), waiting for the first byte; b"" at the end.

        Cancelled, it has taken nothing.
        """
        if self._receiving:
            raise trio.BusyResourceError("another task is receiving on this stream")
        if max_bytes is not None and max_bytes < 1:
            raise ValueError("max_bytes must be at least 1")
        self._receiving = True
        wanted = max_bytes or DEFAULT_RECEIVE_BYTES
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
            waited = False
            while True:
                self._check_open_here()
                data = await self._muxer.take(self._muxed, wanted)
                if data is not None:
                    if not waited:
                        await trio.lowlevel.cancel_shielded_checkpoint()
                    return data
                await self._muxer.wait_readable(self._muxed)
                waited = True
        except trio.BrokenResourceError:
            self._broken = True
            self._check_open_here()
            raise
        finally:
            self._receiving = False

    def deliver_to(self, receiver: Callable[[bytes], None]) -> None:
        """Hand what has arrived, and arrives, to ``receiver`` at once, where that can be done.

        ``receive_some`` then gives what ``receiver`` isn't given (over Yamux all), and the end.
        Ended by ``aclose`` and ``reset``.
        """
        if isinstance(self._muxer, OwnMuxer):
            self._muxer.deliver(self._muxed, receiver)

    def _deliver_no_more(self) -> None:
        if isinstance(self._muxer, OwnMuxer):
            self._muxer.deliver(self._muxed, None)

    async def aclose(self) -> None:
        """Finish in order: all that was sent arrives, then the end. Doesn't wait for the peer.

        Cancelled (``trio.aclose_forcefully``), it resets the stream instead. Idempotent.
        """
        if not self._closed:
            self._closed = True
            self._deliver_no_more()
            try:
                await trio.lowlevel.checkpoint_if_cancelled()
            except trio.Cancelled:
                await self._muxer.reset(self._muxed)
                raise
            if self._broken or self._sending:
                await self._muxer.reset(self._muxed)
            else:
                await self._muxer.finish(self._muxed)
                self._muxer.wake(self._muxed)
                self._linger(self)
        await trio.lowlevel.checkpoint()

    async def reset(self) -> None:
        """End the stream at once in both directions; the peer sees it as broken. Idempotent."""
        self._closed = True
        self._broken = True
        self._deliver_no_more()
        await self._muxer.reset(self._muxed)

    async def drain(self) -> None:
        """After ``aclose``: throw away what the peer still sends, until it ends too or is lost."""
        try:
            while await self._muxer.take(self._muxed, DEFAULT_RECEIVE_BYTES) != b"":
                await self._muxer.wait_readable(self._muxed)
        except trio.BrokenResourceError:
            pass

    def _check_open(self) -> None:
        self._check_open_here()
        if self._broken:
            raise trio.BrokenResourceError("the stream is broken")

    def _check_open_here(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this side closed the stream")
