"""Host: listens, dials, and gives streams to authenticated, allowed peers.

Why not ``libp2p.new_host``: see docs/decisions/0002-libp2p-at-arms-length.md. libp2p's handshake
and wire formats are used (gptnode.net.handshake), so that any libp2p node with Noise and Yamux can
talk to us; the life of connections is a trio nursery here.

Knows addresses, deadlines and limits. Knows no messages: what goes over a stream is its handler's.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import trio

from gptnode.errors import (
    PeerBusyError,
    PeerRefusedError,
    PeerTimeoutError,
    PeerUnreachableError,
)
from gptnode.net.dialing import dial_first
from gptnode.net.handshake import (
    HandshakeError,
    Handshaker,
    UnknownProtocolError,
    agree_on_protocol,
)
from gptnode.net.identity import Identity, short_peer_id
from gptnode.net.link import Link, StreamSlots
from gptnode.net.listener import Listener
from gptnode.net.strangers import RefusedPeers, Stranger
from gptnode.net.stream import PeerStream

__all__ = ["PROTOCOL", "Host", "PeerStream", "open_host"]

PROTOCOL = "/gptnode/1.0.0"

# A restarted peer comes back while its dead connections still seem alive; the oldest gives way.
MAX_LINKS_PER_PEER = 8
SHUTDOWN_S = 0.5

log = logging.getLogger("gptnode.net")


class Host:
    """The node on the network; ``open_host`` makes it."""

    def __init__(
        self,
        identity: Identity,
        allow: Callable[[str], bool],
        handler: Callable[[PeerStream], Awaitable[None]] | None,
        nursery: trio.Nursery,
        slots: StreamSlots,
    ) -> None:
        """Use ``open_host``."""
        self.peer_id = identity.peer_id
        self._allow = allow
        self._handler = handler
        self._nursery = nursery
        self._handshaker = Handshaker(identity, allow)
        self._slots = slots
        self._links: dict[str, list[Link]] = {}
        self._dialling: dict[str, trio.Lock] = {}
        self._listener = Listener(self._handshaker, nursery, self._run_link)
        self._ended_received = self._ended_sent = 0  # bytes of links that have ended

    def __repr__(self) -> str:
        return f"<Host {self.peer_id}, {len(self.connected())} peers>"

    @property
    def addrs(self) -> tuple[str, ...]:
        """Multiaddrs, with /p2p/ID, at which this node can be dialled; () if it doesn't listen."""
        return self._listener.addrs(self.peer_id)

    @property
    def refused(self) -> RefusedPeers:
        """The peers that were turned away lately."""
        return self._listener.refused

    def connected(self) -> tuple[str, ...]:
        """Ids of the authenticated peers with a live connection."""
        return tuple(peer_id for peer_id in self._links if self._live_link(peer_id) is not None)

    def links(self) -> tuple[Link, ...]:
        """All live connections; a peer may have several."""
        return tuple(link for links in self._links.values() for link in links if link.is_live)

    def traffic_bytes(self) -> tuple[int, int]:
        """What was received and sent so far, over all connections with authenticated peers."""
        raws = [link.raw for links in self._links.values() for link in links]
        return (
            self._ended_received + sum(raw.bytes_received for raw in raws),
            self._ended_sent + sum(raw.bytes_sent for raw in raws),
        )

    def strangers(self) -> tuple[Stranger, ...]:
        """Inbound connections in the middle of their handshake."""
        return self._listener.strangers()

    # -- dialling --------------------------------------------------------------------------------

    async def connect(self, peer_id: str, addrs: Sequence[str], *, timeout_s: float = 5.0) -> None:
        """Have a connection to ``peer_id``: the one there is, or one to an address that works.

        Addresses are tried in order; each gets an equal part of the time that is left. Raises
        PeerRefusedError where the peer hung up on us (or we don't allow it), PeerUnreachableError,
        with the reason of every address, where none works, within ``timeout_s``.
        """
        if peer_id == self.peer_id:
            raise PeerUnreachableError(f"{short_peer_id(peer_id)} is this node itself")
        if not self._allow(peer_id):
            raise PeerRefusedError(
                f"{short_peer_id(peer_id)} is not in this node's own BlocksMap, so it isn't dialled"
            )
        if not addrs:
            raise PeerUnreachableError(f"no address is known for {short_peer_id(peer_id)}")
        deadline = trio.current_time() + timeout_s
        lock = self._dialling.setdefault(peer_id, trio.Lock())
        try:
            with trio.fail_at(deadline):
                await lock.acquire()
        except trio.TooSlowError:
            raise PeerUnreachableError(
                f"cannot reach {short_peer_id(peer_id)}: another attempt took too long"
            ) from None
        try:
            if self._live_link(peer_id) is None:
                await self._connect_new(peer_id, addrs, deadline)
        finally:
            lock.release()
            if not lock.statistics().tasks_waiting:
                self._dialling.pop(peer_id, None)

    async def _connect_new(self, peer_id: str, addrs: Sequence[str], deadline: float) -> None:
        raw, muxer = await dial_first(self._handshaker, peer_id, addrs, deadline)
        link = Link(raw, muxer)
        self._nursery.start_soon(self._run_link, link)
        await link.ready.wait()

    # -- streams ---------------------------------------------------------------------------------

    async def open_stream(self, peer_id: str, *, timeout_s: float = 3.0) -> PeerStream:
        """A new stream to a connected peer, PROTOCOL agreed on.

        Raises PeerUnreachableError (not connected, connection lost, or no block server),
        PeerBusyError (it takes no more streams), PeerTimeoutError. A peer that sent nothing at all
        in that time is disconnected: the next ``connect`` dials it anew.
        """
        link = self._live_link(peer_id)
        if link is None:
            raise PeerUnreachableError(f"{short_peer_id(peer_id)} is not connected")
        received = link.raw.bytes_received
        stream: PeerStream | None = None
        agreed = False
        try:
            with trio.fail_after(timeout_s):
                stream = await link.open_stream()
                await agree_on_protocol(stream, PROTOCOL)
            agreed = True
        except trio.TooSlowError:
            if link.raw.bytes_received == received:
                link.cut()
            raise PeerTimeoutError(
                f"{short_peer_id(peer_id)} didn't answer to a new stream within {timeout_s:g} s"
            ) from None
        except UnknownProtocolError as error:
            raise PeerUnreachableError(
                f"{short_peer_id(peer_id)} is no block server: {error}"
            ) from None
        except (HandshakeError, trio.BrokenResourceError) as error:
            if link.is_live:
                raise PeerBusyError(
                    f"{short_peer_id(peer_id)} takes no further stream ({error})"
                ) from None
            raise PeerUnreachableError(
                f"the connection to {short_peer_id(peer_id)} was lost"
            ) from None
        finally:
            if stream is not None and not agreed:
                await stream.reset()
        return stream

    async def disconnect(self, peer_id: str) -> None:
        """Cut all connections with the peer, if any, with their streams and handlers."""
        links = list(self._links.get(peer_id, ()))
        for link in links:
            link.cut()
        with trio.move_on_after(SHUTDOWN_S):
            for link in links:
                await link.ended.wait()

    # -- links -----------------------------------------------------------------------------------

    def _live_link(self, peer_id: str) -> Link | None:
        """The newest live one."""
        live = (link for link in reversed(self._links.get(peer_id, ())) if link.is_live)
        return next(live, None)

    async def _run_link(self, link: Link) -> None:
        links = self._links.setdefault(link.peer_id, [])
        links.append(link)
        if len(links) > MAX_LINKS_PER_PEER:
            links[0].cut()
        log.debug("connected with %s", link.peer_id)
        try:
            await link.run(PROTOCOL, self._handler, self._allow, self._slots)
        except Exception:
            log.exception("the connection with %s failed", link.peer_id)
        finally:
            links.remove(link)
            self._ended_received += link.raw.bytes_received
            self._ended_sent += link.raw.bytes_sent
            if not links and self._links.get(link.peer_id) is links:
                del self._links[link.peer_id]
            log.debug("connection with %s ended", link.peer_id)

    async def _shut_down(self) -> None:
        """Send what streams have been given, then close; at most SHUTDOWN_S, and not cancelled."""
        with trio.CancelScope(deadline=trio.current_time() + SHUTDOWN_S, shield=True):
            async with trio.open_nursery() as nursery:
                for links in self._links.values():
                    for link in links:
                        nursery.start_soon(link.finish)


@asynccontextmanager
async def open_host(
    identity: Identity,
    *,
    listen: Sequence[str] = (),
    allow: Callable[[str], bool],
    handler: Callable[[PeerStream], Awaitable[None]] | None = None,
    slots: StreamSlots | None = None,
) -> AsyncIterator[Host]:
    """A host for the ``async with`` block. ``allow`` decides about every peer id, both ways.
    ``slots`` bounds the streams that peers may have open at once.

    *Resource handling*: leaving the block closes listeners and connections and cancels the
    handlers; it takes a second at most unless a handler shields itself longer.
    *Error handling*: NetworkError where an address can't be listened on. What the block raises
    comes out as it is, in no exception group. Handlers and peers can't end the host: a handler that
    raises is logged on "gptnode.net" and its stream reset.
    """
    raised: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            host = Host(identity, allow, handler, nursery, slots or StreamSlots())
            try:
                for addr in listen:
                    await host._listener.listen(addr)
                yield host
            except BaseException as error:
                raised = error
                raise
            finally:
                await host._shut_down()
                nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        if group.subgroup(KeyboardInterrupt) is not None:  # it may strike in any task
            raise KeyboardInterrupt from None
        if raised is None or isinstance(raised, trio.Cancelled):
            raise
        context = raised.__context__
        try:
            raise raised
        finally:
            raised.__context__ = context
            del raised, context, group
