"""The BlocksMap as another node program writes it (``blocks_map.json``), loaded unchanged.

::

    {"self_peer_id": "12D3KooW..." | "auto", "parameters": {...}, "clients": [...],
     "models": [{"model_name", "CHAT_TEMPLATE", "STOP", "TOKENIZER_JSON", "LLAMA_WEIGHTS",
                 "LLAMA_CONFIG", "LLAMA_DTYPE"}],
     "peers":  [{"peer_id", "addr"}],
     "routes": [{"model_name", "block_no", "peer_id"}]}

As there, all settings are strings, ``parameters`` and ``models`` may be left out, keys that nobody
knows are passed over, a route may name a model without settings, and the node itself needs no
address. Unlike there, a block that has several routes has replicas, a peer that is listed again has
another address, and there may be ``clients`` as in gptnode's own form.
"""

from __future__ import annotations

from pathlib import PurePath, PurePosixPath, PureWindowsPath

from gptnode.routing.both_forms import (
    DTYPES,
    DTYPES_EXAMPLE,
    MAX_BLOCKS,
    read_addr,
    read_client,
    read_peer_id,
    repeats,
)
from gptnode.routing.entries import ClientEntry, MapEntries, ModelEntry, PeerEntry, RouteEntry
from gptnode.routing.json_reader import JsonNode, JsonObject, Problems, quoted, suggestion
from gptnode.span import Span

__all__ = ["is_other_form", "read_other_form"]

DTYPE_SPELLINGS = {
    "bfloat16": "bf16",
    "float16": "f16",
    "fp16": "f16",
    "half": "f16",
    "float32": "f32",
    "fp32": "f32",
    "float": "f32",
}
TEMPLATE_SPELLINGS = {"chatml_im": "chatml", "im": "chatml", "simple": "tags", "simpletags": "tags"}
SIGNS = {"peers": "peer_id", "routes": "block_no"}
"""A key that all entries of a list have in this form alone."""

USUAL_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
WEIGHTS_SUFFIXES = (".safetensors", ".json")


def is_other_form(root: JsonNode) -> bool:
    """Whether the file is in this form; a file that is in neither counts as gptnode's own."""
    if not isinstance(root.value, dict):
        return False
    if "self_peer_id" in root.value or "parameters" in root.value:
        return True
    return all(
        isinstance(entries := root.value.get(name), list)
        and entries
        and all(isinstance(entry, dict) and sign in entry for entry in entries)
        for name, sign in SIGNS.items()
    )


def read_other_form(root: JsonNode, problems: Problems) -> MapEntries | None:
    """All entries; None where ``problems`` were found.

    Raises:
        MapError: a problem that keeps the rest from being looked at.
    """
    top = root.object("a BlocksMap")
    own_id = _self_peer_id(top)
    parameters = top.optional("parameters")
    if parameters is not None:
        parameters.object('settings such as {"MAX_NEW": 64}')
    settings = problems.each(_items(top, "models"), _model)
    problems.extend(
        repeats("name", ((node.key("model_name", None), model.name) for node, model in settings))
    )
    listed = problems.each(_items(top, "peers"), _peer)
    clients = problems.each(_items(top, "clients"), read_client)
    problems.extend(repeats("id", ((node, client.id) for node, client in clients)))
    if problems:
        return None
    peers: dict[str, PeerEntry] = {}
    for _, peer in listed:
        known = peers.get(peer.id, PeerEntry(peer.id, ()))
        more = tuple(addr for addr in peer.addrs if addr not in known.addrs)
        peers[peer.id] = PeerEntry(peer.id, known.addrs + more)
    known_ids = tuple(dict.fromkeys((*peers, *((own_id,) if own_id is not None else ()))))
    example = '[{"model_name": "my-llama", "block_no": 0, "peer_id": "12D3KooW..."}]'
    nodes = top.required("routes", example).items(example)
    routes = problems.each(nodes, lambda node: _route(node, known_ids))
    if problems:
        return None
    models = {model.name: model for _, model in settings}
    for _, route in routes:
        models.setdefault(route.model, ModelEntry(route.model))
    listed_clients = tuple(client for _, client in clients)
    if own_id is not None and own_id not in peers:
        if any(own_id in route.peers for _, route in routes):
            peers[own_id] = PeerEntry(own_id, ())
        elif own_id not in [client.id for client in listed_clients]:
            listed_clients = (ClientEntry(own_id), *listed_clients)
    return MapEntries(
        tuple(models.values()),
        tuple(peers.values()),
        tuple(route for _, route in routes),
        listed_clients,
        own_id,
    )


def _items(top: JsonObject, key: str) -> tuple[JsonNode, ...]:
    """The entries of a list that may be left out."""
    node = top.optional(key)
    return node.items("[{...}]", empty=True) if node is not None else ()


def _self_peer_id(top: JsonObject) -> str | None:
    """The id of the node that the file was written for; ``auto`` until that node has one."""
    node = top.optional("self_peer_id")
    if node is None or node.value in ("", "auto"):
        return None
    return read_peer_id(node)


def _setting(fields: JsonObject, key: str, example: str) -> str | None:
    """A string; empty is as good as nothing."""
    node = fields.optional(key)
    if node is None or node.value == "":
        return None
    return node.text(example).strip() or None


def _model(node: JsonNode) -> ModelEntry:
    fields = node.object('{"model_name": "my-llama", "LLAMA_WEIGHTS": "/data/my-llama"}')
    name = fields.required("model_name", '"my-llama"').line('"my-llama"')
    weights = _path(fields, "LLAMA_WEIGHTS", "model.safetensors")
    config = _path(fields, "LLAMA_CONFIG", "config.json")
    tokenizer = _path(fields, "TOKENIZER_JSON", "tokenizer.json")
    folder = _folder(weights)
    for file in (config, tokenizer):
        if folder is None and file is not None:
            folder = file.parent
    return ModelEntry(
        name=name,
        path=str(folder) if folder is not None else None,
        dtype=_dtype(fields),
        template=_template(fields),
        stop=_stops(fields),
        weights=_elsewhere(weights, folder, USUAL_WEIGHTS) if weights != folder else None,
        config=_elsewhere(config, folder, ("config.json",)),
        tokenizer=_elsewhere(tokenizer, folder, ("tokenizer.json",)),
    )


def _path(fields: JsonObject, key: str, usual: str) -> PurePath | None:
    """A file or folder; a path with backslashes alone is one of Windows."""
    node = fields.optional(key)
    if node is None or node.value == "":
        return None
    text = node.line(quoted(f"/data/my-llama/{usual}"))
    return PureWindowsPath(text) if "\\" in text and "/" not in text else PurePosixPath(text)


def _folder(weights: PurePath | None) -> PurePath | None:
    """The folder of the weights, which may be named themselves."""
    if weights is None or weights.suffix.lower() not in WEIGHTS_SUFFIXES:
        return weights
    return weights.parent


def _elsewhere(
    file: PurePath | None, folder: PurePath | None, usual: tuple[str, ...]
) -> str | None:
    """The path of ``file`` if it isn't where such a folder has it."""
    if file is None or (file.parent == folder and file.name in usual):
        return None
    return str(file)


def _dtype(fields: JsonObject) -> str | None:
    text = _setting(fields, "LLAMA_DTYPE", '"bf16"')
    if text is None:
        return None
    name = DTYPE_SPELLINGS.get(text.lower(), text.lower())
    if name not in DTYPES:
        raise fields.node.key("LLAMA_DTYPE", text).wrong(DTYPES_EXAMPLE)
    return name


def _template(fields: JsonObject) -> str | None:
    text = _setting(fields, "CHAT_TEMPLATE", '"llama3"')
    return TEMPLATE_SPELLINGS.get(text.lower(), text) if text is not None else None


def _stops(fields: JsonObject) -> tuple[str, ...]:
    """Strings with commas between them, or with ``||`` where one of them has a comma; or a list."""
    node = fields.optional("STOP")
    if node is not None and isinstance(node.value, list):
        return tuple(item.text('"<|eot_id|>"') for item in node.items('["</s>"]', empty=True))
    text = _setting(fields, "STOP", '"<|eot_id|>,</s>"') or ""
    parts = text.split("||" if "||" in text else ",")
    return tuple(part.strip() for part in parts if part.strip())


def _peer(node: JsonNode) -> PeerEntry:
    fields = node.object('{"peer_id": "12D3KooW...", "addr": "/ip4/192.168.1.10/tcp/4001"}')
    peer_id = read_peer_id(fields.required("peer_id", '"12D3KooW..."'))
    addr = fields.required("addr", '"/ip4/192.168.1.10/tcp/4001"')
    return PeerEntry(peer_id, (read_addr(addr, peer_id),))


def _route(node: JsonNode, known_ids: tuple[str, ...]) -> RouteEntry:
    fields = node.object('{"model_name": "my-llama", "block_no": 0, "peer_id": "12D3KooW..."}')
    model = fields.required("model_name", '"my-llama"').line('"my-llama"')
    number = fields.required("block_no", "0")
    block = number.count("a block such as 0")
    if block >= MAX_BLOCKS:
        raise number.error(f"no model has a block {quoted(block)}")
    peer = fields.required("peer_id", '"12D3KooW..."')
    peer_id = read_peer_id(peer)
    if peer_id not in known_ids:
        raise peer.error(f"no peer has the id {quoted(peer_id)}{suggestion(peer_id, known_ids)}")
    return RouteEntry(model, Span(block, block + 1), (peer_id,))
