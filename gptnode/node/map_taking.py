"""What an edit of the map means for a client: it is taken if it is a map for the client's model.

A broken one is reported and changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from gptnode.errors import MapError, UsageError
from gptnode.node.map_watch import MapWatch
from gptnode.node.meter import NO_METER, Meter
from gptnode.routing.blocks_map import BlocksMap, read_blocks_map

__all__ = ["MapTaker", "TakesMaps"]


class TakesMaps(Protocol):
    """Whose routes follow a map."""

    @property
    def blocks_map(self) -> BlocksMap | None:
        """The map in force."""
        ...

    def use_map(self, blocks_map: BlocksMap, *, fresh: bool = False) -> None:
        """Take a map; ``fresh``: every peer is asked anew."""
        ...


class MapTaker:
    """Keeps a client in line with the file of its map."""

    def __init__(
        self,
        path: Path | None,
        model_name: str,
        n_blocks: int,
        taker: TakesMaps,
        say: Callable[[str], None],
        *,
        meter: Meter = NO_METER,
    ) -> None:
        """``taker`` is given the maps in ``path`` that have routes for all of ``model_name``."""
        self.path = path
        self._model_name = model_name
        self._n_blocks = n_blocks
        self._taker = taker
        self._say = say
        self._meter = meter

    def reload(self) -> None:
        """Read the map again; the next token takes the new route.

        Raises:
            MapError: the file is wrong; the old map stays in force.
            UsageError: there is no map.
        """
        if self.path is None:
            raise UsageError("there is no BlocksMap to reload: all runs on this machine alone")
        self._take(read_blocks_map(self.path), fresh=True)

    async def follow(self) -> None:
        """Take each edit of the map while this runs, between two tokens; for ever.

        A map that is wrong is reported, and changes nothing.
        """
        if self.path is None:
            return
        broken = False
        async for found in MapWatch(self.path, self._taker.blocks_map):
            try:
                if isinstance(found, MapError):
                    raise found
                if broken and found == self._taker.blocks_map:
                    self._say("the BlocksMap is as it was again")
                self._take(found)
                self._meter.map_edited("taken")
            except MapError as error:
                self._say(f"{error.detail}; the BlocksMap in force stays")
                self._meter.map_edited("rejected")
                broken = True
            else:
                broken = False

    def _take(self, blocks_map: BlocksMap, *, fresh: bool = False) -> None:
        blocks_map.model(self._model_name)
        blocks_map.check_blocks(self._model_name, self._n_blocks)
        self._taker.use_map(blocks_map, fresh=fresh)
