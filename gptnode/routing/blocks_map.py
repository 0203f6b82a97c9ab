"""The BlocksMap: which peer runs which blocks of which model, and who may use them.

One JSON file that all nodes of a swarm share. It is read whole or not at all: a `BlocksMap` that
came from a file has no gap, no unknown peer and no malformed address. What this file does not know
is how many blocks a model really has (`BlocksMap.check_blocks` is told) and whether a peer is up.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gptnode.errors import MapError
from gptnode.routing.entries import (
    ClientEntry,
    ModelEntry,
    ModelPaths,
    PeerEntry,
    PlacedEnds,
    RouteEntry,
)
from gptnode.routing.json_reader import Problems, parse_json, quoted, suggestion
from gptnode.routing.map_checks import block_problems, ends_problems
from gptnode.routing.other_form import is_other_form, read_other_form
from gptnode.routing.own_form import read_own_form
from gptnode.span import Span

__all__ = [
    "MAX_FILE_BYTES",
    "BlocksMap",
    "ClientEntry",
    "MapReading",
    "ModelEntry",
    "ModelPaths",
    "PeerEntry",
    "PlacedEnds",
    "RouteEntry",
    "examine_blocks_map",
    "examine_map_text",
    "parse_blocks_map",
    "read_blocks_map",
    "read_map_text",
]

MAX_FILE_BYTES = 4 * 2**20
"""A thousand peers with a route each fit into a tenth of it."""


@dataclass(frozen=True, slots=True)
class BlocksMap:
    """All that one map says.

    ``self_peer_id`` is what the other form says about the node it was written for; nothing depends
    on it. ``source`` is the file that the map was read from; relative paths count from its folder.
    """

    models: tuple[ModelEntry, ...]
    peers: tuple[PeerEntry, ...]
    routes: tuple[RouteEntry, ...]
    clients: tuple[ClientEntry, ...] = ()
    self_peer_id: str | None = None
    source: Path | None = None

    def model(self, name: str | None = None) -> ModelEntry:
        """The model called ``name``; the first one for None.

        Raises:
            MapError: there is no such model.
        """
        if name is None and self.models:
            return self.models[0]
        for entry in self.models:
            if entry.name == name:
                return entry
        known = tuple(entry.name for entry in self.models)
        what = "there is none" if name is None else f"none is called {quoted(name)}"
        raise self._error(f"models: {what}{suggestion(name or '', known)}")

    def model_paths(self, name: str | None = None) -> ModelPaths | None:
        """Where the files of that model are, as seen from the map's folder; None without a path.

        Raises:
            MapError: there is no such model, or its path names a user that doesn't exist.
        """
        base = self.source.parent if self.source is not None else Path()
        return self.model(name).resolve(base)

    def draft_folder(self, name: str | None = None) -> Path | None:
        """Where that model's draft model is, as seen from the map's folder; None without one.

        Raises:
            MapError: as `model_paths`.
        """
        base = self.source.parent if self.source is not None else Path()
        return self.model(name).draft_folder(base)

    def peer(self, peer_id: str) -> PeerEntry | None:
        """The entry of that peer, if it has one."""
        return next((entry for entry in self.peers if entry.id == peer_id), None)

    def n_blocks(self, model: str) -> int:
        """One past the last block of ``model`` that a route names; 0 without routes."""
        return max((route.span.stop for route in self._routes(model)), default=0)

    def holders(self, model: str, n_blocks: int) -> tuple[tuple[str, ...], ...]:
        """For each of the blocks ``0 .. n_blocks - 1`` the ids that serve it, preferred first.

        Preferred are earlier routes over later ones and, within a route, earlier peers.
        """
        found: list[dict[str, None]] = [{} for _ in range(n_blocks)]
        for route in self._routes(model):
            for block in range(route.span.start, min(route.span.stop, n_blocks)):
                found[block].update(dict.fromkeys(route.peers))
        return tuple(tuple(ids) for ids in found)

    def spans_of(self, peer_id: str, model: str) -> tuple[Span, ...]:
        """What ``peer_id`` has to load of ``model``: merged where they touch, in order."""
        spans: list[Span] = []
        for span in sorted(route.span for route in self._routes(model) if peer_id in route.peers):
            if spans and span.start <= spans[-1].stop:
                last = spans.pop()
                span = Span(last.start, max(last.stop, span.stop))
            spans.append(span)
        return tuple(spans)

    def ends(self, model: str) -> PlacedEnds:
        """The ends of ``model`` that its first and last blocks' peers have; clients the others."""
        routes = self._routes(model)
        return PlacedEnds(
            any(route.ends.embed for route in routes), any(route.ends.head for route in routes)
        )

    def ends_of(self, peer_id: str, model: str) -> PlacedEnds:
        """The ends that ``peer_id`` has to load of ``model``."""
        routes = [route for route in self._routes(model) if peer_id in route.peers]
        return PlacedEnds(
            any(route.ends.embed for route in routes), any(route.ends.head for route in routes)
        )

    def allowed(self) -> frozenset[str]:
        """The ids of all that may connect: peers and clients."""
        return frozenset([peer.id for peer in self.peers] + [one.id for one in self.clients])

    def check_blocks(self, model: str, n_blocks: int) -> None:
        """Check that the routes of ``model`` cover its ``n_blocks`` blocks and no others.

        Raises:
            MapError: they don't; the first place where.
        """
        problems = self.block_problems(model, n_blocks)
        if problems:
            raise self._error(problems[0])

    def block_problems(self, model: str, n_blocks: int) -> tuple[str, ...]:
        """Everything that `check_blocks` finds, one line each."""
        return block_problems(self.routes, model, n_blocks)

    def ends_problems(self, model: str) -> tuple[str, ...]:
        """What is wrong with the places of the embedding and of the head, one line each."""
        return ends_problems(self.routes, model)

    def _routes(self, model: str) -> tuple[RouteEntry, ...]:
        return tuple(route for route in self.routes if route.model == model)

    def _error(self, problem: str) -> MapError:
        return MapError(_located(self.source, problem))


@dataclass(frozen=True, slots=True)
class MapReading:
    """What came of reading a file: a map, or what is wrong with it, one line for each problem."""

    blocks_map: BlocksMap | None
    problems: tuple[str, ...]


def parse_blocks_map(text: str, *, source: Path | None = None) -> BlocksMap:
    """The map in ``text``, in either of its two forms.

    Args:
        text: JSON.
        source: The file it came from; errors begin with it, relative paths count from its folder.

    Raises:
        MapError: it is not a map; names the first problem by its JSON path, and counts the others.
    """
    reading = _read(text, source)
    if reading.blocks_map is not None:
        return reading.blocks_map
    first, *others = reading.problems
    more = f" (and {len(others)} more problem{'s'[: len(others) != 1]})" if others else ""
    raise MapError(_located(source, first + more))


def read_blocks_map(path: Path) -> BlocksMap:
    """The map in the file ``path``.

    Raises:
        MapError: the file can't be read, is too large, or is not a map.
    """
    return parse_blocks_map(read_map_text(path), source=path)


def examine_blocks_map(path: Path) -> MapReading:
    """Read the file ``path`` and tell all problems instead of the first.

    Raises:
        MapError: the file can't be read or is too large.
    """
    return examine_map_text(read_map_text(path), source=path)


def examine_map_text(text: str, *, source: Path | None = None) -> MapReading:
    """Read ``text`` as if it came from the file ``source``, and tell all problems."""
    return _read(text, source)


def _read(text: str, source: Path | None) -> MapReading:
    """The map in ``text`` or what is wrong with it."""
    problems = Problems()
    with problems.collected():
        root = parse_json(text)
        read_form = read_other_form if is_other_form(root) else read_own_form
        entries = read_form(root, problems)
        if entries is not None:
            found = BlocksMap(
                entries.models,
                entries.peers,
                entries.routes,
                entries.clients,
                entries.self_peer_id,
                source,
            )
            for model in found.models:
                problems.extend(found.block_problems(model.name, found.n_blocks(model.name)))
                problems.extend(found.ends_problems(model.name))
            if not problems:
                return MapReading(found, ())
    return MapReading(None, problems.lines)


def read_map_text(path: Path) -> str:
    """The text of a file that isn't too large to be a map, without a byte order mark.

    Raises:
        MapError: the file can't be read, is too large, or is no text.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        raise MapError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise MapError(f"{path}: can't be read ({reason})") from error
    if len(data) > MAX_FILE_BYTES:
        raise MapError(f"{path}: larger than {MAX_FILE_BYTES // 2**20} MiB, which no BlocksMap is")
    try:
        # Some editors put a byte order mark in front; JSON has none.
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise MapError(f"{path}: not UTF-8 text (byte {error.start})") from error


def _located(source: Path | None, problem: str) -> str:
    """``problem`` with the file in front."""
    return problem if source is None else f"{source}: {problem}"
