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
    file is a broken edit like any other. What was given out last is not given out again: an edit
    that changes nothing stays silent, and a map that comes back after a broken edit does come
    out, though it may equal the one in force.

    Reading is done in place: a map is a few kilobytes, and comparing its bytes can't miss what
    size and date of a file can hide (an editor that replaces it, two edits in one tick). A pipe
    or device, which can be read once only, never changes.
    """

    def __init__(
        self, path: Path, in_force: BlocksMap | None = None, *, interval_s: float = INTERVAL_S
    ) -> None:
        """``in_force``: the map that was read before; an edit since then is the first to come."""
        self._path = path
        self._interval_s = interval_s
        self._last: BlocksMap | str | None = in_force
        self._judged: bytes | None = None
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
            if not stat.S_ISREG(self._path.stat().st_mode):
                return None
            with self._path.open("rb") as file:
                data: bytes | None = file.read(MAX_FILE_BYTES + 1)
        except OSError:
            data = None  # reading it as a map says why
        if data is not None and data == self._judged:
            return None
        try:
            found = read_blocks_map(self._path)
        except MapError as error:
            if error.detail not in (self._suspect, self._last):
                self._suspect = error.detail  # perhaps half of a file: it has until the next look
                return None
            news: BlocksMap | MapError | None = None if error.detail == self._last else error
            self._last = error.detail
        else:
            news = None if found == self._last else found
            self._last = found
        self._suspect = None
        self._judged = data
        return news
