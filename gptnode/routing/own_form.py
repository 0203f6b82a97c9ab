"""The BlocksMap as gptnode writes it: JSON into entries, with every mistake by its path.

::

    {"models":  [{"name", "path", "dtype", "template", "stop": [...], "fingerprint",
                 "draft"}],
     "peers":   [{"id", "name", "addrs": [...]}],
     "routes":  [{"model", "blocks": "0-15", "embed", "head", "peers": ["id or name", ...]}],
     "clients": ["id", {"id", "name"}]}

Whether the routes leave a gap is not looked at here: both forms are alike in that, and in what
`both_forms` reads.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from gptnode.errors import MapError
from gptnode.routing.both_forms import (
    CLIENTS_EXAMPLE,
    DTYPES,
    DTYPES_EXAMPLE,
    read_addr,
    read_client,
    read_name,
    read_peer_id,
    read_span,
    repeats,
)
from gptnode.routing.entries import (
    ClientEntry,
    MapEntries,
    ModelEntry,
    PeerEntry,
    PlacedEnds,
    RouteEntry,
)
from gptnode.routing.json_reader import JsonNode, JsonObject, Problems, quoted, suggestion
from gptnode.routing.multiaddr import EXAMPLE as ADDR_EXAMPLE

__all__ = ["read_own_form"]

MODELS_EXAMPLE = '[{"name": "my-llama", "path": "/data/my-llama"}]'
PEERS_EXAMPLE = f'[{{"id": "12D3KooW...", "name": "anna", "addrs": ["{ADDR_EXAMPLE}"]}}]'
ROUTES_EXAMPLE = '[{"blocks": "0-15", "peers": ["anna"]}]'
ADDRS_EXAMPLE = f'["{ADDR_EXAMPLE}"]'


def read_own_form(root: JsonNode, problems: Problems) -> MapEntries | None:
    """All entries; None where ``problems`` were found.

    Raises:
        MapError: a problem that keeps the rest from being looked at.
    """
    top = root.object("a BlocksMap", ("models", "peers", "routes", "clients"))
    models = problems.each(top.required("models", MODELS_EXAMPLE).items(MODELS_EXAMPLE), _model)
    peers = problems.each(top.required("peers", PEERS_EXAMPLE).items(PEERS_EXAMPLE), _peer)
    listed = top.optional("clients")
    nodes = listed.items(CLIENTS_EXAMPLE, empty=True) if listed is not None else ()
    clients = problems.each(nodes, read_client)
    problems.extend(repeats("name", ((node.key("name", None), one.name) for node, one in models)))
    problems.extend(repeats("id", ((node.key("id", None), one.id) for node, one in peers)))
    problems.extend(repeats("id", ((node, one.id) for node, one in clients)))
    problems.extend(_name_clashes((*peers, *clients)))
    if problems:
        # A peer that was rejected would be unknown to every route: that tells nobody anything.
        return None
    names = _Names(
        tuple(model.name for _, model in models),
        {peer.name or peer.id: peer.id for _, peer in peers},
    )
    routes = problems.each(
        top.required("routes", ROUTES_EXAMPLE).items(ROUTES_EXAMPLE), names.route
    )
    if not problems:
        problems.extend(_unserved(models, frozenset(route.model for _, route in routes)))
    if problems:
        return None
    return MapEntries(
        tuple(model for _, model in models),
        tuple(peer for _, peer in peers),
        tuple(route for _, route in routes),
        tuple(client for _, client in clients),
    )


def _name_clashes(
    members: Iterable[tuple[JsonNode, PeerEntry] | tuple[JsonNode, ClientEntry]],
) -> tuple[str, ...]:
    """A line for each name that another peer or client has; a peer may be a client too."""
    owners: dict[str, str] = {}
    lines: list[str] = []
    for node, member in members:
        owner = owners.setdefault(member.name, member.id) if member.name else member.id
        if owner != member.id:
            name_path = node.key("name", None).path
            lines.append(f"{name_path}: another one is called {quoted(member.name)} already")
    return tuple(lines)


def _unserved(
    models: Iterable[tuple[JsonNode, ModelEntry]], served: frozenset[str]
) -> Iterator[str]:
    """A line for each model that no route names."""
    for node, model in models:
        if model.name not in served:
            name = quoted(model.name)
            example = f'{{"model": {name}, "blocks": "0-...", "peers": [...]}}'
            yield f"{node.path}: no route serves {name}; add {example} to routes"


def _model(node: JsonNode) -> ModelEntry:
    keys = ("name", "path", "dtype", "template", "stop", "fingerprint", "draft")
    fields = node.object(MODELS_EXAMPLE[1:-1], keys)
    path = fields.optional("path")
    dtype = fields.optional("dtype")
    template = fields.optional("template")
    draft = fields.optional("draft")
    if dtype is not None and dtype.value not in DTYPES:
        raise dtype.wrong(DTYPES_EXAMPLE)
    return ModelEntry(
        name=fields.required("name", '"my-llama"').line('"my-llama"'),
        path=path.line('"/data/my-llama"') if path is not None else None,
        dtype=dtype.line('"bf16"') if dtype is not None else None,
        template=template.text('"chatml"') if template is not None else None,
        stop=_stops(fields),
        fingerprint=_fingerprint(fields),
        draft=draft.line('"/data/my-small-llama"') if draft is not None else None,
    )


def _fingerprint(fields: JsonObject) -> str | None:
    """32 hex digits, as `gptnode fingerprint` prints them."""
    node = fields.optional("fingerprint")
    if node is None:
        return None
    wanted = "the 32 hex digits that `gptnode fingerprint DIR` prints"
    text = node.value
    if not isinstance(text, str) or re.fullmatch("[0-9a-f]{32}", text) is None:
        raise node.wrong(wanted)
    return text


def _stops(fields: JsonObject) -> tuple[str | tuple[int, ...], ...]:
    """Strings and lists of token ids, where an answer ends."""
    example = '["<|im_end|>", [2, 13]]'
    listed = fields.optional("stop")
    stops: list[str | tuple[int, ...]] = []
    for node in listed.items(example, empty=True) if listed is not None else ():
        if isinstance(node.value, list):
            ids = node.items("[2, 13]")
            stops.append(tuple(one.count("a token id, a whole number such as 2") for one in ids))
        elif isinstance(node.value, str):
            stops.append(node.text('"<|im_end|>"'))
        else:
            raise node.wrong(f"a string or a list of token ids, as in {example}")
    return tuple(stops)


def _peer(node: JsonNode) -> PeerEntry:
    fields = node.object(PEERS_EXAMPLE[1:-1], ("id", "name", "addrs"))
    peer_id = read_peer_id(fields.required("id", '"12D3KooW..."'))
    addrs = fields.required("addrs", ADDRS_EXAMPLE).items(ADDRS_EXAMPLE)
    return PeerEntry(
        peer_id, tuple(read_addr(addr, peer_id) for addr in addrs), read_name(fields, '"anna"')
    )


class _Names:
    """The models and peers that a route may name."""

    def __init__(self, models: tuple[str, ...], peers: dict[str, str]) -> None:
        """``peers`` has the id by the name, or by the id where there is no name."""
        self._models = models
        self._known = tuple(peers)
        self._ids = peers | {peer_id: peer_id for peer_id in peers.values()}

    def route(self, node: JsonNode) -> RouteEntry:
        """One entry of ``routes``."""
        fields = node.object(ROUTES_EXAMPLE[1:-1], ("model", "blocks", "embed", "head", "peers"))
        model = self._model(fields)
        span = read_span(fields.required("blocks", '"0-15"'))
        ids: list[str] = []
        for peer in fields.required("peers", '["anna"]').items('["anna"]'):
            found = self._ids.get(peer.text('"anna"'))
            if found is None:
                raise peer.error(
                    f"no peer is called {quoted(peer.value)}"
                    f"{suggestion(str(peer.value), self._known)}"
                )
            if found in ids:
                raise peer.error(f"{quoted(peer.value)} stands in this list already")
            ids.append(found)
        embed, head = fields.optional("embed"), fields.optional("head")
        ends = PlacedEnds(embed is not None and embed.flag(), head is not None and head.flag())
        return RouteEntry(model, span, tuple(ids), ends)

    def _model(self, fields: JsonObject) -> str:
        """The model that is named, or the only one."""
        node = fields.optional("model")
        if node is not None:
            name = node.text('"my-llama"')
            if name not in self._models:
                raise node.error(
                    f"no model is called {quoted(name)}{suggestion(name, self._models)}"
                )
            return name
        if len(self._models) > 1:
            several = ", ".join(quoted(name) for name in self._models)
            raise MapError(
                f"{fields.node.path}.model: missing; this map has several models: {several}"
            )
        return self._models[0]
