"""JSON that is read more strictly than Python does, with paths."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptnode.errors import MapError
from gptnode.routing.json_reader import JsonNode, Problems, parse_json, quoted, suggestion

from .ids import UNHURRIED


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "line 1, column 1: not valid JSON: the file is empty"),
        (" \n ", "line 2, column 2: not valid JSON: the file is empty"),
        ('{"a": 1', "line 1, column 8: not valid JSON: expecting ',' delimiter"),
        ('{"a": [1,\n 2,\n ]}', "line 2, column 3: not valid JSON: remove the comma before ]"),
        ('{"a": 1,}', "remove the comma before }"),
        ('{\n  // models\n}', "line 2, column 3: not valid JSON: JSON has no comments"),
        ('{"a": 1 ,  }', "line 1, column 9: not valid JSON: remove the comma before }"),
        ("{,}", "line 1, column 2: not valid JSON: remove the comma before }"),
        ("{'a': 1}", "strings stand in double quotes"),
        ("{} {}", "extra data"),
        ('{"a": {"b": 1, "c": 2, "b": 3}}', "a.b: stands twice in this object"),
        ('[{"a b": 1, "a b": 1}]', '[0]["a b"]: stands twice in this object'),
        ('{"a": [1, NaN]}', "a[1]: NaN and infinity are no JSON numbers"),
        ('{"a": -Infinity}', "a: NaN and infinity"),
        ('{"a": 1e999}', "a: NaN and infinity"),
        ("[" * 100_000, "nested far deeper than any BlocksMap"),
        ("9" * 5000, "a number of thousands of digits"),
    ],
)  # fmt: skip
def test_what_is_no_json_is_rejected_with_its_place(text: str, problem: str) -> None:
    with pytest.raises(MapError) as caught:
        parse_json(text)
    assert problem in caught.value.detail
    assert caught.value.detail.isprintable()


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=10,
)


@UNHURRIED
@given(VALUES)
def test_json_that_is_right_is_read_as_python_reads_it(value: object) -> None:
    assert parse_json(json.dumps(value)).value == value


@UNHURRIED
@given(VALUES)
def test_any_value_is_quoted_in_one_short_printable_line(value: object) -> None:
    assert quoted(value).isprintable()
    assert len(quoted(value)) <= 70


def test_an_unknown_key_is_named_with_the_nearest_known_one() -> None:
    node = JsonNode({"adrs": []}, "peers[0]")
    with pytest.raises(MapError) as caught:
        node.object("a peer", ("id", "addrs"))
    assert caught.value.detail == 'peers[0].adrs: unknown key; did you mean "addrs"?'


def test_a_key_unlike_any_other_is_answered_with_all_there_are() -> None:
    with pytest.raises(MapError) as caught:
        JsonNode({"\x1b[2J": 1}).object("a peer", ("id", "addrs"))
    assert caught.value.detail == '["\\u001b[2J"]: unknown key; there are "id", "addrs"'


def test_suggestions_ignore_case_and_list_few() -> None:
    assert suggestion("ANNA", ("ben", "anna")) == '; did you mean "anna"?'
    assert suggestion("x", ()) == ""
    assert suggestion("x", ("anna",)) == '; there is "anna"'
    assert suggestion("x", tuple("abcdefghijkl")).endswith('"h", ...')


def test_problems_are_collected_until_there_are_very_many() -> None:
    problems = Problems()
    nodes = tuple(JsonNode(None, f"[{index}]") for index in range(1000))
    assert problems.each(nodes, lambda node: node.count("a number")) == ()
    assert len(problems.lines) == 50
    assert problems.lines[1] == "[1]: must be a number, not null"
