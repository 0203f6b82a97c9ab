"""Every mistake in gptnode's own form is named by its path, with what to write instead."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gptnode.errors import MapError
from gptnode.routing.blocks_map import (
    ClientEntry,
    ModelEntry,
    PeerEntry,
    PlacedEnds,
    RouteEntry,
    parse_blocks_map,
)
from gptnode.routing.route import plan_route
from gptnode.span import Span

from .ids import ANNA, BEN, CLEO, DORA, LAPTOP
from .maps import DROP, own_form, parsed, problem_of, put


def test_all_that_is_written_arrives() -> None:
    found = parsed(own_form())
    assert found.models == (
        ModelEntry("my-llama", "my-llama", "bf16", "llama3", ("<|eot_id|>", (2, 13))),
    )
    assert found.peers == (
        PeerEntry(ANNA, ("/ip4/192.168.1.10/tcp/4001",), "anna"),
        PeerEntry(BEN, ("/dns/ben.example.org/tcp/4001",), "ben"),
        PeerEntry(CLEO, ("/ip6/fd00::3/tcp/4001", f"/ip4/10.0.0.3/tcp/1/p2p/{CLEO}")),
    )
    assert found.routes == (
        RouteEntry("my-llama", Span(0, 8), (ANNA, BEN)),
        RouteEntry("my-llama", Span(8, 15), (BEN,)),
        RouteEntry("my-llama", Span(15, 16), (CLEO,)),
        RouteEntry("my-llama", Span(8, 16), (ANNA,)),
    )
    assert found.clients == (ClientEntry(LAPTOP, "laptop"),)
    assert found.self_peer_id is None
    assert found.source is None


def test_what_may_be_left_out_may_be_null_too() -> None:
    short = own_form()
    short["models"] = [{"name": "m"}]
    del short["clients"], short["routes"][3]["model"]
    nulls = own_form()
    nulls["models"] = [{"name": "m", "path": None, "dtype": None, "template": None, "stop": None}]
    nulls["clients"] = None
    nulls["routes"][3]["model"] = None
    assert parsed(short) == parsed(nulls)
    assert parsed(short).models == (ModelEntry("m"),)


@pytest.mark.parametrize("blocks", [0, "0", "0-0", " 0 "])
def test_one_block_can_be_written_in_several_ways(blocks: object) -> None:
    data = own_form()
    data["routes"] = [{"blocks": blocks, "peers": ["anna"]}]
    assert parsed(data).routes == (RouteEntry("my-llama", Span(0, 1), (ANNA,)),)


def test_a_client_can_be_a_bare_id_and_a_peer_too() -> None:
    data = put(own_form(), ("clients",), [LAPTOP, {"id": ANNA, "name": "anna"}, {"id": DORA}])
    assert parsed(data).clients == (
        ClientEntry(LAPTOP), ClientEntry(ANNA, "anna"), ClientEntry(DORA),
    )  # fmt: skip


def with_ends(*ends: tuple[int, str], **more: Any) -> dict[str, Any]:
    """The map of `own_form` with these flags in these routes."""
    data = own_form()
    for route, key in ends:
        data["routes"][route][key] = True
    return data | more


def test_embedding_and_head_may_go_with_the_first_and_the_last_block() -> None:
    found = parsed(with_ends((0, "embed"), (2, "head"), (3, "head")))
    assert [route.ends for route in found.routes] == [
        PlacedEnds(embed=True), PlacedEnds(), PlacedEnds(head=True), PlacedEnds(head=True),
    ]  # fmt: skip
    assert found.ends("my-llama") == PlacedEnds(True, True)
    assert found.ends_of(ANNA, "my-llama") == PlacedEnds(True, True)
    assert found.ends_of(BEN, "my-llama") == PlacedEnds(embed=True)
    assert found.ends_of(CLEO, "my-llama") == PlacedEnds(head=True)
    assert found.ends_of(DORA, "my-llama") == PlacedEnds()
    hops = plan_route(found, "my-llama", 16).hops
    assert [(str(hop.span), hop.ends) for hop in hops] == [
        ("0-7", PlacedEnds(embed=True)),
        ("8-14", PlacedEnds()),
        ("15", PlacedEnds(head=True)),
    ]
    assert plan_route(found, "my-llama", 16, within=Span(3, 9)).hops[0].ends == PlacedEnds()


def test_ends_that_no_route_has_are_those_of_clients() -> None:
    data = own_form()
    data["routes"][0] |= {"embed": False, "head": None}
    assert parsed(data) == parsed(own_form())
    assert not parsed(data).ends("my-llama")


@pytest.mark.parametrize(
    ("ends", "problem"),
    [
        (
            [(1, "embed")],
            "routes[1].embed: the embedding goes with block 0, which blocks 8-14 are without; "
            "write it in the route that has it",
        ),
        (
            [(0, "head")],
            "routes[0].head: the head goes with block 15, which blocks 0-7 are without; "
            "write it in the route that has it",
        ),
        (
            [(3, "head")],
            'routes[2].head: missing; write "head": true as in routes[3], since all peers of '
            "block 15 need the head then",
        ),
    ],
)
def test_an_end_in_another_place_is_a_problem_that_names_it(
    ends: list[tuple[int, str]], problem: str
) -> None:
    with pytest.raises(MapError) as raised:
        parsed(with_ends(*ends))
    assert raised.value.detail == problem


ADDR_EXAMPLE = "write for example /ip4/192.168.1.10/tcp/4001"

MISTAKES: list[tuple[tuple[str | int, ...], object, str]] = [
    (("routes", 0, "embed"), 1, "routes[0].embed: must be true or false, not 1"),
    (("routes", 0, "head"), "yes", 'routes[0].head: must be true or false, not "yes"'),
    (("models",), DROP, 'models: missing; write for example "models": [{"name": "my-llama"'),
    (("models",), {}, 'models: must be a list such as [{"name": "my-llama"'),
    (("models",), [], 'models: must not be empty; write for example [{"name": "my-llama"'),
    (("models", 0), "my-llama", 'models[0]: must be an object: {"name": "my-llama"'),
    (("models", 0, "name"), DROP, 'models[0].name: missing; write for example "name": "my-llama"'),
    (("models", 0, "name"), "", "models[0].name: must not be empty"),
    (("models", 0, "name"), 7, 'models[0].name: must be a string such as "my-llama", not 7'),
    (("models", 0, "name"), "a\nb", "models[0].name: must have no blanks at its ends"),
    (("models", 0, "name"), "\ud800", 'models[0].name: has half a character in "\\ud800"'),
    (("models", 0, "paht"), "x", 'models[0].paht: unknown key; did you mean "path"?'),
    (("models", 0, "path"), ["x"], 'models[0].path: must be a string such as "/data/my-llama"'),
    (("models", 0, "path"), "\x00", "models[0].path: must have no blanks at its ends"),
    (
        ("models", 0, "dtype"),
        "q8",
        'models[0].dtype: must be "bf16", "f16", "f32", "int8" or "int4", not "q8"',
    ),
    (
        ("models", 0, "dtype"),
        [],
        'models[0].dtype: must be "bf16", "f16", "f32", "int8" or "int4", not a list',
    ),
    (("models", 0, "template"), 3, 'models[0].template: must be a string such as "chatml", not 3'),
    (
        ("models", 0, "stop"),
        "</s>",
        'models[0].stop: must be a list such as ["<|im_end|>", [2, 13]]',
    ),
    (("models", 0, "stop", 0), "", "models[0].stop[0]: must not be empty"),
    (("models", 0, "stop", 0), 2, "models[0].stop[0]: must be a string or a list of token ids"),
    (("models", 0, "stop", 1), [], "models[0].stop[1]: must not be empty"),
    (("models", 0, "stop", 1, 0), -1, "models[0].stop[1][0]: must be a token id,"),
    (("models", 0, "stop", 1, 0), True, "models[0].stop[1][0]: must be a token id"),
    (
        ("models",),
        [{"name": "a"}, {"name": "a"}],
        'models[1].name: the name "a" is that of models[0] already; remove one of the two',
    ),
    (("peers",), DROP, 'peers: missing; write for example "peers": [{"id": "12D3KooW..."'),
    (("peers",), [], "peers: must not be empty"),
    (("peers", 1), None, 'peers[1]: must be an object: {"id": "12D3KooW..."'),
    (("peers", 1, "adresses"), [], 'peers[1].adresses: unknown key; did you mean "addrs"?'),
    (("peers", 1, "id"), DROP, "peers[1].id: missing; write for example"),
    (("peers", 1, "id"), "ben", 'peers[1].id: "ben" is no multihash of a public key'),
    (("peers", 1, "id"), BEN[:-1], "peers[1].id: "),
    (("peers", 1, "id"), ANNA, f'peers[1].id: the id "{ANNA}" is that of peers[0] already'),
    (("peers", 1, "name"), "anna", 'peers[1].name: another one is called "anna" already'),
    (
        ("peers", 1, "name"),
        CLEO,
        "peers[1].name: must be a name that people can say, not a peer id",
    ),
    (("peers", 1, "name"), " ben", "peers[1].name: must have no blanks at its ends"),
    (("peers", 1, "addrs"), DROP, 'peers[1].addrs: missing; write for example "addrs": ["/ip4/'),
    (("peers", 1, "addrs"), [], "peers[1].addrs: must not be empty; write for example"),
    (("peers", 1, "addrs"), "/ip4/1.2.3.4/tcp/1", "peers[1].addrs: must be a list such as"),
    (("peers", 1, "addrs", 0), 4001, "peers[1].addrs[0]: must be a string such as"),
    (
        ("peers", 1, "addrs", 0),
        "ben:4001",
        f'peers[1].addrs[0]: "ben:4001" does not begin with /; {ADDR_EXAMPLE}',
    ),
    (
        ("peers", 1, "addrs", 0),
        f"/ip4/10.0.0.2/tcp/1/p2p/{ANNA}",
        'peers[1].addrs[0]: "/ip4/10.0.0.2/tcp/1/p2p/12D3KooW',
    ),
    (("routes",), DROP, 'routes: missing; write for example "routes": [{"blocks": "0-15"'),
    (("routes",), [], "routes: must not be empty"),
    (("routes", 1, "peer"), "ben", 'routes[1].peer: unknown key; did you mean "peers"?'),
    (
        ("routes", 1, "model"),
        "mylama",
        'routes[1].model: no model is called "mylama"; did you mean "my-llama"?',
    ),
    (
        ("routes", 1, "blocks"),
        DROP,
        'routes[1].blocks: missing; write for example "blocks": "0-15"',
    ),
    (
        ("routes", 1, "blocks"),
        "8..14",
        'routes[1].blocks: must be a block or a range of blocks such as 7 or "0-15"',
    ),
    (("routes", 1, "blocks"), "14-8", 'routes[1].blocks: "14-8" runs backwards; write "8-14"'),
    (("routes", 1, "blocks"), -1, "routes[1].blocks: must be a block or a range"),
    (("routes", 1, "blocks"), 8.0, "routes[1].blocks: must be a block or a range"),
    (("routes", 1, "blocks"), True, "routes[1].blocks: must be a block or a range"),
    (("routes", 1, "blocks"), [8, 14], "routes[1].blocks: must be a block or a range"),
    (("routes", 1, "blocks"), "8-" + "9" * 5000, "routes[1].blocks: must be a block or a range"),
    (
        ("routes", 1, "blocks"),
        "0-999999999999",
        'routes[1].blocks: no model has the blocks "0-999999999999"',
    ),
    (("routes", 1, "blocks"), 10**12, "routes[1].blocks: no model has a block 1000000000000"),
    (("routes", 1, "peers"), "ben", 'routes[1].peers: must be a list such as ["anna"], not "ben"'),
    (("routes", 1, "peers"), [], "routes[1].peers: must not be empty"),
    (
        ("routes", 0, "peers", 1),
        "bena",
        'routes[0].peers[1]: no peer is called "bena"; did you mean "ben"?',
    ),
    (("routes", 0, "peers", 1), DORA, f'routes[0].peers[1]: no peer is called "{DORA}"'),
    (("routes", 0, "peers", 1), 1, "routes[0].peers[1]: must be a string"),
    (("routes", 0, "peers", 1), "anna", 'routes[0].peers[1]: "anna" stands in this list already'),
    (("routes", 0, "peers", 1), ANNA, f'routes[0].peers[1]: "{ANNA}" stands in this list already'),
    (("clients",), "x", "clients: must be a list such as"),
    (("clients", 0), 7, 'clients[0]: must be an object: {"id": "12D3KooW..."'),
    (("clients", 0), "anna", 'clients[0]: "anna" is no multihash of a public key'),
    (("clients", 0, "addrs"), [], 'clients[0].addrs: unknown key; there are "id", "name"'),
    (("clients", 0, "name"), "ben", 'clients[0].name: another one is called "ben" already'),
    (
        ("clients",),
        [LAPTOP, {"id": LAPTOP}],
        f'clients[1]: the id "{LAPTOP}" is that of clients[0] already',
    ),
    (("client",), [], 'client: unknown key; did you mean "clients"?'),
]


@pytest.mark.parametrize(("path", "value", "problem"), MISTAKES)
def test_a_mistake_is_named_with_its_path(
    path: tuple[str | int, ...], value: object, problem: str
) -> None:
    found = problem_of(put(own_form(), path, value))
    assert found.startswith(problem)


def test_a_map_of_several_models_needs_the_model_of_each_route() -> None:
    data = own_form()
    data["models"].append({"name": "tiny"})
    data["routes"] = [{"blocks": 0, "peers": ["anna"]}]
    assert problem_of(data) == (
        'routes[0].model: missing; this map has several models: "my-llama", "tiny"'
    )


def test_a_model_without_routes_is_a_mistake() -> None:
    data = own_form()
    data["models"].append({"name": "tiny"})
    for route in data["routes"]:
        route["model"] = "my-llama"
    assert problem_of(data) == (
        'models[1]: no route serves "tiny"; add {"model": "tiny", "blocks": "0-...",'
        ' "peers": [...]} to routes'
    )


def test_the_top_level_must_be_an_object() -> None:
    assert problem_of([1]) == "the file: must be an object: a BlocksMap, not a list"


def test_several_mistakes_are_counted() -> None:
    data = own_form()
    data["peers"][0]["id"] = "anna"
    data["peers"][1]["addrs"] = []
    data["models"][0]["dtype"] = "q4"
    assert problem_of(data).endswith('not "q4" (and 2 more problems)')
    del data["models"][0]["dtype"], data["peers"][0]
    assert problem_of(data).endswith('write for example ["/ip4/192.168.1.10/tcp/4001"]')


def test_an_error_about_json_itself_comes_with_line_and_column() -> None:
    text = json.dumps(own_form(), indent=1).replace('"peers": [\n', '"peers": [,\n', 1)
    with pytest.raises(Exception, match=r"^line \d+, column \d+: not valid JSON"):
        parse_blocks_map(text)
