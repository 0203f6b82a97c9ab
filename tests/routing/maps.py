"""Maps to change one thing in."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gptnode.errors import MapError
from gptnode.routing.blocks_map import BlocksMap, parse_blocks_map

from .ids import ANNA, BEN, CLEO, LAPTOP


def own_form() -> dict[str, Any]:
    """Three peers, a client, sixteen blocks of one model."""
    return {
        "models": [
            {"name": "my-llama", "path": "my-llama", "dtype": "bf16", "template": "llama3",
             "stop": ["<|eot_id|>", [2, 13]]},
        ],
        "peers": [
            {"id": ANNA, "name": "anna", "addrs": ["/ip4/192.168.1.10/tcp/4001"]},
            {"id": BEN, "name": "ben", "addrs": ["/dns/ben.example.org/tcp/4001"]},
            {"id": CLEO, "addrs": ["/ip6/fd00::3/tcp/4001", f"/ip4/10.0.0.3/tcp/1/p2p/{CLEO}"]},
        ],
        "routes": [
            {"blocks": "0-7", "peers": ["anna", "ben"]},
            {"blocks": "8-14", "peers": [BEN]},
            {"blocks": 15, "peers": [CLEO]},
            {"model": "my-llama", "blocks": "8-15", "peers": ["anna"]},
        ],
        "clients": [{"id": LAPTOP, "name": "laptop"}],
    }  # fmt: skip


def other_form() -> dict[str, Any]:
    """Two peers, three blocks, as the other program writes them."""
    return {
        "self_peer_id": LAPTOP,
        "parameters": {"MAX_NEW": 64, "TEMP": "0.7", "NOTE": "any key"},
        "models": [
            {
                "model_name": "llama-3b",
                "CHAT_TEMPLATE": "Llama3",
                "STOP": "<|eot_id|>, </s>",
                "TOKENIZER_JSON": "/data/llama-3b/tokenizer.json",
                "LLAMA_WEIGHTS": "/data/llama-3b/model.safetensors.index.json",
                "LLAMA_CONFIG": "/data/llama-3b/config.json",
                "LLAMA_DTYPE": "BF16",
            }
        ],
        "peers": [
            {"peer_id": ANNA, "addr": "/ip4/192.168.1.10/tcp/4001"},
            {"peer_id": BEN, "addr": f"/ip4/192.168.1.11/tcp/4001/p2p/{BEN}"},
        ],
        "routes": [
            {"model_name": "llama-3b", "block_no": 0, "peer_id": ANNA},
            {"model_name": "llama-3b", "block_no": 1, "peer_id": ANNA},
            {"model_name": "llama-3b", "block_no": 2, "peer_id": BEN},
        ],
    }


def put(data: Any, path: tuple[str | int, ...], value: object) -> Any:
    """``data`` with ``value`` at ``path``; `DROP` removes what is there."""
    place = data
    for step in path[:-1]:
        place = place[step]
    if value is DROP:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return data


DROP = object()


def parsed(data: object) -> BlocksMap:
    return parse_blocks_map(json.dumps(data))


def problem_of(data: object) -> str:
    """What is said about a map that is wrong."""
    with pytest.raises(MapError) as caught:
        parsed(data)
    assert "\n" not in caught.value.detail
    assert caught.value.detail.isprintable()
    return caught.value.detail
