"""Edits of a BlocksMap, right and wrong ones, at random. Knows maps; knows no processes."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

__all__ = ["BREAKAGES", "CHANGES", "Layout"]

HALVES = (0, 1)


@dataclass(frozen=True)
class Layout:
    """Who serves which of the two parts of a model, in order; and what the servers are called.

    ``parts`` has names of servers, replicas in order; the first part ends before block ``cut``.
    ``gone`` are in no list at all.
    """

    cut: int
    parts: tuple[tuple[str, ...], tuple[str, ...]]
    labels: Mapping[str, str]
    gone: frozenset[str] = frozenset()

    def document(self, base: Mapping[str, Any], n_blocks: int) -> dict[str, Any]:
        """``base``, a map with all servers under their names, as this layout wants it."""
        spans = (f"0-{self.cut - 1}", f"{self.cut}-{n_blocks - 1}")
        document = copy.deepcopy(dict(base))
        document["peers"] = [
            {**peer, "name": self.labels[peer["name"]]}
            for peer in document["peers"]
            if peer["name"] not in self.gone
        ]
        document["routes"] = [
            {"blocks": span, "peers": [self.labels[name] for name in part]}
            for span, part in zip(spans, self.parts, strict=True)
        ]
        return document

    def blocks_of(self, name: str, n_blocks: int) -> list[str]:
        """What a server has to serve."""
        spans = (f"0-{self.cut - 1}", f"{self.cut}-{n_blocks - 1}")
        return [span for span, part in zip(spans, self.parts, strict=True) if name in part]

    def holders(self, block: int) -> list[str]:
        """Labels of those that serve a block, in order."""
        return [self.labels[name] for name in self.parts[block >= self.cut]]

    def with_part(self, half: int, part: tuple[str, ...]) -> Layout:
        """One part served by others."""
        first, second = self.parts
        return replace(self, parts=(part, second) if half == 0 else (first, part))


def _swap(rng: random.Random, now: Layout, home: Layout) -> Layout | None:
    half = rng.choice(HALVES)
    return now.with_part(half, now.parts[half][::-1]) if len(now.parts[half]) > 1 else None


def _remove(rng: random.Random, now: Layout, home: Layout) -> Layout | None:
    half = rng.choice(HALVES)
    part = list(now.parts[half])
    if len(part) < 2:
        return None
    part.remove(rng.choice(part))
    return now.with_part(half, tuple(part))


def _move(rng: random.Random, now: Layout, home: Layout) -> Layout | None:
    """All blocks of a part to the replica that doesn't come first."""
    half = rng.choice(HALVES)
    others = [n for n in home.parts[half] if n != now.parts[half][0] and n not in now.gone]
    return now.with_part(half, (rng.choice(others),)) if others else None


def _add_back(rng: random.Random, now: Layout, home: Layout) -> Layout | None:
    half = rng.choice(HALVES)
    missing = [name for name in home.parts[half] if name not in now.parts[half]]
    if not missing:
        return None
    back = rng.choice(missing)
    part = list(now.parts[half])
    part.insert(rng.randrange(len(part) + 1), back)
    return replace(now.with_part(half, tuple(part)), gone=now.gone - {back})


def _expel(rng: random.Random, now: Layout, home: Layout) -> Layout | None:
    """A server leaves the map altogether: it may not even connect any more."""
    half = rng.choice(HALVES)
    part = list(now.parts[half])
    if len(part) < 2:
        return None
    name = rng.choice(part)
    part.remove(name)
    return replace(now.with_part(half, tuple(part)), gone=now.gone | {name})


def _rename(rng: random.Random, now: Layout, home: Layout) -> Layout | None:
    name = rng.choice(sorted(now.labels))
    label = now.labels[name]
    new = name if label != name else f"{name}-{rng.randrange(100, 1000)}"
    return replace(now, labels={**now.labels, name: new})


def _cut(rng: random.Random, now: Layout, home: Layout) -> Layout | None:
    """Another border between the parts: blocks have to be loaded."""
    return replace(now, cut=rng.choice([cut for cut in range(2, 7) if cut != now.cut]))


CHANGES: dict[str, Callable[[random.Random, Layout, Layout], Layout | None]] = {
    "replicas swapped": _swap,
    "a replica removed": _remove,
    "blocks moved to the other replica": _move,
    "a replica added back": _add_back,
    "a peer expelled": _expel,
    "a peer renamed": _rename,
    "the cut moved": _cut,
}
"""By name: a change of a layout, where ``home`` is the first one; None where it can't be made."""


def _unknown_field(document: dict[str, Any]) -> str:
    document["peers"][0]["adress"] = "/ip4/127.0.0.1/tcp/1"
    return "peers[0].adress"


def _gap(document: dict[str, Any]) -> str:
    last = int(document["routes"][1]["blocks"].split("-")[0])
    document["routes"][1]["blocks"] = f"{last + 1}-7"
    return "routes"


def _bad_addr(document: dict[str, Any]) -> str:
    document["peers"][1]["addrs"] = ["/ip4/300.1.2.3/tcp/4001"]
    return "peers[1].addrs[0]"


def _nobody(document: dict[str, Any]) -> str:
    document["routes"][0]["peers"][0] = "nobody"
    return "routes[0].peers[0]"


def _too_many(document: dict[str, Any]) -> str:
    first = document["routes"][1]["blocks"].split("-")[0]
    document["routes"][1]["blocks"] = f"{first}-8"
    return "routes[1]"


def _backwards(document: dict[str, Any]) -> str:
    document["routes"][1]["blocks"] = "7-4"
    return "routes[1].blocks"


def _not_json(text: str) -> tuple[str, str]:
    return text.rstrip()[:-1] + "]", "line"


def _truncated(text: str) -> tuple[str, str]:
    return text[: len(text) // 2], "line"


def _empty(text: str) -> tuple[str, str]:
    return "", ""


def _edited(change: Callable[[dict[str, Any]], str]) -> Callable[[str], tuple[str, str]]:
    def broken(text: str) -> tuple[str, str]:
        document = json.loads(text)
        where = change(document)
        return json.dumps(document, indent=2), where

    return broken


BREAKAGES: dict[str, Callable[[str], tuple[str, str]]] = {
    "broken JSON": _not_json,
    "half a file": _truncated,
    "an empty file": _empty,
    "an unknown field": _edited(_unknown_field),
    "a gap in the blocks": _edited(_gap),
    "a bad address": _edited(_bad_addr),
    "an unknown peer": _edited(_nobody),
    "blocks that the model hasn't": _edited(_too_many),
    "a range that runs backwards": _edited(_backwards),
}
"""By name: the text of a right map made wrong, and what the report of it has to name."""
