"""Whether peers can be reached, and how far away they are: by knocking, without a session.

A knock is a stream that is closed before anything is opened on it: one message to the peer and its
reply, which takes nothing of the peer's room. Knows no blocks and no routes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import trio

from gptnode.errors import (
    NetworkError,
    PeerRefusedError,
    PeerTimeoutError,
    ProtocolError,
    StreamLostError,
)
from gptnode.net.client_channel import CLOSED_WITHIN_S, ClientChannel
from gptnode.net.host import Host

__all__ = ["Reach", "ReachWatch", "knock"]

ReachState = Literal["reachable", "leaving", "refuses", "silent", "down", "unknown"]

PATIENCE_S = 5.0


@dataclass(frozen=True, slots=True)
class Reach:
    """How a peer was when it was asked last. ``reason`` says why it can't be used."""

    state: ReachState = "unknown"
    round_trip_s: float | None = None
    reason: str = ""


async def knock(host: Host, peer_id: str, addrs: tuple[str, ...]) -> Reach:
    """Ask ``peer_id`` for a sign of life; never raises for what a peer or the network does."""
    try:
        with trio.fail_after(PATIENCE_S):
            await host.connect(peer_id, addrs)
            return await _knock(host, peer_id)
    except PeerRefusedError as error:
        return Reach("refuses", reason=error.detail)
    except (PeerTimeoutError, trio.TooSlowError) as error:
        return Reach("silent", reason=getattr(error, "detail", "") or "it didn't answer in time")
    except StreamLostError as error:
        # It ended the stream, and kept the connection: it takes no more of them.
        leaves = peer_id in host.connected()
        return Reach("leaving" if leaves else "down", reason=error.detail)
    except (NetworkError, ProtocolError) as error:
        return Reach("down", reason=error.detail)


async def _knock(host: Host, peer_id: str) -> Reach:
    channel = ClientChannel(await host.open_stream(peer_id))
    async with trio.open_nursery() as nursery:
        await nursery.start(channel.run)
        asked_s = trio.current_time()
        await channel.aclose()
        took_s = trio.current_time() - asked_s
        nursery.cancel_scope.cancel()
    if took_s >= CLOSED_WITHIN_S:
        raise PeerTimeoutError("it takes streams and says nothing on them")
    if channel.lost is not None:
        raise channel.lost
    return Reach("reachable", took_s)


class ReachWatch:
    """Knocks at several peers again and again, each for itself, so that a dead one delays nobody.

    Resource handling: its tasks live in the nursery that ``watch`` is given, until they are told
    otherwise by another ``watch``.
    """

    def __init__(self, host: Host, *, interval_s: float = 1.0) -> None:
        """Nobody is watched yet."""
        self.own_id = host.peer_id
        self._host = host
        self._interval_s = interval_s
        self._found: dict[str, Reach] = {}
        self._watched: dict[str, trio.CancelScope] = {}

    def of(self, peer_id: str) -> Reach:
        """How a peer was last."""
        return self._found.get(peer_id, Reach())

    def watch(self, nursery: trio.Nursery, peers: Mapping[str, tuple[str, ...]]) -> None:
        """Watch ``peers``, ids and addresses, and nobody else."""
        for scope in self._watched.values():
            scope.cancel()
        self._watched.clear()
        self._found = {peer_id: self.of(peer_id) for peer_id in peers}
        for peer_id, addrs in peers.items():
            scope = self._watched[peer_id] = trio.CancelScope()
            nursery.start_soon(self._keep_knocking, scope, peer_id, addrs)

    async def knock_once(self, peers: Mapping[str, tuple[str, ...]]) -> None:
        """Knock at all of ``peers`` now, side by side."""

        async def one(peer_id: str, addrs: tuple[str, ...]) -> None:
            self._found[peer_id] = await knock(self._host, peer_id, addrs)

        async with trio.open_nursery() as nursery:
            for peer_id, addrs in peers.items():
                nursery.start_soon(one, peer_id, addrs)

    async def _keep_knocking(
        self, scope: trio.CancelScope, peer_id: str, addrs: tuple[str, ...]
    ) -> None:
        with scope:
            while True:
                self._found[peer_id] = await knock(self._host, peer_id, addrs)
                await trio.sleep(self._interval_s)
