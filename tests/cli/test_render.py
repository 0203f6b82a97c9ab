from __future__ import annotations

import json
from io import StringIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptnode.cli.render import Screen, answer_json, table
from gptnode.errors import RouteError, UsageError
from gptnode.node.answer import Answer


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


class Broken(StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError


def test_an_answer_goes_to_stdout_and_ends_with_one_line_break() -> None:
    out, err = StringIO(), StringIO()
    screen = Screen(out, err)
    for piece in ("Hel", "lo\n", "you"):
        screen.text(piece)
    screen.end_answer()
    screen.text("with a break\n")
    screen.end_answer()
    assert (out.getvalue(), err.getvalue()) == ("Hello\nyou\nwith a break\n", "")


def test_each_piece_is_there_at_once() -> None:
    out = StringIO()
    screen = Screen(out, StringIO())
    screen.text("Hel")
    assert out.getvalue() == "Hel"


@pytest.mark.parametrize(
    "pieces",
    [("a\x1b[31mb",), ("a\x1b", "[31mb"), ("a\x1b[3", "1mb"), ("a\x1b]0;title", "\x07b")],
)
def test_escape_sequences_of_a_model_do_not_reach_the_terminal(pieces: tuple[str, ...]) -> None:
    terminal = Terminal()
    screen = Screen(terminal, terminal, colour=False)
    for piece in pieces:
        screen.text(piece)
    screen.end_answer()
    assert "\x1b" not in terminal.getvalue()
    assert "\x07" not in terminal.getvalue()


@given(st.lists(st.text(st.characters(max_codepoint=0x2FF)), max_size=6))
def test_no_control_character_of_a_model_reaches_the_terminal(pieces: list[str]) -> None:
    terminal = Terminal()
    screen = Screen(terminal, terminal, colour=False)
    for piece in pieces:
        screen.text(piece)
    screen.end_answer()
    seen = terminal.getvalue()
    assert not [
        char for char in seen if (ord(char) < 32 or 127 <= ord(char) < 160) and char not in "\n\t"
    ]


def test_raw_output_is_for_pipes_only() -> None:
    pipe, terminal = StringIO(), Terminal()
    for stream in (pipe, terminal):
        screen = Screen(stream, StringIO(), raw=True)
        screen.text("a\x1b[31mb")
        screen.end_answer()
    assert pipe.getvalue() == "a\x1b[31mb\n"
    assert "\x1b" not in terminal.getvalue()


def test_a_status_line_in_the_middle_of_an_answer_gets_a_line_of_its_own() -> None:
    terminal = Terminal()
    screen = Screen(terminal, terminal, colour=False)
    screen.text("Once upon")
    screen.status("anna went away: going on over ben")
    screen.text(" a time")
    screen.end_answer()
    assert terminal.getvalue() == "Once upon\n· anna went away: going on over ben\n a time\n"


def test_a_status_line_never_reaches_a_pipe_with_the_answer() -> None:
    out, err = StringIO(), Terminal()
    screen = Screen(out, err, colour=False)
    screen.text("Once upon")
    screen.status("anna went away")
    screen.text(" a time")
    screen.end_answer()
    assert out.getvalue() == "Once upon a time\n"
    assert err.getvalue() == "· anna went away\n"


@pytest.mark.parametrize(("verbose", "seen"), [(False, ""), (True, "· dialling anna\n")])
def test_progress_is_for_people_or_on_request(verbose: bool, seen: str) -> None:
    err = StringIO()
    Screen(StringIO(), err, verbose=verbose).status("dialling anna")
    assert err.getvalue() == seen


def test_an_error_is_one_line_with_advice_and_without_foreign_escapes() -> None:
    terminal = Terminal()
    Screen(terminal, terminal, colour=False).error(RouteError("no peer\nfor \x1b[2Jblocks 0-3"))
    text = terminal.getvalue()
    assert text.startswith("! no peer for ")
    assert text.endswith("blocks 0-3. " + RouteError("").advice + "\n")
    assert "\x1b" not in text


def test_colours_are_for_terminals_that_want_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    coloured = Terminal()
    Screen(coloured, coloured).error(UsageError("no"))
    assert coloured.getvalue().startswith("\x1b[31m! no")
    monkeypatch.setenv("NO_COLOR", "1")
    plain = Terminal()
    Screen(plain, plain).error(UsageError("no"))
    assert plain.getvalue().startswith("! no")


def test_progress_vanishes_before_the_answer() -> None:
    terminal = Terminal()
    screen = Screen(terminal, terminal, colour=True)
    screen.progress("reading 1 of 9")
    screen.progress("reading 5 of 9")
    screen.text("Hello")
    screen.progress("too late")
    screen.end_answer()
    erase = "\r\x1b[K"
    assert terminal.getvalue() == (
        f"{erase}\x1b[2m· reading 1 of 9\x1b[0m{erase}\x1b[2m· reading 5 of 9\x1b[0m{erase}Hello\n"
    )


def test_progress_is_not_for_pipes() -> None:
    out, err = StringIO(), StringIO()
    Screen(out, err, verbose=True).progress("reading 1 of 9")
    assert out.getvalue() == err.getvalue() == ""


def test_a_reader_who_leaves_is_told_and_a_closed_stderr_is_not() -> None:
    with pytest.raises(BrokenPipeError):
        Screen(Broken(), StringIO()).text("Hello")
    Screen(StringIO(), Broken(), verbose=True).status("nobody reads this")


def test_lines_go_above_a_prompt_that_is_on_screen() -> None:
    terminal = Terminal()
    screen = Screen(terminal, terminal, colour=False)
    above: list[str] = []
    screen.above = above.append
    screen.status("anna went away")
    assert above == ["· anna went away"]
    assert terminal.getvalue() == ""


def test_the_json_of_an_answer_has_the_promised_keys_in_one_line() -> None:
    answer = Answer("a\x1b[1m\nä", (1, 2, 3), 10, 3, "end", 0.5, 1.0)
    text = answer_json(answer)
    assert json.loads(text) == {
        "text": "a\x1b[1m\nä",
        "ids": [1, 2, 3],
        "prompt_tokens": 10,
        "completion_tokens": 3,
        "stop_reason": "end",
        "tokens_per_s": 2.0,
    }
    assert "\n" not in text
    assert "\x1b" not in text


def test_a_table_is_as_wide_as_its_cells_are_on_screen() -> None:
    assert table(("peer", "blocks"), [("安娜", "0-3"), ("b", "4")]) == [
        "peer  blocks",
        "安娜  0-3",
        "b     4",
    ]
    assert table(("", ""), [("a", "b")]) == ["a  b"]
