from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptnode.text.printable import BIDI_CONTROLS, TerminalFilter, printable
from tests.text.makers import UNHURRIED

NASTY = st.text(alphabet=st.sampled_from("ab\n\t\x1b[]0;m?P\\\x07\x9b\x9d\x9c\x18 é\u202e\ud800"))

HARMLESS = [
    ("\x1b[31mred\x1b[0m", "red"),
    ("\x1b[38;5;1:2mred", "red"),
    ("a\x1b[2J\x1b[Hb", "ab"),
    ("\x1b]0;new title\x07after", "after"),
    ("\x1b]52;c;ZXZpbA==\x1b\\after", "after"),
    ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
    ("\x1bPq#0;2\x1b\\after", "after"),
    ("\x1b_Gf=24\x1b\\after", "after"),
    ("\x9b31mred", "red"),
    ("\x9d0;title\x9cafter", "after"),
    ("\x90q\x9cafter", "after"),
    ("\x1b(0after", "after"),
    ("\x1bcafter", "after"),
    ("a\x08\x08b\x07\x00c\rd\x7fe\x85f", "abcdef"),
    ("one\r\ntwo\tthree", "one\ntwo\tthree"),
    ("abc\u202edcba\u202c\u2066x\u2069", "abcdcbax"),
    ("\x1b[31\x1b[1mbold", "bold"),
    ("\x1b[3\nline", "\nline"),
    ("\x1b]0;never closed\nnext line", "\nnext line"),
    ("\x1b]0;cancelled\x18shown", "shown"),
    ("\x1b]0;title\x1b[1mshown", "shown"),
    ("\x1b", ""),
    ("half \udc80 surrogate", "half \ufffd surrogate"),
    ("\x1béa", "éa"),
    ("\x1b[1éa", "éa"),
]


@pytest.mark.parametrize(("text", "shown"), HARMLESS)
def test_sequences_and_controls_are_dropped(text: str, shown: str) -> None:
    assert printable(text) == shown


@pytest.mark.parametrize(("text", "shown"), HARMLESS)
def test_a_sequence_split_into_characters_is_dropped_too(text: str, shown: str) -> None:
    terminal = TerminalFilter()
    assert "".join([*map(terminal.push, text), terminal.flush()]) == shown


@UNHURRIED
@given(chunks=st.lists(NASTY))
def test_chunk_borders_make_no_difference(chunks: list[str]) -> None:
    terminal = TerminalFilter()
    assert "".join(map(terminal.push, chunks)) == printable("".join(chunks))


@UNHURRIED
@given(text=st.one_of(st.text(alphabet=st.characters()), NASTY))
def test_nothing_that_a_terminal_obeys_comes_out(text: str) -> None:
    for character in printable(text):
        assert character in "\n\t" or unicodedata.category(character) not in ("Cc", "Cs")
        assert character not in BIDI_CONTROLS


@UNHURRIED
@given(text=st.text(alphabet=st.characters(codec="utf-8", exclude_categories=["Cc"])))
def test_text_without_controls_is_unchanged(text: str) -> None:
    text = "".join(c for c in text if c not in BIDI_CONTROLS)
    assert printable(text) == text


def test_a_flush_forgets_an_unfinished_sequence() -> None:
    terminal = TerminalFilter()
    assert terminal.push("a\x1b]0;") == "a"
    assert terminal.flush() == ""
    assert terminal.push("b") == "b"
