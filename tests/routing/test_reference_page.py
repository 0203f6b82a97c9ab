"""The pages about the BlocksMap say what is so: their JSON is read, their errors are raised."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from gptnode.errors import MapError
from gptnode.routing.blocks_map import BlocksMap, PlacedEnds, parse_blocks_map

from .ids import ANNA, BEN, CLEO
from .maps import own_form, parsed, problem_of, put

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "reference" / "blocksmap.md").read_text(encoding="utf-8")
JSON_BLOCKS = re.findall(r"^ *```json\n(.*?)^ *```$", PAGE, re.MULTILINE | re.DOTALL)
ERROR_ROWS = re.findall(r"^\| `(\{.*\})` \| `(.*)` \|$", PAGE, re.MULTILINE)
CHANGE_ROWS = re.findall(r"^\| `(\S+) = (.*?)` \| `(.*)` \|$", PAGE, re.MULTILINE)
FIELD_TABLES = re.findall(r"^### (.+)\n\n\| key \|.*\n.*\n((?:\|.*\n)+)", PAGE, re.MULTILINE)


def test_the_page_has_what_is_tested_here() -> None:
    assert (len(JSON_BLOCKS), len(ERROR_ROWS), len(CHANGE_ROWS)) == (2, 4, 9)
    assert [title for title, _ in FIELD_TABLES] == ["Top level", "models", "peers", "routes"]


def test_both_examples_are_right_maps() -> None:
    own, other = (parse_blocks_map(block) for block in JSON_BLOCKS)
    assert isinstance(own, BlocksMap)
    assert own.n_blocks("my-llama") == 32
    assert own.self_peer_id is None
    assert other.self_peer_id is not None
    assert other.model().path == "/data/llama-3b"


@pytest.mark.parametrize(("text", "error"), ERROR_ROWS)
def test_an_error_is_the_one_on_the_page(text: str, error: str) -> None:
    with pytest.raises(MapError) as caught:
        parse_blocks_map(text)
    # A table on the page has no room for backticks inside backticks.
    assert caught.value.detail.replace("`", "") == error


@pytest.mark.parametrize(("where", "value", "error"), CHANGE_ROWS)
def test_a_change_gets_the_error_on_the_page(where: str, value: str, error: str) -> None:
    data = json.loads(JSON_BLOCKS[0])
    steps = tuple(int(step) if step.isdigit() else step for step in re.findall(r"\w+", where))
    assert problem_of(put(data, steps, json.loads(value))) == error


@pytest.mark.parametrize(("title", "rows"), FIELD_TABLES)
def test_the_page_lists_the_fields_that_there_are(title: str, rows: str) -> None:
    data = own_form()
    place: Any = data if title == "Top level" else data[title][0]
    place["?"] = 1
    listed = re.findall(r"^\| `(\w+)` ", rows, re.MULTILINE)
    known = re.findall(r'"(\w+)"', problem_of(data).partition(";")[2])
    assert sorted(listed) == sorted(known)


def test_the_routes_of_the_page_on_chats_without_weights_make_a_map() -> None:
    text = (DOCS / "how-to" / "chat-without-weights.md").read_text(encoding="utf-8")
    found = [json.loads(one) for one in re.findall(r"^```json\n(.*?)^```$", text, re.M | re.S)]
    data = own_form()
    data["peers"] = [
        {"id": peer_id, "name": name, "addrs": ["/ip4/192.168.1.10/tcp/4001"]}
        for name, peer_id in (("anna", ANNA), ("ben", BEN), ("cleo", CLEO))
    ]
    data["routes"], data["models"] = found[:2], found[2:]
    blocks_map = parsed(data)
    assert blocks_map.n_blocks("my-llama") == 32
    assert blocks_map.ends("my-llama") == PlacedEnds(embed=True, head=True)
    assert blocks_map.model().fingerprint is not None


@pytest.mark.parametrize("page", ["reroute-around-a-failed-peer.md", "add-a-machine.md"])
def test_the_snippets_of_the_how_to_pages_fit_into_a_map(page: str) -> None:
    text = (DOCS / "how-to" / page).read_text(encoding="utf-8")
    snippets = re.findall(r"^ *```json\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL)
    assert snippets
    for snippet in snippets:
        entry = json.loads(snippet)
        data = own_form()
        data["peers"] = [
            {"id": peer_id, "name": name, "addrs": ["/ip4/192.168.1.10/tcp/4001"]}
            for name, peer_id in (("anna", ANNA), ("ben", BEN), ("cleo", CLEO))
        ]
        data["routes"] = [{"blocks": "0-31", "peers": ["anna"]}]
        if "blocks" in entry:
            data["routes"].append(entry)
        else:
            data["peers"][2] = entry | {"id": CLEO}
        assert parsed(data).n_blocks("my-llama") == 32
