from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptnode.errors import TextError
from gptnode.text.stops import StopMatcher, resolve_stops
from gptnode.text.tokenizer import Tokenizer
from tests.text.makers import UNHURRIED

SHORT = st.text(alphabet="abc", max_size=40)
STOPS = st.lists(st.text(alphabet="abc", min_size=1, max_size=5), max_size=4)


def feed(matcher: StopMatcher, chunks: list[str]) -> list[str]:
    """Tokens 0, 1, 2 ... that say ``chunks``."""
    return [matcher.push(token_id, chunk) for token_id, chunk in enumerate(chunks)]


def chunked(text: str, cuts: list[int]) -> list[str]:
    edges = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    return [text[a:b] for a, b in pairwise(edges)]


def cut_at_first_stop(text: str, stops: list[str]) -> str:
    places = [text.find(stop) for stop in stops if stop in text]
    return text[: min(places, default=len(text))]


class TestStrings:
    @UNHURRIED
    @given(text=SHORT, stops=STOPS, cuts=st.lists(st.integers(0, 100), max_size=12))
    def test_the_visible_text_ends_where_the_first_stop_begins(
        self, text: str, stops: list[str], cuts: list[int]
    ) -> None:
        matcher = StopMatcher(stops)
        pieces = [*feed(matcher, chunked(text, cuts)), matcher.finish()]
        assert "".join(pieces) == cut_at_first_stop(text, stops)
        assert (matcher.stopped is not None) == any(stop in text for stop in stops)
        if matcher.stopped is not None:
            assert text[len("".join(pieces)) :].startswith(str(matcher.stopped))

    @UNHURRIED
    @given(text=SHORT, stops=STOPS)
    def test_no_more_is_withheld_than_could_become_a_stop(
        self, text: str, stops: list[str]
    ) -> None:
        matcher = StopMatcher(stops)
        shown = ""
        for end, character in enumerate(text, start=1):
            shown += matcher.push(0, character)
            if matcher.stopped is not None:
                return
            withheld = text[len(shown) : end]
            assert withheld == "" or any(stop.startswith(withheld) for stop in stops)

    def test_a_stop_over_three_tokens_is_never_shown(self) -> None:
        matcher = StopMatcher(["<END>"])
        assert feed(matcher, ["yes <", "EN", "D> no"]) == ["yes ", "", ""]
        assert matcher.stopped == "<END>"

    def test_a_false_alarm_is_shown_when_it_is_over(self) -> None:
        matcher = StopMatcher(["<END>"])
        assert feed(matcher, ["a <EN", "OUGH>"]) == ["a ", "<ENOUGH>"]
        assert matcher.stopped is None

    def test_the_earlier_beginning_wins_over_the_earlier_end(self) -> None:
        matcher = StopMatcher(["c", "bcd"])
        assert feed(matcher, ["ab", "c", "d"]) == ["a", "", ""]
        assert matcher.stopped == "bcd"

    def test_a_stop_inside_of_a_false_alarm_is_found_at_the_end(self) -> None:
        matcher = StopMatcher(["c", "bcd"])
        assert feed(matcher, ["ab", "c"]) == ["a", ""]
        assert matcher.finish() == "b"
        assert matcher.stopped == "c"

    def test_what_the_decoder_held_back_counts_too(self) -> None:
        matcher = StopMatcher(["é!"])
        assert matcher.push(1, "aé") == "a"
        assert matcher.finish("!b") == ""
        assert matcher.stopped == "é!"

    def test_nothing_comes_after_a_stop_or_the_end(self) -> None:
        stopped = StopMatcher(["x"])
        assert feed(stopped, ["ax", "b"]) == ["a", ""]
        assert (stopped.finish("c"), stopped.flush()) == ("", "")
        ended = StopMatcher(["xy"])
        assert (ended.push(1, "x"), ended.flush(), ended.push(2, "y")) == ("", "x", "")
        assert ended.stopped is None


class TestIds:
    @UNHURRIED
    @given(
        ids=st.lists(st.integers(0, 2), max_size=30),
        sequences=st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=4), max_size=3),
    )
    def test_the_visible_text_ends_before_the_tokens_of_the_sequence(
        self, ids: list[int], sequences: list[list[int]]
    ) -> None:
        matcher = StopMatcher([], sequences)
        shown = ""
        for place, token_id in enumerate(ids):
            shown += matcher.push(token_id, f"{place},")
        shown += matcher.finish()
        kept = len(ids)
        for end in range(len(ids) + 1):
            found = [s for s in sequences if len(s) <= end and ids[end - len(s) : end] == s]
            if found:
                kept = end - max(map(len, found))
                break
        assert shown == "".join(f"{place}," for place in range(kept))
        assert (matcher.stopped is not None) == (kept < len(ids))

    def test_text_is_shown_as_soon_as_no_sequence_is_under_way(self) -> None:
        matcher = StopMatcher([], [(1, 2, 3)])
        shown = [matcher.push(i, str(i)) for i in (0, 1, 2, 1, 2, 4)]
        assert shown == ["0", "", "", "12", "", "124"]

    def test_memory_holds_no_more_tokens_than_the_longest_sequence(self) -> None:
        matcher = StopMatcher([], [(1, 1, 1, 2)])
        for _ in range(1000):
            matcher.push(1, "x")
        assert len(matcher._held_tokens) == 3

    def test_a_string_before_the_sequence_ends_the_answer_earlier(self) -> None:
        matcher = StopMatcher(["no"], [(7, 8)])
        assert matcher.push(7, "yes no more") == ""
        assert matcher.push(8, "") == ""
        assert matcher.stopped == (7, 8)
        matcher = StopMatcher(["no"], [(7, 8)])
        assert matcher.push(6, "n") == ""
        assert matcher.push(7, "o") == ""
        assert matcher.push(9, "") == ""
        assert matcher.stopped == "no"

    def test_half_a_stop_string_before_the_sequence_is_shown(self) -> None:
        matcher = StopMatcher(["<END>"], [(7,)])
        assert matcher.push(1, "a <E") == "a "
        assert matcher.push(7, "") == "<E"
        assert matcher.stopped == (7,)


@pytest.mark.parametrize(("strings", "sequences"), [([""], []), ([], [()]), (["a", ""], [(1,)])])
def test_an_empty_stop_is_refused(strings: list[str], sequences: list[tuple[int, ...]]) -> None:
    with pytest.raises(TextError, match="empty"):
        StopMatcher(strings, sequences)


def test_control_tokens_become_ids_and_other_stops_stay(byte_level: Tokenizer) -> None:
    end_id = byte_level.id_of("<|im_end|>")
    stops = resolve_stops(byte_level, ["<|im_end|>", "User:", [4, 5], "<|im_end|>"])
    assert stops == ((end_id,), "User:", (4, 5))
