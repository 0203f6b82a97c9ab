"""Watching the file of a BlocksMap: each edit comes out once, as a map or as what is wrong with it.

Knows the file and the clock; what an edit means for a client or a server is theirs to decide.
"""

from __future__ import annotations

import stat
from pathlib import Path

import trio

from gptnode.errors import MapError
from gptnode.routing.blocks_map import MAX_FILE_BYTES, BlocksMap, read_blocks_map

__all__ = ["MapWatch"]

INTERVAL_S = 0.5


class MapWatch:
    """Async iterator over the edits of one file; never ends by itself.

    A valid edit comes out within ``interval_s``, a broken one within twice that: a file that is
    just being written is broken for a moment, and a moment is no mistake. A missing or unreadable
    file is a broken edit like any other. What was given out last is not given out again, so a map
    that comes back after a broken edit does come out, and may equal the one in force.

    Reading is done in place: a map is a few kilobytes, and comparing its bytes can't miss what
    size and date of a file can hide (an editor that replaces it, two edits in one tick).
    """

    def __init__(
        self, path: Path, in_force: BlocksMap | None = None, *, interval_s: float = INTERVAL_S
    ) -> None:
        """``in_force``: the map that was read before; an edit since then is the first to come."""
        self._path = path
        self._interval_s = interval_s
        self._last: BlocksMap | str | None = in_force
        self._data: bytes | None = None
        self._suspect: str | None = None

    def __aiter__(self) -> MapWatch:
        """Itself."""
        return self

    async def __anext__(self) -> BlocksMap | MapError:
        """Wait for the next edit: the new map, or the error that names file and JSON path."""
        while True:
            await trio.sleep(self._interval_s)
            found = self._look()
            if found is not None:
                return found

    def _look(self) -> BlocksMap | MapError | None:
        """What is there now, if it is news."""
        try:
            data = self._read()
        except (OSError, ValueError):
            data = None
        else:
            if data is not None and data == self._data and self._suspect is None:
                return None
        self._data = data
        try:
            found = read_blocks_map(self._path)
        except MapError as error:
            return self._broken(error)
        self._suspect = None
        if found == self._last:
            return None
        self._last = found
        return found

    def _read(self) -> bytes | None:
        """The bytes of the file; those seen last for a pipe or device, which can't be read twice."""
        if not stat.S_ISREG(self._path.stat().st_mode):
            return self._data if self._data is not None else b""
        with self._path.open("rb") as file:
            return file.read(MAX_FILE_BYTES + 1)

    def _broken(self, error: MapError) -> MapError | None:
        """``error`` if it was there at the look before, too, and is not known yet."""
        detail = error.detail
        if detail == self._last:
            self._suspect = None
            return None
        if detail != self._suspect:
            self._suspect = detail
            return None
        self._suspect = None
        self._last = detail
        return error
