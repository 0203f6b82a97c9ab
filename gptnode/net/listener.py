"""The door of a node: listens, and finds out who a stranger is before anything else may happen.

Bounded in time and number, as anybody can open connections. What becomes of a peer that is known
and allowed is its host's business.
"""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Awaitable, Callable

import trio

from gptnode.errors import NetworkError
from gptnode.net.addresses import Endpoint, parse_endpoint, reachable_addrs
from gptnode.net.dialing import os_reason
from gptnode.net.handshake import HandshakeError, Handshaker, NotAllowedError
from gptnode.net.link import Link
from gptnode.net.socket_connection import SocketConnection
from gptnode.net.strangers import RefusedPeers, Stranger

__all__ = ["MAX_HANDSHAKES", "Listener"]

HANDSHAKE_S = 5.0
# Strangers in the middle of a handshake; beyond it the oldest gives way, so idle sockets can't
# keep a listed peer out.
MAX_HANDSHAKES = 128

log = logging.getLogger("gptnode.net")


class Listener:
    """Takes inbound connections, each in a task of its own.

    Resource handling: ``nursery`` owns listeners and connections.
    """

    def __init__(
        self,
        handshaker: Handshaker,
        nursery: trio.Nursery,
        run_link: Callable[[Link], Awaitable[None]],
    ) -> None:
        """Nothing is listened on yet; ``run_link`` is the life of a connection that is known."""
        self.refused = RefusedPeers()
        self._handshaker = handshaker
        self._nursery = nursery
        self._run_link = run_link
        self._bound: list[Endpoint] = []
        self._handshakes: dict[trio.CancelScope, Stranger] = {}

    def addrs(self, peer_id: str) -> tuple[str, ...]:
        """Multiaddrs, with ``peer_id``, at which this node can be dialled; () if it can't."""
        found = [addr for bound in self._bound for addr in reachable_addrs(bound, peer_id)]
        return tuple(dict.fromkeys(found))

    def strangers(self) -> tuple[Stranger, ...]:
        """Connections in the middle of their handshake."""
        return tuple(self._handshakes.values())

    async def listen(self, addr: str) -> None:
        """Accept connections at ``addr``, a multiaddr with an IP address.

        Raises:
            NetworkError: it can't be listened on.
        """
        endpoint = parse_endpoint(addr)
        if endpoint.is_name:
            raise NetworkError(f"cannot listen on {addr}: give an IP address, /ip4/0.0.0.0 for all")
        try:
            listeners = await trio.open_tcp_listeners(endpoint.port, host=endpoint.host)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise NetworkError(
                    f"cannot listen on {addr}: the port is in use; end the program that has it, or"
                    " choose another port (0 takes a free one)"
                ) from None
            raise NetworkError(f"cannot listen on {addr}: {os_reason(error)}") from error
        for listener in listeners:
            port: int = listener.socket.getsockname()[1]
            self._bound.append(Endpoint(endpoint.kind, endpoint.host, port))
        self._nursery.start_soon(self._serve, listeners)

    async def _serve(self, listeners: list[trio.SocketListener]) -> None:
        await trio.serve_listeners(self._answer, listeners, handler_nursery=self._nursery)

    async def _answer(self, stream: trio.SocketStream) -> None:
        """The life of an inbound connection."""
        raw = SocketConnection(stream, is_initiator=False)
        muxer = None
        try:
            with trio.move_on_after(HANDSHAKE_S) as scope:
                self._handshakes[scope] = Stranger(raw.remote_addr, time.time())
                if len(self._handshakes) > MAX_HANDSHAKES:
                    next(iter(self._handshakes)).cancel()
                try:
                    muxer = await self._handshaker.answer(raw)
                finally:
                    self._handshakes.pop(scope, None)
        except NotAllowedError as error:
            self.refused.note(str(error), raw.remote_addr)
        except HandshakeError as error:
            log.debug("no handshake with %s: %s", raw.get_remote_address(), error)
        finally:
            if muxer is None:
                raw.close_now()
        if muxer is not None:
            await self._run_link(Link(raw, muxer))
