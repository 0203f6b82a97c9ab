"""The file of the BlocksMap on somebody's desk: read it, look an edit over, put it in its place.

A wrong edit is never written, nor one of a text that has changed meanwhile. Taking a new map up is
not done here: the service follows its file. Knows no HTTP; waits for the disk, so call it in a
thread.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from gptnode.api.map_places import Place, places, split_problem
from gptnode.errors import MapError, RouteError
from gptnode.routing.blocks_map import (
    MAX_FILE_BYTES,
    BlocksMap,
    examine_map_text,
    read_map_text,
)
from gptnode.routing.replace_file import replace_file
from gptnode.routing.route import Route, plan_route

__all__ = [
    "MapCheck",
    "MapDesk",
    "MapText",
    "Outcome",
    "Problem",
    "ReplicaOrder",
    "RouteHop",
    "Surroundings",
]

BOM = "\ufeff"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a map is checked against: the model in use, who is down, and this node's own id."""

    model_name: str
    n_blocks: int
    own_id: str | None
    down: frozenset[str]
    in_force: BlocksMap | None


@dataclass(frozen=True, slots=True)
class MapText:
    """The file's text without a byte order mark, and the tag of its bytes."""

    text: str
    tag: str


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong at which JSON path; line and column from 1 where they are known."""

    path: str
    line: int | None
    column: int | None
    message: str


@dataclass(frozen=True, slots=True)
class RouteHop:
    """A hop of a route that was planned: who, which blocks, and who could take over."""

    label: str
    start: int
    stop: int
    replicas: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ReplicaOrder:
    """The peers of one entry of ``routes``, the preferred one first, and where each is written."""

    blocks: str
    model: str
    peers: tuple[tuple[str, Place], ...]


@dataclass(frozen=True, slots=True)
class MapCheck:
    """What came of looking at a text. ``route`` is the one that a chat would take with it."""

    problems: tuple[Problem, ...]
    route: tuple[RouteHop, ...] = ()
    changes: tuple[str, ...] = ()
    orders: tuple[ReplicaOrder, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether it is a right map for this model."""
        return not self.problems


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of `MapDesk.replace`: written if ``check`` is right and ``conflict`` is False."""

    check: MapCheck
    conflict: bool
    now: MapText

    @property
    def written(self) -> bool:
        """Whether the file holds the new text."""
        return self.check.ok and not self.conflict


class MapDesk:
    """One file."""

    def __init__(self, path: Path) -> None:
        """The map of the service."""
        self.path = path

    def read(self) -> MapText:
        """What is in the file.

        Raises:
            MapError: it can't be read, is too large, or is no text.
        """
        text = read_map_text(self.path)
        return MapText(text, _tag(text))

    def check(self, text: str, around: Surroundings) -> MapCheck:
        """Look ``text`` over as if it were in the file."""
        if len(text.encode()) > MAX_FILE_BYTES:
            return MapCheck((Problem("", None, None, "larger than any BlocksMap is"),))
        reading = examine_map_text(text, source=self.path)
        found = reading.blocks_map
        lines = list(reading.problems)
        if found is not None:
            lines += self._unfit(found, around)
        if found is None or lines:
            return MapCheck(tuple(Problem(*split_problem(line, text)) for line in lines))
        return MapCheck(
            (), _route(found, around), _changes(around.in_force, found), _orders(found, text)
        )

    def replace(self, text: str, tags: Collection[str], around: Surroundings) -> Outcome:
        """Put ``text`` into the file if it is right and the file's tag is one of ``tags``.

        ``*`` among the tags stands for any. A byte order mark and the file's mode stay.

        Raises:
            MapError: the file can't be read or written; it is as it was then.
        """
        before = self.read()
        check = self.check(text, around)
        if before.tag not in tags and "*" not in tags:
            return Outcome(check, True, before)
        if not check.ok:
            return Outcome(check, False, before)
        try:
            mark = BOM if self.path.read_bytes().startswith(BOM.encode()) else ""
            replace_file(self.path, (mark + text).encode(), self.path.stat().st_mode & 0o777)
        except OSError as error:
            reason = error.strerror or error
            raise MapError(f"{self.path}: can't be written ({reason})") from error
        return Outcome(check, False, MapText(text, _tag(text)))

    def _unfit(self, found: BlocksMap, around: Surroundings) -> tuple[str, ...]:
        """Why a right map is none for the model in use."""
        try:
            found.model(around.model_name)
        except MapError as error:
            return (error.detail.removeprefix(f"{self.path}: "),)
        return found.block_problems(around.model_name, around.n_blocks)


def _tag(text: str) -> str:
    """Of the text, as it is without a byte order mark."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _route(blocks_map: BlocksMap, around: Surroundings) -> tuple[RouteHop, ...]:
    """The hops with this map: around those that are down, if that leaves a way."""
    own_id = around.own_id

    def plan(down: Collection[str]) -> Route:
        return plan_route(blocks_map, around.model_name, around.n_blocks, down=down, local=own_id)

    try:
        route = plan(around.down)
    except RouteError:
        route = plan(())
    return tuple(
        RouteHop(
            "this node" if hop.peer_ids[0] == own_id else _label(blocks_map, hop.peer_ids[0]),
            hop.span.start,
            hop.span.stop,
            tuple(_label(blocks_map, peer_id) for peer_id in hop.peer_ids[1:]),
        )
        for hop in route.hops
    )


def _changes(before: BlocksMap | None, after: BlocksMap) -> tuple[str, ...]:
    """Who comes and who goes."""
    if before is None:
        return ()
    came = after.allowed() - before.allowed()
    went = before.allowed() - after.allowed()
    return (
        *sorted(f"{_label(after, peer_id)} is new" for peer_id in came),
        *sorted(f"{_label(before, peer_id)} is taken out" for peer_id in went),
    )


def _orders(blocks_map: BlocksMap, text: str) -> tuple[ReplicaOrder, ...]:
    """The lists of peers in the text; none for a map of the other form, which has no lists."""
    known = places(text)
    return tuple(
        ReplicaOrder(
            str(route.span),
            route.model,
            tuple(
                (_label(blocks_map, peer_id), known[path])
                for number, peer_id in enumerate(route.peers)
                if (path := f"routes[{index}].peers[{number}]") in known
            ),
        )
        for index, route in enumerate(blocks_map.routes)
        if f"routes[{index}].peers" in known
    )


def _label(blocks_map: BlocksMap, peer_id: str) -> str:
    entry = blocks_map.peer(peer_id)
    if entry is not None:
        return entry.label
    client = next((one for one in blocks_map.clients if one.id == peer_id), None)
    return client.label if client is not None else peer_id
