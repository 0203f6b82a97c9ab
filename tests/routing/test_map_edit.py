"""A client is added to a map, and all that a person wrote stays."""

from __future__ import annotations

import contextlib
import json
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptnode.errors import MapError
from gptnode.routing import map_edit
from gptnode.routing.blocks_map import ClientEntry, parse_blocks_map, read_blocks_map
from gptnode.routing.map_edit import accept_client, with_client

from .ids import ANNA, DORA, LAPTOP, UNHURRIED
from .maps import DROP, other_form, own_form, put

ENTRY = f'{{"name": "dora", "id": "{DORA}"}}'


def written(clients: str) -> str:
    """A map whose list of clients is that text."""
    rest = json.dumps(put(own_form(), ("clients",), DROP))
    return rest[:-1] + f', "clients": {clients}}}'


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("[]", f"[{ENTRY}]"),
        ("[ ]", f"[{ENTRY}]"),
        ("null", f"[{ENTRY}]"),
        (f'["{LAPTOP}"]', f'["{LAPTOP}", {ENTRY}]'),
        (f'[\n    "{LAPTOP}"\n  ]', f'[\n    "{LAPTOP}",\n    {ENTRY}\n  ]'),
        (
            f'[\r\n\t{{"id": "{LAPTOP}"}}\r\n]',
            f'[\r\n\t{{"id": "{LAPTOP}"}},\r\n\t{ENTRY}\r\n]',
        ),
        (
            f'[\n    {{\n      "id": "{LAPTOP}"\n    }}\n  ]',
            f'[\n    {{\n      "id": "{LAPTOP}"\n    }},\n'
            f'    {{\n      "name": "dora",\n      "id": "{DORA}"\n    }}\n  ]',
        ),
    ],
)
def test_the_new_entry_looks_like_its_neighbours(before: str, after: str) -> None:
    text = written(before)
    assert with_client(text, DORA, "dora") == text.replace(before, after)


def test_among_plain_ids_a_client_without_a_name_is_one_too() -> None:
    assert f'["{LAPTOP}", "{DORA}"]' in with_client(written(f'["{LAPTOP}"]'), DORA)
    assert f'{{"id": "{DORA}"}}' in with_client(written(f'[{{"id": "{LAPTOP}"}}]'), DORA)


def test_a_map_without_clients_gets_a_list_in_a_line_of_its_own() -> None:
    text = json.dumps(put(own_form(), ("clients",), DROP), indent=2)
    edited = with_client(text, DORA, "dora")
    assert edited == text[:-2] + f',\n  "clients": [{ENTRY}]\n}}'


def test_a_name_may_hold_any_character() -> None:
    edited = with_client(written("[]"), DORA, 'Dóra "D" \\')
    assert parse_blocks_map(edited).clients == (ClientEntry(DORA, 'Dóra "D" \\'),)


maps: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.builds(own_form),
    st.builds(other_form),
    st.builds(lambda: put(own_form(), ("clients",), DROP)),
    st.builds(lambda: put(own_form(), ("clients",), [])),
    st.builds(lambda: other_form() | {"clients": [LAPTOP]}),
    st.builds(lambda: dict(reversed(own_form().items()))),
)


@UNHURRIED
@given(
    maps,
    st.sampled_from([None, 0, 1, 2, 4, "\t"]),
    st.sampled_from([",", ", ", " , "]),
    st.sampled_from([":", ": ", " : "]),
    st.booleans(),
    st.sampled_from([None, "dora"]),
)
def test_whatever_the_form_one_client_is_added_and_nothing_is_taken_away(
    data: dict[str, Any],
    indent: int | str | None,
    comma: str,
    colon: str,
    is_ascii: bool,
    name: str | None,
) -> None:
    text = json.dumps(data, indent=indent, separators=(comma, colon), ensure_ascii=is_ascii)
    before = parse_blocks_map(text)
    edited = with_client(text, DORA, name)
    after = parse_blocks_map(edited)
    assert after.clients == (*before.clients, ClientEntry(DORA, name or ""))
    assert (after.models, after.peers, after.routes) == (before.models, before.peers, before.routes)
    same = next(
        (i for i, (a, b) in enumerate(zip(text, edited, strict=False)) if a != b), len(text)
    )
    rest = len(text) - same
    assert rest == 0 or edited.endswith(text[same:])


@UNHURRIED
@given(st.text(max_size=200) | st.text('{}[]",: \n\\cab1', max_size=40).map("{".__add__))
def test_what_is_no_map_is_an_error_of_the_map_and_never_a_crash(text: str) -> None:
    with contextlib.suppress(MapError):  # an object that is no map is seen by who wants it written
        with_client(text, DORA)


def test_the_file_keeps_its_mode_and_its_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "map.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(own_form()).encode())
    path.chmod(0o640)
    assert accept_client(path, DORA, "dora")
    assert path.read_bytes().startswith(b"\xef\xbb\xbf{")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert DORA in read_blocks_map(path).allowed()
    assert [one.name for one in tmp_path.iterdir()] == ["map.json"]


@pytest.mark.parametrize("known", [LAPTOP, ANNA], ids=["client", "peer"])
def test_who_is_listed_already_changes_nothing(known: str, tmp_path: Path) -> None:
    path = tmp_path / "map.json"
    path.write_text(json.dumps(own_form()))
    before = path.stat()
    assert not accept_client(path, known)
    assert path.stat() == before


@pytest.mark.parametrize(
    ("text", "name"),
    [('{"models": ', None), (json.dumps(own_form()), "anna"), (json.dumps(own_form()), DORA)],
    ids=["broken", "name taken", "name is an id"],
)
def test_a_map_that_is_wrong_or_would_be_is_left_as_it_is(
    text: str, name: str | None, tmp_path: Path
) -> None:
    path = tmp_path / "map.json"
    path.write_text(text)
    with pytest.raises(MapError, match=r"map\.json"):
        accept_client(path, DORA, name)
    assert path.read_text() == text


def test_an_edit_at_the_same_moment_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "map.json"
    path.write_text(json.dumps(own_form()))

    def edited_meanwhile(text: str, peer_id: str, name: str | None) -> str:
        path.write_text(json.dumps(own_form(), indent=2))
        return with_client(text, peer_id, name)

    monkeypatch.setattr(map_edit, "with_client", edited_meanwhile)
    with pytest.raises(MapError, match="same moment"):
        accept_client(path, DORA)
    assert path.read_text() == json.dumps(own_form(), indent=2)


def test_a_file_that_can_not_be_written_is_an_error_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "map.json"
    path.write_text(json.dumps(own_form()))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(map_edit, "replace_file", full)
    with pytest.raises(MapError, match=r"map\.json: can't be written \(No space left"):
        accept_client(path, DORA)
