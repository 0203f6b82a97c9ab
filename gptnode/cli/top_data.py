"""What `gptnode top` shows, as plain data: what servers say of themselves, and rates between looks.

Pure functions and one small memory. Nothing here reads files, asks peers or knows a terminal.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from gptnode.node import metric_catalogue as names
from gptnode.node.metric_catalogue import Described
from gptnode.node.reach import Reach
from gptnode.routing.blocks_map import BlocksMap

__all__ = [
    "ClientRow",
    "PeerRow",
    "Rates",
    "Snapshot",
    "Told",
    "rows",
    "told_by_metrics",
    "told_by_status",
]

RATE_OVER_S = 5.0
SHORT_ID_CHARS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What one node says of itself; None where it doesn't say.

    ``decoded``, ``prefilled`` and ``answered`` are tokens since it began.
    """

    source: str
    peer_id: str
    at_s: float
    state: str = ""
    blocks: str = ""
    sessions: int | None = None
    sessions_limit: int | None = None
    kv_bytes: int | None = None
    kv_limit_bytes: int | None = None
    decoded: float | None = None
    prefilled: float | None = None
    answered: float | None = None
    answering: int | None = None
    waiting: int | None = None
    refused: int = 0
    problems: tuple[str, ...] = ()

    @property
    def is_server(self) -> bool:
        """Whether it serves blocks, and not only an API."""
        return self.sessions is not None


@dataclass(frozen=True, slots=True)
class PeerRow:
    """A peer of the map, or a server that was asked."""

    label: str
    peer_id: str
    blocks: str
    state: str
    round_trip_s: float | None
    sessions: int | None
    sessions_limit: int | None
    tokens_per_s: float | None
    prompt_tokens_per_s: float | None
    kv_bytes: int | None
    kv_limit_bytes: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class ClientRow:
    """A node that answers prompts over the swarm."""

    source: str
    answering: int | None
    waiting: int | None
    tokens_per_s: float | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The swarm at one moment; ``at_s`` is in Unix time."""

    at_s: float
    map: str
    models: tuple[str, ...]
    peers: tuple[PeerRow, ...]
    clients: tuple[ClientRow, ...]
    problems: tuple[str, ...]


def told_by_status(status: Mapping[str, Any], at_s: float) -> Told:
    """What a server of this machine wrote beside its identity; ``at_s`` is when it was read."""
    lent, limits = status["lent"], status.get("limits", {})
    blocks = "; ".join(f"{model} {', '.join(spans)}" for model, spans in status["blocks"].items())
    return Told(
        source="this machine",
        peer_id=status["peer_id"],
        at_s=at_s,
        state=status["state"],
        blocks=blocks,
        sessions=lent["sessions"],
        sessions_limit=limits.get("sessions"),
        kv_bytes=lent["kv_bytes"],
        kv_limit_bytes=limits.get("kv_bytes"),
        refused=len(status["refused"]),
        problems=tuple(status["problems"]),
    )


def told_by_metrics(text: str, source: str, at_s: float) -> Told:
    """What a page of metrics says; ``source`` is where it came from.

    Raises:
        ValueError: it isn't one, or not of a gptnode.
    """
    values: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            values.setdefault(sample.name, []).append((sample.labels, sample.value))

    def total(metric: Described, **labels: str) -> float | None:
        found = [
            value
            for having, value in values.get(metric.name, [])
            if labels.items() <= having.items()
        ]
        return sum(found) if found else None

    def count(metric: Described) -> int | None:
        value = total(metric)
        return int(value) if value is not None else None

    info = values.get(names.NODE_INFO.name)
    if not info:
        raise ValueError("it is no page of a gptnode's metrics")
    ready = total(names.READY)
    loaded = values.get(names.BLOCKS_LOADED.name, [])
    return Told(
        source=source,
        peer_id=info[0][0].get("peer_id", ""),
        at_s=at_s,
        state="" if ready is None else "serving" if ready else "not ready",
        blocks="; ".join(f"{int(n)} of {having.get('model', '')}" for having, n in loaded),
        sessions=count(names.SESSIONS),
        sessions_limit=count(names.SESSIONS_LIMIT),
        kv_bytes=count(names.KV_BYTES),
        kv_limit_bytes=count(names.KV_LIMIT_BYTES),
        decoded=_or_zero(total(names.SERVER_TOKENS, phase="decode"), ready),
        prefilled=_or_zero(total(names.SERVER_TOKENS, phase="prefill"), ready),
        answered=_or_zero(total(names.COMPLETION_TOKENS), total(names.SERVICE_ANSWERING)),
        answering=count(names.SERVICE_ANSWERING),
        waiting=count(names.SERVICE_WAITING),
        refused=count(names.REFUSED_PEERS) or 0,
    )


def _or_zero(value: float | None, present: float | None) -> float | None:
    """A counter with labels isn't there before it counts."""
    return value if value is not None or present is None else 0.0


class Rates:
    """Tokens a second, from what nodes told within the last seconds."""

    def __init__(self) -> None:
        """Nobody told anything yet."""
        self._told: dict[str, deque[Told]] = {}

    def note(self, told: Told) -> None:
        """One look more."""
        kept = self._told.setdefault(told.source, deque())
        last = kept[-1] if kept else None
        if last is not None and (told.decoded or 0) + (told.answered or 0) < (
            (last.decoded or 0) + (last.answered or 0)
        ):
            kept.clear()  # it was started again
        kept.append(told)
        while len(kept) > 2 and kept[1].at_s <= told.at_s - RATE_OVER_S:
            kept.popleft()

    def of(self, source: str, what: str) -> float | None:
        """Of ``what``, a field of `Told`; None before there are two looks at it."""
        kept = self._told.get(source)
        if kept is None or len(kept) < 2:
            return None
        first, last = kept[0], kept[-1]
        before, now = getattr(first, what), getattr(last, what)
        if before is None or now is None or last.at_s <= first.at_s:
            return None
        return max(0.0, float(now - before)) / (last.at_s - first.at_s)


def rows(
    blocks_map: BlocksMap | None,
    reach: Mapping[str, Reach],
    told: Sequence[Told],
    rates: Rates,
) -> tuple[tuple[PeerRow, ...], tuple[ClientRow, ...]]:
    """A row for each peer of the map and each server that told something, and those of clients.

    Of what several sources tell of one server, the first that does tell it counts.
    """
    servers: dict[str, list[Told]] = {}
    for one in told:
        if one.is_server:
            servers.setdefault(one.peer_id, []).append(one)
    peers: list[PeerRow] = []
    for entry in blocks_map.peers if blocks_map is not None else ():
        blocks = _blocks(blocks_map, entry.id) if blocks_map is not None else ""
        peers.append(_peer(entry.label, entry.id, blocks, reach, servers.pop(entry.id, []), rates))
    for peer_id, said in servers.items():
        label = said[0].source if not peer_id else f"…{peer_id[-SHORT_ID_CHARS:]}"
        peers.append(_peer(label, peer_id, "", reach, said, rates))
    clients = tuple(
        ClientRow(one.source, one.answering, one.waiting, rates.of(one.source, "answered"))
        for one in told
        if one.answering is not None
    )
    return tuple(peers), clients


def _blocks(blocks_map: BlocksMap, peer_id: str) -> str:
    """What the map gives to a peer; models are named where there are several."""
    spans = {
        model.name: ", ".join(str(span) for span in blocks_map.spans_of(peer_id, model.name))
        for model in blocks_map.models
    }
    if len(spans) == 1:
        return next(iter(spans.values()))
    return "; ".join(f"{name} {text}" for name, text in spans.items() if text)


def _peer(
    label: str,
    peer_id: str,
    blocks: str,
    reach: Mapping[str, Reach],
    said: Sequence[Told],
    rates: Rates,
) -> PeerRow:
    def first(what: str) -> Any:
        found = (getattr(one, what) for one in said)
        return next((value for value in found if value not in (None, "")), None)

    def rate(what: str) -> float | None:
        found = (rates.of(one.source, what) for one in said)
        return next((value for value in found if value is not None), None)

    seen = reach.get(peer_id, Reach())
    return PeerRow(
        label,
        peer_id,
        blocks or first("blocks") or "",
        first("state") or seen.state,
        seen.round_trip_s,
        first("sessions"),
        first("sessions_limit"),
        rate("decoded"),
        rate("prefilled"),
        first("kv_bytes"),
        first("kv_limit_bytes"),
        seen.reason,
    )
