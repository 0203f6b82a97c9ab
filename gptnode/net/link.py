"""Link: one connection to one authenticated peer, and everything that lives and dies with it.

A link is a task. Its nursery holds the muxer, the outbox and the handlers of the streams that the
peer opened; when the task ends, all of them have ended and the socket is closed. Nothing is left to
clean up elsewhere, so nothing leaks, however many connections a node sees.

Knows one connection. Knows no other links and no addresses.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from gptnode.net.handshake import HandshakeError, answer_protocol
from gptnode.net.identity import short_peer_id
from gptnode.net.muxer import Muxer
from gptnode.net.socket_connection import SocketConnection
from gptnode.net.stream import PeerStream

__all__ = ["Link", "StreamSlots"]

NEGOTIATE_S = 3.0
# After a lost connection, handlers get this long to notice before they are cancelled.
LOST_GRACE_S = 2.0
# After aclose(), the peer gets this long to end its side before the stream is reset.
LINGER_S = 2.0

log = logging.getLogger("gptnode.net")


class StreamSlots:
    """How many streams may be handled at once: of one peer, and of all."""

    def __init__(self, per_peer: int = 32, in_all: int = 256) -> None:
        """Streams beyond that are reset at once."""
        self._per_peer = per_peer
        self._in_all = in_all
        self._used: dict[str, int] = {}

    def take(self, peer_id: str) -> bool:
        """Take a slot, if there is one."""
        used = self._used.get(peer_id, 0)
        if used >= self._per_peer or sum(self._used.values()) >= self._in_all:
            return False
        self._used[peer_id] = used + 1
        return True

    def give_back(self, peer_id: str) -> None:
        """Return a slot."""
        left = self._used.pop(peer_id) - 1
        if left:
            self._used[peer_id] = left


class Link:
    """One live connection; ``run`` is its life."""

    def __init__(self, raw: SocketConnection, muxer: Muxer) -> None:
        """Of a connection whose handshake succeeded."""
        self.peer_id: str = muxer.peer_id.to_base58()
        self.raw = raw
        self.addr = raw.remote_addr
        self.since_s = time.time()  # for people; nothing is decided by it
        self.ready = trio.Event()
        self.ended = trio.Event()
        self._muxer = muxer
        self._scope = trio.CancelScope()
        self._nursery: trio.Nursery | None = None

    def __repr__(self) -> str:
        return f"<Link with {short_peer_id(self.peer_id)}, {'live' if self.is_live else 'over'}>"

    @property
    def is_live(self) -> bool:
        """Whether streams can be opened."""
        alive = self._nursery is not None and not self.raw.is_closed and not self.ended.is_set()
        return alive and not self._muxer.peer_leaves

    @property
    def streams(self) -> int:
        """How many streams are open on it, either way."""
        return len(self._muxer.streams)

    async def finish(self) -> None:
        """Send what streams were given, then end. Cancel it to end at once."""
        self._muxer.leave()
        await self.raw.finish()

    def cut(self) -> None:
        """End it now, with its streams and their handlers."""
        self.raw.close_now()
        self._scope.cancel()

    async def open_stream(self) -> PeerStream:
        """A new stream, no protocol agreed on yet, or BrokenResourceError."""
        return self._wrap(await self._muxer.open())

    async def run(
        self,
        protocol: str,
        handler: Callable[[PeerStream], Awaitable[None]] | None,
        allow: Callable[[str], bool],
        slots: StreamSlots,
    ) -> None:
        """Live until the connection is lost or cut; ``ready`` is set when streams can be opened."""
        try:
            with self._scope:
                if not allow(self.peer_id):  # struck off while its handshake went on
                    return
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self.raw.run_outbox)
                    nursery.start_soon(self._run_muxer)
                    self._nursery = nursery
                    self.ready.set()
                    await self._accept(protocol, handler, allow, slots)
                    nursery.cancel_scope.deadline = trio.current_time() + LOST_GRACE_S
        finally:
            self._nursery = None
            self.raw.close_now()
            self.ended.set()
            self.ready.set()  # who waits for it sees that it isn't live

    async def _run_muxer(self) -> None:
        try:
            await self._muxer.run()
        except Exception:
            log.exception("the muxer failed, connection with %s closed", self.peer_id)
        finally:
            self.raw.close_now()

    async def _accept(
        self,
        protocol: str,
        handler: Callable[[PeerStream], Awaitable[None]] | None,
        allow: Callable[[str], bool],
        slots: StreamSlots,
    ) -> None:
        nursery = self._nursery
        while nursery is not None:
            try:
                stream = self._wrap(await self._muxer.accept())
            except trio.EndOfChannel:
                return
            if not allow(self.peer_id):
                log.info("%s isn't allowed any more: connection closed", self.peer_id)
                self.cut()
            elif not slots.take(self.peer_id):
                log.warning("%s has too many streams open: one more was reset", self.peer_id)
                await stream.reset()
            else:
                nursery.start_soon(self._handle, stream, protocol, handler, slots)

    async def _handle(
        self,
        stream: PeerStream,
        protocol: str,
        handler: Callable[[PeerStream], Awaitable[None]] | None,
        slots: StreamSlots,
    ) -> None:
        """One stream from the peer, while its handler runs. A failing handler ends just that."""
        try:
            with trio.fail_after(NEGOTIATE_S):
                await answer_protocol(stream, protocol if handler is not None else None)
            if handler is not None:
                await handler(stream)
            await stream.aclose()
        except (HandshakeError, trio.TooSlowError) as error:
            log.debug("stream of %s ended without a protocol: %s", self.peer_id, error)
            await stream.reset()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            log.debug("stream of %s broke off", self.peer_id)
            await stream.reset()
        except Exception:
            log.exception(
                "the handler of a stream of %s failed: the stream was reset", self.peer_id
            )
            await stream.reset()
        except BaseException:
            await stream.reset()
            raise
        finally:
            slots.give_back(self.peer_id)

    def _wrap(self, muxed: Any) -> PeerStream:
        return PeerStream(self._muxer, muxed, self.peer_id, self._start_linger)

    def _start_linger(self, stream: PeerStream) -> None:
        if self.is_live and self._nursery is not None:
            self._nursery.start_soon(self._linger, stream)

    async def _linger(self, stream: PeerStream) -> None:
        with trio.move_on_after(LINGER_S) as scope:
            await stream.drain()
        if scope.cancelled_caught:
            await stream.reset()
