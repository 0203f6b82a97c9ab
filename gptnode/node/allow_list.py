"""Who may talk to this node: the map's peers and clients, and whom a person named."""

from __future__ import annotations

from gptnode.routing.blocks_map import BlocksMap

__all__ = ["AllowList"]


class AllowList:
    """Default-deny list of authenticated peer ids, that follows the map in force."""

    def __init__(self, blocks_map: BlocksMap | None) -> None:
        """Without a map nobody is allowed."""
        self._named: set[str] = set()
        self.use_map(blocks_map)

    def use_map(self, blocks_map: BlocksMap | None) -> None:
        """Allow those that ``blocks_map`` allows, and still those that were added by hand."""
        self._mapped = blocks_map.allowed() if blocks_map is not None else frozenset()

    def add(self, peer_id: str) -> None:
        """Allow ``peer_id`` while this node runs."""
        self._named.add(peer_id)

    def allows(self, peer_id: str) -> bool:
        """Whether ``peer_id`` may connect or be connected to."""
        return peer_id in self._mapped or peer_id in self._named
