"""What a BlocksMap consists of: models, peers, routes and clients, as frozen data.

Knows no JSON and checks nothing: the two forms of the file do that when they make these.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gptnode.errors import MapError
from gptnode.span import Span

__all__ = [
    "NO_ENDS",
    "ClientEntry",
    "MapEntries",
    "ModelEntry",
    "ModelPaths",
    "PeerEntry",
    "PlacedEnds",
    "RouteEntry",
]

SHORT_ID_CHARS = 16


def _label(name: str, peer_id: str) -> str:
    """The name, else the ends of the id; all Ed25519 ids begin alike."""
    if name or len(peer_id) <= SHORT_ID_CHARS:
        return name or peer_id
    return f"{peer_id[:8]}…{peer_id[-6:]}"


@dataclass(frozen=True, slots=True)
class PeerEntry:
    """A node that serves blocks, and the multiaddrs to dial it at, in the order to try them."""

    id: str
    addrs: tuple[str, ...]
    name: str = ""

    @property
    def label(self) -> str:
        """What people call it."""
        return _label(self.name, self.id)


@dataclass(frozen=True, slots=True)
class ClientEntry:
    """A node that may use the swarm without serving blocks."""

    id: str
    name: str = ""

    @property
    def label(self) -> str:
        """What people call it."""
        return _label(self.name, self.id)


@dataclass(frozen=True, slots=True)
class ModelPaths:
    """Where the files of a model are on this machine; none of them is known to exist.

    ``weights`` is a file (one .safetensors, or an index of several); None where the folder holds
    them under one of the usual names.
    """

    folder: Path
    weights: Path | None
    config: Path
    tokenizer: Path


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """A model: its name in the swarm, where its files are, and how to talk to it.

    ``path`` is the folder as the map writes it. ``weights``, ``config`` and ``tokenizer`` name
    files that are not where such a folder has them; the form with ``LLAMA_WEIGHTS`` may do that.
    ``fingerprint`` (32 hex digits) says which files are meant, to nodes that hold only a part of
    them; None where every node has them all.
    ``dtype`` (``bf16``, ``f16``, ``f32``, ``int8``, ``int4``) and ``template`` are None where the
    model's own count. ``draft`` is the folder of a small model that clients guess tokens with.
    """

    name: str
    path: str | None = None
    dtype: str | None = None
    template: str | None = None
    stop: tuple[str | tuple[int, ...], ...] = ()
    weights: str | None = None
    config: str | None = None
    tokenizer: str | None = None
    fingerprint: str | None = None
    draft: str | None = None

    def draft_folder(self, base: Path) -> Path | None:
        """The draft model's folder as seen from ``base``; None without one.

        Raises:
            MapError: as `resolve`.
        """
        return self._under(base, self.draft) if self.draft is not None else None

    def resolve(self, base: Path) -> ModelPaths | None:
        """The files as seen from ``base``, the folder of the map's file; None without a path.

        Raises:
            MapError: a path begins with the home folder of a user that doesn't exist.
        """
        if self.path is None:
            return None
        folder = self._under(base, self.path)
        return ModelPaths(
            folder,
            self._under(base, self.weights) if self.weights is not None else None,
            self._under(base, self.config) if self.config is not None else folder / "config.json",
            self._under(base, self.tokenizer)
            if self.tokenizer is not None
            else folder / "tokenizer.json",
        )

    def _under(self, base: Path, path: str) -> Path:
        """``path`` itself if it is absolute, else below ``base``."""
        try:
            return base / Path(path).expanduser()
        except RuntimeError as error:
            raise MapError(f"models: {self.name!r} has the path {path!r}: {error}") from error


@dataclass(frozen=True, slots=True)
class PlacedEnds:
    """Which ends of a model go with blocks: the embedding with the first, the head with the last.

    Where they don't, every client has them itself.
    """

    embed: bool = False
    head: bool = False

    def __bool__(self) -> bool:
        """Whether there is any."""
        return self.embed or self.head

    def within(self, span: Span, n_blocks: int) -> PlacedEnds:
        """Those that go with the blocks of ``span``."""
        return PlacedEnds(self.embed and span.start == 0, self.head and span.stop == n_blocks)


NO_ENDS = PlacedEnds()
"""Clients have both."""


@dataclass(frozen=True, slots=True)
class RouteEntry:
    """One entry of ``routes``: these peers serve these blocks, the preferred one first.

    ``ends``: what they have of the model besides.
    """

    model: str
    span: Span
    peers: tuple[str, ...]
    ends: PlacedEnds = NO_ENDS


@dataclass(frozen=True, slots=True)
class MapEntries:
    """All that a file says; ``routes`` are in file order, one for each entry there."""

    models: tuple[ModelEntry, ...]
    peers: tuple[PeerEntry, ...]
    routes: tuple[RouteEntry, ...]
    clients: tuple[ClientEntry, ...] = ()
    self_peer_id: str | None = None
