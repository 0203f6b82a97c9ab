"""What an edit of the map means for a running server: who may talk to it, and what it serves.

A valid edit is in force at once for the allow-list and connections, and for blocks as soon as they
are loaded. A broken one is reported and changes nothing.
"""

from __future__ import annotations

from pathlib import Path

import structlog
import trio

from gptnode.errors import MapError
from gptnode.net.host import Host
from gptnode.node.allow_list import AllowList
from gptnode.node.block_keeper import BlockKeeper
from gptnode.node.map_watch import MapWatch
from gptnode.node.meter import NO_METER, Meter
from gptnode.routing.blocks_map import BlocksMap

__all__ = ["MapFollower"]


class MapFollower:
    """Keeps one server in line with the file of its map while ``run`` runs."""

    def __init__(
        self,
        path: Path,
        in_force: BlocksMap,
        allow: AllowList,
        host: Host,
        keeper: BlockKeeper,
        *,
        meter: Meter = NO_METER,
    ) -> None:
        """``in_force`` is what the server began with; ``allow`` and ``keeper`` know it already."""
        self.blocks_map = in_force
        self.problem: str | None = None
        self._path = path
        self._allow = allow
        self._host = host
        self._keeper = keeper
        self._meter = meter
        self._log = structlog.get_logger("gptnode.node")

    async def run(self) -> None:
        """Take up every edit; never ends by itself."""
        async for found in MapWatch(self._path, self.blocks_map):
            if isinstance(found, MapError):
                self._reject(found)
            else:
                await self._take(found)

    async def _take(self, blocks_map: BlocksMap) -> None:
        try:
            self._keeper.check(blocks_map)
        except MapError as error:
            self._reject(error)
            return
        self.problem = None
        self.blocks_map = blocks_map
        self._allow.use_map(blocks_map)
        for peer_id in blocks_map.allowed():
            self._host.refused.forget(peer_id)
        self._keeper.want(blocks_map)
        self._meter.map_edited("taken")
        self._log.info("map taken", peers=len(blocks_map.peers), clients=len(blocks_map.clients))
        await self._cut_off()

    async def _cut_off(self) -> None:
        """Disconnect everybody who isn't allowed any more."""
        async with trio.open_nursery() as nursery:
            for peer_id in self._host.connected():
                if not self._allow.allows(peer_id):
                    self._log.info("disconnected: not in the map any more", peer=peer_id)
                    nursery.start_soon(self._host.disconnect, peer_id)

    def _reject(self, error: MapError) -> None:
        self.problem = error.detail
        self._meter.map_edited("rejected")
        self._log.error("map not taken, the one before stays in force", reason=error.detail)
