from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptnode.api.map_places import line_and_column, places, split_problem

from .fakes import MAP

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def paths_in(value: Any, path: str = "") -> dict[str, Any]:
    """Every value of a document by its path, as the reader of maps names it."""
    found = {path: value}
    if isinstance(value, list):
        for index, item in enumerate(value):
            found |= paths_in(item, f"{path}[{index}]")
    elif isinstance(value, dict):
        for key, item in value.items():
            plain = key.isascii() and key.replace("-", "_").isidentifier() and key[0] != "-"
            step = key if plain else f"[{json.dumps(key, ensure_ascii=False)}]"
            found |= paths_in(item, f"{path}.{step}" if plain and path else path + step)
    return found


@given(JSON, st.sampled_from([None, 0, 2]), st.booleans())
def test_each_value_of_a_text_is_found_by_its_path(
    value: Any, indent: int | None, ascii_only: bool
) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    found = places(text)
    assert {path: json.loads(text[at.start : at.stop]) for path, at in found.items()} == (
        paths_in(value)
    )


@given(st.text(alphabet='{}[],:"\\a1 \n'))
def test_what_is_no_json_is_read_to_its_end(text: str) -> None:
    for place in places(text).values():
        assert 0 <= place.start < place.stop <= len(text)


def test_lines_and_columns_begin_with_one() -> None:
    assert line_and_column("ab\ncd", 0) == (1, 1)
    assert line_and_column("ab\ncd", 4) == (2, 2)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("line 3, column 7: not valid JSON: x", ("", 3, 7, "not valid JSON: x")),
        ("routes[1].peers[0]: no peer: none", ("routes[1].peers[0]", 10, 33, "no peer: none")),
        ("peers[2].nam: unknown key", ("peers[2].nam", 6, 5, "unknown key")),
        ("routes: nobody serves block 3", ("routes", 8, 13, "nobody serves block 3")),
        ("the file: nested too deep", ("", None, None, "the file: nested too deep")),
    ],
)
def test_a_problem_is_shown_where_its_path_leads(
    line: str, expected: tuple[str, int | None, int | None, str]
) -> None:
    assert split_problem(line, MAP) == expected
