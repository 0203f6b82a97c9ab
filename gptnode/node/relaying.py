"""A server's part in rings: a session that is fed by another server, or hands on to one.

Knows how steps are passed on, not how they are computed, nor where peers are.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import trio

from gptnode.errors import GptNodeError, LocalProtocolError, PeerTimeoutError, PeerUnreachableError
from gptnode.net.client_channel import ClientChannel
from gptnode.net.host import PeerStream
from gptnode.net.server_channel import ServerChannel
from gptnode.node.budget import Refusal
from gptnode.wire.messages import (
    Arrived,
    Draw,
    ErrorCode,
    Feed,
    Forward,
    Forwarding,
    Relay,
    Stepped,
    Stranded,
    Trace,
    WireTensor,
)

__all__ = ["Compute", "Dial", "RelayedSession", "RelayedSessions", "dial_nobody"]

Compute = Callable[[int, WireTensor, Draw | None], Awaitable[Stepped]]
"""Runs a step at a position, and draws tokens if it has the head; raises Refusal."""

Dial = Callable[[str], Awaitable[PeerStream]]
"""Opens a stream to a peer of this node's own map; raises NetworkError."""

FEED_TIMEOUT_S = 3.0


async def dial_nobody(peer_id: str) -> PeerStream:
    """For a node that is no part of rings."""
    await trio.lowlevel.checkpoint()
    raise PeerUnreachableError("this server hands on to nobody")


class RelayedSession:
    """One session's part in a ring.

    Steps of the session run one after another, whoever they come from: ``turn`` is their lock.

    Resource handling: the stream to the next server lives in the session's nursery, and is closed
    with it or by another ``forward``.
    """

    def __init__(
        self,
        channel: ServerChannel,
        compute: Compute,
        payload_bytes: int,
        dial: Dial,
        nursery: trio.Nursery,
    ) -> None:
        """``payload_bytes``: of the largest tensor that it takes and hands on."""
        self.payload_bytes = payload_bytes
        self.turn = trio.Lock()
        self._channel = channel
        self._compute = compute
        self._dial = dial
        self._nursery = nursery
        self._onward: ClientChannel | None = None
        self._forward_ticket = 0  # 0: it hands on to nobody
        self._feeders: set[trio.CancelScope] = set()

    async def forward(self, request: Forward) -> Forwarding:
        """Hand on to another session from now on; says why not, where that can't be."""
        onward, self._onward = self._onward, None
        if onward is not None:
            onward.listen(None)
            self._nursery.start_soon(onward.aclose)
        self._forward_ticket = request.ticket if request.feed_key else 0
        if not self._forward_ticket:
            return Forwarding()
        try:
            self._onward = await self._feed(request)
        except GptNodeError as error:
            return Forwarding(error.detail)
        return Forwarding()

    async def relay(self, request: Relay) -> None:
        """Compute a step and pass on what comes out; the client hears of whatever goes wrong."""
        try:
            async with self.turn:
                stepped = await self._compute(request.position, request.hidden, request.draw)
        except Refusal as refusal:
            self._channel.tell(Stranded(request.ticket, refusal.message))
            return
        trace = Trace(stepped.span, stepped.epoch, stepped.queue_s, stepped.compute_s)
        way = (*request.trail, trace)
        try:
            if not self._forward_ticket:
                self._channel.tell(Arrived(request.ticket, request.position, stepped.hidden, way))
            elif self._onward is None:
                self._channel.tell(Stranded(request.ticket, "the next hop is lost"))
            else:
                await self._onward.post(
                    Relay(request.ticket, request.position, stepped.hidden, way, request.draw)
                )
        except LocalProtocolError as error:  # a trail too long
            self._channel.tell(Stranded(request.ticket, error.detail))
        except GptNodeError as error:
            self._channel.tell(Stranded(request.ticket, f"the next hop is lost: {error.detail}"))

    @contextmanager
    def fed(self) -> Iterator[None]:
        """Around a feeder's loop, which is ended with the session.

        Raises:
            Refusal: the session has ended.
        """
        with trio.CancelScope() as scope:
            self._feeders.add(scope)
            try:
                yield
            finally:
                self._feeders.discard(scope)
        if scope.cancelled_caught:
            raise Refusal(ErrorCode.GOING_AWAY, "the session that was fed has ended")

    def end(self) -> None:
        """The session is over: nobody feeds it any more."""
        for scope in tuple(self._feeders):
            scope.cancel()

    async def _feed(self, request: Forward) -> ClientChannel:
        """A stream to the next server that is let in there.

        Raises:
            NetworkError, MismatchError, ...: it isn't.
        """
        try:
            with trio.fail_after(FEED_TIMEOUT_S):
                stream = await self._dial(request.peer_id)
        except trio.TooSlowError:
            raise PeerTimeoutError(f"no stream to it within {FEED_TIMEOUT_S:g} s") from None
        onward = ClientChannel(stream)
        self._nursery.start_soon(onward.run)
        try:
            await onward.request(Feed(request.feed_key), timeout_s=FEED_TIMEOUT_S)
        except BaseException:
            await onward.aclose()
            raise
        onward.raise_limit(self.payload_bytes)
        onward.listen(_NextHop(self, onward))
        return onward

    def next_hop_ended(self, onward: ClientChannel) -> None:
        """Heard from the stream to the next server."""
        if self._onward is onward:
            self._onward = None
            reason = onward.lost.detail if onward.lost is not None else "it closed the stream"
            self._channel.tell(Stranded(self._forward_ticket, f"the next hop is lost: {reason}"))


class RelayedSessions:
    """The sessions that may be fed, by their keys."""

    def __init__(self) -> None:
        """None yet."""
        self._by_key: dict[str, RelayedSession] = {}

    @contextmanager
    def listed(self, feed_key: str, session: RelayedSession) -> Iterator[None]:
        """Around a session's life; one without a key can't be found.

        Raises:
            Refusal: another session has this key.
        """
        if feed_key in self._by_key:
            raise Refusal(ErrorCode.PROTOCOL, "another session has this feed key")
        if feed_key:
            self._by_key[feed_key] = session
        try:
            yield
        finally:
            self._by_key.pop(feed_key, None)
            session.end()

    def find(self, feed_key: str) -> RelayedSession:
        """The session with this key.

        Raises:
            Refusal: there is none.
        """
        session = self._by_key.get(feed_key)
        if session is None:
            raise Refusal(ErrorCode.REFUSED, "no session here has this feed key")
        return session


class _NextHop:
    """Listens to the stream to the next server."""

    def __init__(self, session: RelayedSession, onward: ClientChannel) -> None:
        self._session = session
        self._onward = onward

    def arrived(self, message: Arrived) -> None:
        """Feeders are told nothing unasked: the protocol doesn't let it in."""

    def stranded(self, message: Stranded) -> None:
        """As above."""

    def session_ended(self) -> None:
        self._session.next_hop_ended(self._onward)
