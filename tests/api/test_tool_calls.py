from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptnode.api.tool_calls import CallReader, CallStyle, MadeCall, call_style

from .scripted import HERMES, LLAMA, MISTRAL

ONE = '{"name": "f", "arguments": {"x": 1}}'
CALLS = {
    CallStyle.HERMES: f"<tool_call>{ONE}</tool_call>\n<tool_call>\n{ONE}\n</tool_call>",
    CallStyle.LLAMA: '{"name": "f", "parameters": {"x": 1}}; ' + ONE,
    CallStyle.MISTRAL: f"[TOOL_CALLS][{ONE}, {ONE}]",
}


def read(style: CallStyle, pieces: list[str]) -> tuple[str, list[MadeCall]]:
    reader = CallReader(style)
    found = [each for piece in pieces for each in reader.push(piece)] + reader.finish()
    texts = [each for each in found if isinstance(each, str)]
    assert "" not in texts
    return "".join(texts), [each for each in found if isinstance(each, MadeCall)]


def in_pieces(text: str, cuts: list[int]) -> list[str]:
    places = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    return [text[start:stop] for start, stop in pairwise(places)]


@given(style=st.sampled_from(CallStyle), cuts=st.lists(st.integers(0, 1000), max_size=20))
def test_calls_are_read_however_the_answer_is_cut(style: CallStyle, cuts: list[int]) -> None:
    text, calls = read(style, in_pieces(CALLS[style], cuts))
    assert text == ""
    assert [(call.name, json.loads(call.arguments)) for call in calls] == [("f", {"x": 1})] * 2
    assert len({call.id for call in calls}) == 2


@given(
    style=st.sampled_from(CallStyle),
    words=st.lists(
        st.sampled_from(
            ["<tool_call>", "</tool_call>", "<tool", " ", "\n", "{", "}", "[{", "}]", "hello", "["]
        ),
        max_size=12,
    ),
    cuts=st.lists(st.integers(0, 1000), max_size=10),
)
def test_what_is_no_call_is_text_to_the_last_character(
    style: CallStyle, words: list[str], cuts: list[int]
) -> None:
    said = "".join(words)
    text, calls = read(style, in_pieces(said, cuts))
    assert calls == []
    assert text == said


def test_text_before_a_call_comes_at_once() -> None:
    reader = CallReader(CallStyle.HERMES)
    assert reader.push("I look. <to") == ["I look."]
    assert reader.push("ol") == []
    assert reader.push("box>") == [" <toolbox>"]


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>{"name": "f", "arguments": [1]}</tool_call>',
        '<tool_call>{"name": 7, "arguments": {}}</tool_call>',
        '<tool_call>{"name": "f", "arguments": {"x": NaN}}</tool_call>',
        "<tool_call>" + "[" * 5000 + "</tool_call>",
    ],
)
def test_a_broken_call_is_text(text: str) -> None:
    assert read(CallStyle.HERMES, [text]) == (text, [])


def test_a_call_that_was_cut_off_after_its_json_counts() -> None:
    assert len(read(CallStyle.HERMES, [f"<tool_call>{ONE}"])[1]) == 1


def test_the_template_shows_how_calls_are_written() -> None:
    assert call_style(HERMES) is CallStyle.HERMES
    assert call_style(LLAMA) is CallStyle.LLAMA
    assert call_style(MISTRAL) is CallStyle.MISTRAL


def test_ids_are_such_that_mistrals_template_takes_them() -> None:
    _, (call, _) = read(CallStyle.MISTRAL, [CALLS[CallStyle.MISTRAL]])
    assert len(call.id) == 9
    assert call.id.isalnum()
