"""The file of the other program loads as it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from gptnode.routing.blocks_map import ClientEntry, ModelEntry, PeerEntry, RouteEntry
from gptnode.span import Span

from .ids import ANNA, BEN, CLEO, LAPTOP
from .maps import DROP, other_form, own_form, parsed, problem_of, put


def test_all_that_is_written_arrives() -> None:
    found = parsed(other_form())
    assert found.models == (
        ModelEntry("llama-3b", "/data/llama-3b", "bf16", "Llama3", ("<|eot_id|>", "</s>")),
    )
    assert found.peers == (
        PeerEntry(ANNA, ("/ip4/192.168.1.10/tcp/4001",)),
        PeerEntry(BEN, (f"/ip4/192.168.1.11/tcp/4001/p2p/{BEN}",)),
    )
    assert found.routes == (
        RouteEntry("llama-3b", Span(0, 1), (ANNA,)),
        RouteEntry("llama-3b", Span(1, 2), (ANNA,)),
        RouteEntry("llama-3b", Span(2, 3), (BEN,)),
    )
    assert found.self_peer_id == LAPTOP
    assert found.clients == (ClientEntry(LAPTOP),)


@pytest.mark.parametrize("drop", [("parameters",), ("models",), ("self_peer_id",)])
def test_all_but_peers_and_routes_may_be_left_out(drop: tuple[str | int, ...]) -> None:
    found = parsed(put(other_form(), drop, DROP))
    assert [model.name for model in found.models] == ["llama-3b"]
    assert found.spans_of(ANNA, "llama-3b") == (Span(0, 2),)


@pytest.mark.parametrize("nobody", ["auto", "", None])
def test_a_node_that_has_no_id_yet_is_nobody(nobody: str | None) -> None:
    found = parsed(put(other_form(), ("self_peer_id",), nobody))
    assert found.self_peer_id is None
    assert found.clients == ()


def test_a_node_that_serves_its_own_blocks_needs_no_address() -> None:
    data = other_form()
    data["routes"][0]["peer_id"] = LAPTOP
    found = parsed(data)
    assert found.peer(LAPTOP) == PeerEntry(LAPTOP, ())
    assert found.clients == ()
    assert LAPTOP in found.allowed()


def test_a_node_that_is_listed_is_that_peer() -> None:
    found = parsed(put(other_form(), ("self_peer_id",), BEN))
    assert found.clients == ()
    assert found.self_peer_id == BEN
    assert len(found.peers) == 2


def test_a_model_without_settings_is_known_by_its_routes() -> None:
    data = other_form()
    data["routes"].append({"model_name": "tiny", "block_no": 0, "peer_id": BEN})
    assert parsed(data).model("tiny") == ModelEntry("tiny")


def test_settings_of_a_model_without_routes_are_no_mistake() -> None:
    data = other_form()
    data["models"].append({"model_name": "tiny"})
    assert parsed(data).n_blocks("tiny") == 0


def test_keys_that_nobody_knows_are_passed_over() -> None:
    data = other_form()
    data["comment"] = "our swarm"
    data["peers"][0]["comment"] = data["models"][0]["comment"] = "fast"
    data["routes"][0]["comment"] = None
    assert parsed(data) == parsed(other_form())


def test_a_peer_that_is_listed_again_has_another_address() -> None:
    data = other_form()
    data["peers"] += [{"peer_id": ANNA, "addr": "/dns/anna/tcp/1"}, dict(data["peers"][0])]
    anna = parsed(data).peer(ANNA)
    assert anna is not None
    assert anna.addrs == ("/ip4/192.168.1.10/tcp/4001", "/dns/anna/tcp/1")


def test_a_block_that_is_routed_again_has_a_replica() -> None:
    data = other_form()
    data["routes"].append({"model_name": "llama-3b", "block_no": 0, "peer_id": BEN})
    assert parsed(data).holders("llama-3b", 3) == ((ANNA, BEN), (ANNA,), (BEN,))


@pytest.mark.parametrize(
    ("settings", "entry"),
    [
        ({}, ModelEntry("m")),
        ({"LLAMA_WEIGHTS": "", "LLAMA_CONFIG": None, "STOP": ""}, ModelEntry("m")),
        ({"LLAMA_WEIGHTS": "/m"}, ModelEntry("m", "/m")),
        ({"LLAMA_WEIGHTS": "models/llama-3.2"}, ModelEntry("m", "models/llama-3.2")),
        ({"LLAMA_WEIGHTS": "m/model.safetensors"}, ModelEntry("m", "m")),
        ({"LLAMA_WEIGHTS": "model.safetensors"}, ModelEntry("m", ".")),
        ({"LLAMA_WEIGHTS": "/m/w.safetensors"}, ModelEntry("m", "/m", weights="/m/w.safetensors")),
        (
            {"LLAMA_WEIGHTS": "/m/model.safetensors", "LLAMA_CONFIG": "/c/config.json"},
            ModelEntry("m", "/m", config="/c/config.json"),
        ),
        (
            {"LLAMA_WEIGHTS": "/m", "LLAMA_CONFIG": "/m/c.json", "TOKENIZER_JSON": "/t/t.json"},
            ModelEntry("m", "/m", config="/m/c.json", tokenizer="/t/t.json"),
        ),
        ({"LLAMA_CONFIG": "/m/config.json"}, ModelEntry("m", "/m")),
        ({"TOKENIZER_JSON": "/m/tokenizer.json"}, ModelEntry("m", "/m")),
        (
            {
                "LLAMA_WEIGHTS": "d:\\Models\\L3\\model.safetensors.index.json",
                "LLAMA_CONFIG": "D:\\Models\\L3\\config.json",
            },
            ModelEntry("m", "d:\\Models\\L3"),
        ),
        ({"LLAMA_DTYPE": "F16"}, ModelEntry("m", dtype="f16")),
        ({"LLAMA_DTYPE": "bfloat16"}, ModelEntry("m", dtype="bf16")),
        ({"LLAMA_DTYPE": "float32"}, ModelEntry("m", dtype="f32")),
        ({"LLAMA_DTYPE": "INT4"}, ModelEntry("m", dtype="int4")),
        ({"CHAT_TEMPLATE": "ChatML_im"}, ModelEntry("m", template="chatml")),
        ({"CHAT_TEMPLATE": "Gemma"}, ModelEntry("m", template="Gemma")),
        ({"STOP": "</s>"}, ModelEntry("m", stop=("</s>",))),
        ({"STOP": "a, b ,,c"}, ModelEntry("m", stop=("a", "b", "c"))),
        ({"STOP": "Yes, sir||</s>"}, ModelEntry("m", stop=("Yes, sir", "</s>"))),
        ({"STOP": ["a,b", "</s>"]}, ModelEntry("m", stop=("a,b", "</s>"))),
    ],
)
def test_settings_become_an_entry(settings: dict[str, object], entry: ModelEntry) -> None:
    data = put(other_form(), ("models",), [{"model_name": "m", **settings}])
    assert parsed(data).model("m") == entry


def test_files_that_are_elsewhere_are_found_from_the_folder_of_the_map() -> None:
    entry = ModelEntry("m", "w", weights="w/x.safetensors", config="c/config.json")
    paths = entry.resolve(Path("/maps"))
    assert paths is not None
    assert paths.folder == Path("/maps/w")
    assert paths.weights == Path("/maps/w/x.safetensors")
    assert paths.config == Path("/maps/c/config.json")
    assert paths.tokenizer == Path("/maps/w/tokenizer.json")


MISTAKES: list[tuple[tuple[str | int, ...], object, str]] = [
    (("self_peer_id",), "me", 'self_peer_id: "me" is no multihash of a public key; write the peer'),
    (("self_peer_id",), 7, "self_peer_id: must be a string"),
    (("parameters",), [], "parameters: must be an object"),
    (("models",), {}, "models: must be a list"),
    (("models", 0, "model_name"), DROP, "models[0].model_name: missing; write for example"),
    (("models", 0, "STOP"), 2, "models[0].STOP: must be a string such as"),
    (("models", 0, "LLAMA_WEIGHTS"), 2, "models[0].LLAMA_WEIGHTS: must be a string such as"),
    (("models", 0, "LLAMA_DTYPE"), "q8", 'models[0].LLAMA_DTYPE: must be "bf16", "f16", "f32", "i'),
    (
        ("models",),
        [{"model_name": "m"}, {"model_name": "m"}],
        'models[1].model_name: the name "m" is that of models[0] already',
    ),
    (("peers", 0, "peer_id"), "anna", 'peers[0].peer_id: "anna" is no multihash'),
    (("peers", 0, "addr"), DROP, 'peers[0].addr: missing; write for example "addr": "/ip4/'),
    (("peers", 0, "addr"), "anna:1", 'peers[0].addr: "anna:1" does not begin with /; write for'),
    (("routes",), DROP, "routes: missing"),
    (("routes",), [], "routes: must not be empty"),
    (("routes", 1, "model_name"), DROP, "routes[1].model_name: missing"),
    (("routes", 1, "block_no"), DROP, 'routes[1].block_no: missing; write for example "block_no"'),
    (("routes", 1, "block_no"), "0-1", 'routes[1].block_no: must be a block such as 0, not "0-1"'),
    (("routes", 1, "block_no"), 10**9, "routes[1].block_no: no model has a block 1000000000"),
    (("routes", 1, "block_no"), 3, 'routes: nobody serves block 1 of "llama-3b"'),
    (("routes", 1, "peer_id"), CLEO, f'routes[1].peer_id: no peer has the id "{CLEO}"'),
    (("routes", 1, "peer_id"), ANNA[:-1] + "x", "routes[1].peer_id: no peer has the id"),
]


@pytest.mark.parametrize(("path", "value", "problem"), MISTAKES)
def test_a_mistake_is_named_with_its_path(
    path: tuple[str | int, ...], value: object, problem: str
) -> None:
    assert problem_of(put(other_form(), path, value)).startswith(problem)


def test_an_id_with_a_typing_error_is_suggested_right() -> None:
    wrong = ANNA[:20] + ("x" if ANNA[20] != "x" else "y") + ANNA[21:]
    assert problem_of(put(other_form(), ("routes", 1, "peer_id"), wrong)).endswith(
        f'did you mean "{ANNA}"?'
    )


def test_one_entry_in_the_other_form_does_not_make_it_the_other_form() -> None:
    data = own_form()
    data["peers"][0] = {"peer_id": ANNA, "addr": "/ip4/192.168.1.10/tcp/4001"}
    assert problem_of(data).startswith('peers[0].peer_id: unknown key; did you mean "id"?')


def test_clients_may_be_listed_beside_the_node_itself() -> None:
    found = parsed(other_form() | {"clients": [CLEO, {"id": LAPTOP, "name": "laptop"}]})
    assert found.clients == (ClientEntry(CLEO), ClientEntry(LAPTOP, "laptop"))
    alone = parsed(other_form() | {"clients": [CLEO]})
    assert alone.clients == (ClientEntry(LAPTOP), ClientEntry(CLEO))


def test_a_client_that_is_wrong_or_listed_again_is_named() -> None:
    assert problem_of(other_form() | {"clients": ["nobody"]}).startswith("clients[0]: ")
    assert problem_of(other_form() | {"clients": [CLEO, CLEO]}).startswith("clients[1]: ")
