"""A context's peers: what people call them, where they are, and having connections with them.

What the map says, and what a person added to it. Knows nothing of blocks and of how peers are.
"""

from __future__ import annotations

from gptnode.errors import NetworkError
from gptnode.net.host import Host
from gptnode.net.identity import short_peer_id
from gptnode.node.allow_list import AllowList
from gptnode.node.commons import Commons
from gptnode.node.planning import Planner
from gptnode.routing.entries import PeerEntry

__all__ = ["PeerBook"]


class PeerBook:
    """Follows the map of a planner; what a person adds is kept for all contexts of a node."""

    def __init__(
        self, planner: Planner, commons: Commons, allow: AllowList, host: Host | None
    ) -> None:
        """``allow`` says who may be dialled, by ``host``; None dials nobody."""
        self._planner = planner
        self._commons = commons
        self._allow = allow
        self._host = host

    def label(self, peer_id: str | None) -> str:
        """What people call the peer; None is this node."""
        if peer_id is None:
            return "this node"
        entry = self._entry(peer_id)
        return entry.label if entry is not None else short_peer_id(peer_id)

    def addrs(self, peer_id: str) -> tuple[str, ...]:
        """Where it may be reached: where a person said it is, then where the map says so."""
        entry = self._entry(peer_id)
        more = self._commons.more_addrs.get(peer_id, ())
        return more + tuple(addr for addr in (entry.addrs if entry else ()) if addr not in more)

    async def connect(self, peer_id: str, addr: str) -> None:
        """Dial ``peer_id`` at ``addr`` and keep the address beside those of the map.

        Raises:
            NetworkError: it can't be reached, or this node is local only.
        """
        if self._host is None:
            raise NetworkError("this chat runs on this machine alone: it has no map and no peers")
        self._allow.add(peer_id)
        await self._host.connect(peer_id, (addr,))
        known = self._commons.more_addrs.get(peer_id, ())
        self._commons.more_addrs[peer_id] = (addr, *(other for other in known if other != addr))

    async def leave_strays(self) -> None:
        """Disconnect whom the map no longer knows, unless some context still uses it."""
        if self._host is None:
            return
        in_use = {stage.peer_id for stage in self._commons.stages}
        for peer_id in self._host.connected():
            if not (self._allow.allows(peer_id) or peer_id in in_use):
                await self._host.disconnect(peer_id)

    def _entry(self, peer_id: str) -> PeerEntry | None:
        blocks_map = self._planner.blocks_map
        return blocks_map.peer(peer_id) if blocks_map is not None else None
