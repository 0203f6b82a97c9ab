"""Where `gptnode top` gets its facts: knocks at peers, the own server's file, pages of metrics.

Nothing is sent to a peer but a knock, and no server is asked for more than it shows anyway.
"""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path

import trio

from gptnode.cli.top_data import (
    Rates,
    Snapshot,
    Told,
    rows,
    told_by_metrics,
    told_by_status,
)
from gptnode.errors import MapError, UsageError
from gptnode.node.allow_list import AllowList
from gptnode.node.map_watch import MapWatch
from gptnode.node.reach import ReachWatch
from gptnode.node.status_file import Status, read_status
from gptnode.routing.blocks_map import BlocksMap

__all__ = ["TopSources", "own_status"]

FETCH_S = 3.0
MAX_PAGE_BYTES = 4 * 2**20


def own_status(identity_path: Path) -> Status | None:
    """What the server with that identity says; None where none runs on this machine."""
    try:
        return read_status(identity_path)
    except UsageError:
        return None


class TopSources:
    """All sources of one `gptnode top`."""

    def __init__(
        self,
        blocks_map: BlocksMap | None,
        identity_path: Path,
        urls: Sequence[str],
        reach: ReachWatch | None,
        allow: AllowList,
    ) -> None:
        """``reach`` knocks at the peers of ``blocks_map``; None: nobody is asked over libp2p."""
        self._map = blocks_map
        self._identity_path = identity_path
        self._urls = tuple(urls)
        self._reach = reach
        self._allow = allow
        self._rates = Rates()
        self._map_problem = ""

    async def follow(self, nursery: trio.Nursery) -> None:
        """Knock at the peers of the map, and follow its edits; for ever."""
        if self._map is None or self._reach is None:
            return
        self._reach.watch(nursery, self._others(self._map))
        if self._map.source is None:
            return
        async for found in MapWatch(self._map.source, self._map):
            if isinstance(found, MapError):
                self._map_problem = found.detail
                continue
            self._map, self._map_problem = found, ""
            self._allow.use_map(found)
            self._reach.watch(nursery, self._others(found))

    async def knock(self) -> None:
        """Knock at all peers once."""
        if self._map is not None and self._reach is not None:
            await self._reach.knock_once(self._others(self._map))

    async def look(self) -> Snapshot:
        """How it is now. What can't be read is a line among the problems."""
        told: list[Told] = []
        problems = [self._map_problem] if self._map_problem else []
        status = await trio.to_thread.run_sync(own_status, self._identity_path)
        urls = list(self._urls)
        if status is not None:
            told.append(told_by_status(status, time.monotonic()))
            url = status.get("metrics")
            if url is not None and url not in urls:
                urls.append(url)

        async def fetch(url: str) -> None:
            try:
                text = await trio.to_thread.run_sync(_fetch, url, abandon_on_cancel=True)
                told.append(told_by_metrics(text, url, time.monotonic()))
            except (OSError, ValueError, HTTPException) as error:
                problems.append(f"{url}: {_why(error)}")

        async with trio.open_nursery() as nursery:
            for url in urls:
                nursery.start_soon(fetch, url)
        for one in told:
            self._rates.note(one)
            problems += one.problems
        found = {}
        if self._map is not None and self._reach is not None:
            found = {entry.id: self._reach.of(entry.id) for entry in self._map.peers}
        peers, clients = rows(self._map, found, told, self._rates)
        models = tuple(model.name for model in self._map.models) if self._map is not None else ()
        path = str(self._map.source or "") if self._map is not None else ""
        return Snapshot(time.time(), path, models, peers, clients, tuple(sorted(problems)))

    def _others(self, blocks_map: BlocksMap) -> dict[str, tuple[str, ...]]:
        """The peers to knock at: not at this machine's own server with its own identity."""
        own_id = self._reach.own_id if self._reach is not None else ""
        return {entry.id: entry.addrs for entry in blocks_map.peers if entry.id != own_id}


def _fetch(url: str) -> str:
    """In a thread. No proxy: the address is meant as it is."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(url, headers={"Accept": "text/plain"})
    with opener.open(request, timeout=FETCH_S) as response:
        body: bytes = response.read(MAX_PAGE_BYTES)
    return body.decode("utf-8", "replace")


def _why(error: Exception) -> str:
    reason = getattr(error, "reason", None) or error
    return getattr(reason, "strerror", None) or str(reason) or type(error).__name__
