"""What a map answers, reading it from a file, and that no JSON whatever breaks the reader."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptnode.errors import MapError
from gptnode.routing.blocks_map import (
    MAX_FILE_BYTES,
    BlocksMap,
    ClientEntry,
    ModelEntry,
    PeerEntry,
    RouteEntry,
    examine_blocks_map,
    parse_blocks_map,
    read_blocks_map,
)
from gptnode.span import Span

from .ids import ANNA, BEN, CLEO, DORA, LAPTOP, UNHURRIED, ed25519_id
from .maps import DROP, other_form, own_form, parsed, problem_of, put


def test_the_first_model_is_the_one_that_nobody_names() -> None:
    found = parsed(own_form())
    assert found.model() is found.model("my-llama")


def test_an_unknown_model_is_answered_with_the_nearest() -> None:
    with pytest.raises(
        MapError, match=r'models: none is called "llama"; did you mean "my-llama"\?'
    ):
        parsed(own_form()).model("llama")
    with pytest.raises(MapError, match="models: there is none"):
        BlocksMap((), (), ()).model()


def test_spans_that_touch_or_overlap_are_loaded_as_one() -> None:
    found = parsed(own_form())
    assert found.spans_of(ANNA, "my-llama") == (Span(0, 16),)
    assert found.spans_of(BEN, "my-llama") == (Span(0, 15),)
    assert found.spans_of(CLEO, "my-llama") == (Span(15, 16),)
    assert found.spans_of(DORA, "my-llama") == ()
    assert found.spans_of(ANNA, "another") == ()


def test_spans_that_do_not_touch_stay_apart_and_in_order() -> None:
    data = own_form()
    data["routes"] = [
        {"blocks": "6-7", "peers": ["ben"]},
        {"blocks": "0-7", "peers": ["anna"]},
        {"blocks": "0-1", "peers": ["ben"]},
        {"blocks": 4, "peers": ["ben"]},
    ]
    assert parsed(data).spans_of(BEN, "my-llama") == (Span(0, 2), Span(4, 5), Span(6, 8))


def test_later_routes_and_later_peers_are_replicas() -> None:
    holders = parsed(own_form()).holders("my-llama", 16)
    assert holders[7] == (ANNA, BEN)
    assert holders[8] == holders[14] == (BEN, ANNA)
    assert holders[15] == (CLEO, ANNA)


def test_peers_and_clients_are_allowed_and_nobody_else() -> None:
    assert parsed(own_form()).allowed() == {ANNA, BEN, CLEO, LAPTOP}


def test_peers_are_found_by_id_and_labelled_by_name() -> None:
    found = parsed(own_form())
    anna, cleo = found.peer(ANNA), found.peer(CLEO)
    assert anna is not None
    assert cleo is not None
    assert anna.label == "anna"
    assert cleo.label == f"{CLEO[:8]}…{CLEO[-6:]}"
    assert found.peer(DORA) is None
    assert ClientEntry(DORA).label == f"{DORA[:8]}…{DORA[-6:]}"


def test_a_model_of_exactly_the_routed_blocks_is_right() -> None:
    found = parsed(own_form())
    assert found.n_blocks("my-llama") == 16
    found.check_blocks("my-llama", 16)


def test_blocks_past_the_end_are_named_with_what_to_write() -> None:
    found = parsed(own_form())
    assert found.block_problems("my-llama", 15) == (
        'routes[2]: "my-llama" has 15 blocks, so block 15 can\'t be served;'
        " blocks count from 0, 14 is the last",
        'routes[3]: "my-llama" has 15 blocks, so blocks 8-15 can\'t be served; write "8-14"',
    )
    with pytest.raises(MapError, match=r"^routes\[2\]: "):
        found.check_blocks("my-llama", 15)


def test_blocks_that_the_model_has_beyond_the_map_are_a_gap() -> None:
    with pytest.raises(MapError, match=r'^routes: nobody serves blocks 16-31 of "my-llama"'):
        parsed(own_form()).check_blocks("my-llama", 32)


def test_gaps_are_found_without_the_model() -> None:
    data = put(own_form(), ("routes", 1, "blocks"), "10-13")
    del data["routes"][3]
    assert problem_of(data) == (
        'routes: nobody serves blocks 8-9 of "my-llama" (it has 0-15); add a route with'
        ' "blocks": "8-9" (and 1 more problem)'
    )


def test_an_error_of_a_file_begins_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "swarm.json"
    path.write_text(json.dumps(put(own_form(), ("routes", 0, "peers", 0), "ana")))
    with pytest.raises(MapError) as caught:
        read_blocks_map(path)
    assert caught.value.detail == (
        f'{path}: routes[0].peers[0]: no peer is called "ana"; did you mean "anna"?'
    )
    path.write_text(json.dumps(own_form()))
    with pytest.raises(MapError, match=rf"^{path}: routes: nobody serves block 16"):
        read_blocks_map(path).check_blocks("my-llama", 17)


def test_relative_paths_count_from_the_folder_of_the_map(tmp_path: Path) -> None:
    path = tmp_path / "swarm.json"
    path.write_text(json.dumps(own_form()))
    paths = read_blocks_map(path).model_paths()
    assert paths is not None
    assert paths.folder == tmp_path / "my-llama"
    assert paths.weights is None
    assert paths.config == tmp_path / "my-llama" / "config.json"
    assert ModelEntry("m").resolve(tmp_path) is None


def test_a_draft_model_is_found_from_the_folder_of_the_map(tmp_path: Path) -> None:
    path, data = tmp_path / "swarm.json", own_form()
    path.write_text(json.dumps(data))
    assert read_blocks_map(path).draft_folder() is None
    data["models"][0]["draft"] = "small/llama"
    path.write_text(json.dumps(data))
    assert read_blocks_map(path).draft_folder("my-llama") == tmp_path / "small" / "llama"
    data["models"][0]["draft"] = "/models/small"
    assert parsed(data).draft_folder() == Path("/models/small")
    data["models"][0]["draft"] = 7
    assert problem_of(data).startswith("models[0].draft: ")


def test_home_folders_are_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    paths = ModelEntry("m", "~/models/m").resolve(Path("/maps"))
    assert paths is not None
    assert paths.folder == tmp_path / "models" / "m"
    with pytest.raises(MapError, match=r"^models: 'm' has the path '~nobody-here/m'"):
        ModelEntry("m", "~nobody-here/m").resolve(Path("/maps"))


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path, problem in (
        (tmp_path / "none.json", "no such file"),
        (tmp_path, "can't be read (Is a directory)"),
        (Path("a\0b"), "can't be read (embedded null byte)"),
    ):
        with pytest.raises(MapError) as caught:
            read_blocks_map(path)
        assert caught.value.detail == f"{path}: {problem}"


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b'{"models": "\xff"}')
    with pytest.raises(MapError, match=r"not UTF-8 text \(byte 12\)"):
        read_blocks_map(path)


def test_a_file_that_is_too_large_is_not_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "weights.json"
    with path.open("wb") as file:
        os.truncate(file.fileno(), 2**40)
    with pytest.raises(MapError, match="larger than 4 MiB, which no BlocksMap is"):
        read_blocks_map(path)
    path.write_text(json.dumps(own_form()).ljust(MAX_FILE_BYTES))
    assert read_blocks_map(path).models


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "swarm.json"
    path.write_text(json.dumps(own_form()), encoding="utf-8-sig")
    assert read_blocks_map(path).models == parsed(own_form()).models


def test_all_problems_of_a_file_are_told_to_who_asks(tmp_path: Path) -> None:
    path = tmp_path / "swarm.json"
    data = own_form()
    data["routes"][0]["peers"] = ["ana", "ben"]
    data["routes"][2]["blocks"] = "x"
    path.write_text(json.dumps(data))
    reading = examine_blocks_map(path)
    assert reading.blocks_map is None
    assert [line.split(":")[0] for line in reading.problems] == [
        "routes[0].peers[0]", "routes[2].blocks",
    ]  # fmt: skip


NAMES = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=8)
STOPS = st.text(min_size=1, max_size=5).filter(lambda text: text.isprintable()) | st.lists(
    st.integers(0, 10**6), min_size=1, max_size=4
)


@st.composite
def maps(draw: st.DrawFn) -> tuple[dict[str, Any], BlocksMap]:
    """A map as JSON and as what it must become."""
    names = draw(st.lists(NAMES, min_size=2, max_size=8, unique_by=str.casefold))
    peers = tuple(
        PeerEntry(ed25519_id(bytes([n]) * 32), (f"/ip4/10.0.0.{n + 1}/tcp/4001",), name)
        for n, name in enumerate(names)
    )
    clients = tuple(
        ClientEntry(ed25519_id(bytes([99, n] * 16))) for n in range(draw(st.integers(0, 2)))
    )
    models, routes = [], []
    for model in draw(st.lists(NAMES, min_size=1, max_size=2, unique=True)):
        models.append(
            ModelEntry(
                model,
                draw(st.none() | NAMES),
                draw(st.sampled_from([None, "bf16", "f16", "f32"])),
                draw(st.none() | NAMES),
                tuple(
                    tuple(stop) if isinstance(stop, list) else stop
                    for stop in draw(st.lists(STOPS, max_size=3))
                ),
            )
        )
        start = 0
        for length in draw(st.lists(st.integers(1, 9), min_size=1, max_size=4)):
            ids = draw(st.lists(st.sampled_from(peers), min_size=1, unique=True))
            span = Span(max(0, start - draw(st.integers(0, 2))), start + length)
            routes.append(RouteEntry(model, span, tuple(peer.id for peer in ids)))
            start += length
    data = {
        "models": [
            {"name": one.name, "path": one.path, "dtype": one.dtype, "template": one.template,
             "stop": [list(stop) if isinstance(stop, tuple) else stop for stop in one.stop]}
            for one in models
        ],
        "peers": [{"id": one.id, "name": one.name, "addrs": list(one.addrs)} for one in peers],
        "routes": [
            {"model": one.model, "blocks": str(one.span), "peers": list(one.peers)}
            for one in routes
        ],
        "clients": [one.id for one in clients],
    }  # fmt: skip
    return data, BlocksMap(tuple(models), peers, tuple(routes), clients)


@UNHURRIED
@given(maps())
def test_a_map_that_is_right_arrives_as_it_is(pair: tuple[dict[str, Any], BlocksMap]) -> None:
    data, expected = pair
    assert parse_blocks_map(json.dumps(data)) == expected


SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    | st.sampled_from([ANNA, BEN, "anna", "my-llama", "0-15", "8-7", "/ip4/1.2.3.4/tcp/1", ""])
)  # fmt: skip
KEYS = st.text(max_size=4) | st.sampled_from(
    ["id", "name", "addrs", "peers", "blocks", "model", "models", "peer_id", "addr", "block_no",
     "model_name", "self_peer_id", "parameters", "LLAMA_WEIGHTS", "STOP", "routes", "clients"]
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


def places(data: object, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """The paths to everything in ``data``."""
    found = [path] if path else []
    steps = (
        data.items()
        if isinstance(data, dict)
        else enumerate(data)
        if isinstance(data, list)
        else ()
    )
    for step, value in steps:
        found += places(value, (*path, step))
    return found


@settings(UNHURRIED, max_examples=200)
@given(st.data(), st.sampled_from([own_form, other_form]))
def test_any_value_at_any_place_is_a_map_or_a_map_error(data: st.DataObject, form: Any) -> None:
    wrong = form()
    for _ in range(data.draw(st.integers(1, 3))):
        where = data.draw(st.sampled_from(places(wrong)))
        value = data.draw(VALUES | st.just(DROP))
        put(wrong, where, value)
        if not places(wrong):
            break
    check_answer(json.dumps(wrong))


@UNHURRIED
@given(VALUES)
def test_any_json_is_a_map_or_a_map_error(value: object) -> None:
    check_answer(json.dumps(value))


@UNHURRIED
@given(st.text(max_size=60) | st.text(alphabet='{}[]",:0 -.\\u', max_size=60))
def test_any_text_is_a_map_or_a_map_error(text: str) -> None:
    check_answer(text)


@UNHURRIED
@given(st.integers(0, 1500), st.integers(0, 300))
def test_a_file_that_was_cut_is_an_error(start: int, length: int) -> None:
    text = json.dumps(own_form())
    check_answer(text[:start] + text[start + length :])


def check_answer(text: str) -> None:
    """A map whose routes hold together, or an error of one printable line."""
    try:
        found = parse_blocks_map(text)
    except MapError as error:
        assert error.detail.isprintable(), error.detail
        assert len(error.detail) < 1000
        return
    for model in found.models:
        found.check_blocks(model.name, found.n_blocks(model.name))
    ids = {peer.id for peer in found.peers}
    assert all(ids.issuperset(route.peers) for route in found.routes)
