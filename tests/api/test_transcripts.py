from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptnode.api import transcripts
from gptnode.api.transcripts import Transcripts
from gptnode.text.turn_join import encode_prompt

from .scripted import TOKENIZER

PROMPT = "<|im_start|>user\nHello.<|im_end|>\n<|im_start|>assistant\n"
NEXT = "<|im_end|>\n<|im_start|>user\nAnd then?<|im_end|>\n<|im_start|>assistant\n"
END = TOKENIZER.encode("<|im_end|>")


def letters(text: str) -> list[int]:
    """Another way to write ``text`` than the tokenizer's own: a token for each byte."""
    return [token_id for char in text for token_id in TOKENIZER.encode(char)]


def remembered(answer: str, answer_ids: list[int]) -> tuple[Transcripts, list[int]]:
    known = Transcripts(TOKENIZER)
    prompt_ids = known.encode(PROMPT)
    assert prompt_ids == encode_prompt(TOKENIZER, PROMPT)
    known.remember(PROMPT, prompt_ids, answer_ids, answer)
    return known, [*prompt_ids, *answer_ids]


@pytest.mark.parametrize("end", [[], END])
def test_sampled_ids_stand_however_the_tokenizer_would_write_them(end: list[int]) -> None:
    answer = "BlocksMap says so."
    assert letters(answer) != TOKENIZER.encode(answer)
    known, ids = remembered(answer, letters(answer) + end)
    found = known.encode(PROMPT + answer + NEXT)
    assert found[: len(ids)] == ids
    assert TOKENIZER.decode(found, keep_special=True) == PROMPT + answer + NEXT


def test_a_template_that_trims_answers_costs_their_white_space_only() -> None:
    known, ids = remembered("Yes. \n", letters("Yes. \n") + END)
    found = known.encode(PROMPT + "Yes." + NEXT)
    assert found[: len(ids) - 3] == ids[:-3]
    assert TOKENIZER.decode(found, keep_special=True) == PROMPT + "Yes." + NEXT


@pytest.mark.parametrize("answer", ["Yes", "Yes. No.", "No.", ""])
def test_an_edited_answer_is_encoded_as_a_whole(answer: str) -> None:
    known, _ = remembered("Yes, I do.", letters("Yes, I do.") + END)
    text = PROMPT + answer + NEXT
    assert known.encode(text) == encode_prompt(TOKENIZER, text)


def test_what_was_cut_by_a_stop_text_is_not_in_the_prompt() -> None:
    known, _ = remembered("Yes", letters("Yes. STOP"))
    text = PROMPT + "Yes" + NEXT
    found = known.encode(text)
    assert TOKENIZER.decode(found, keep_special=True) == text


def test_several_turns_are_followed_to_the_last() -> None:
    known, ids = remembered("One.", letters("One.") + END)
    second = known.encode(PROMPT + "One." + NEXT)
    known.remember(PROMPT + "One." + NEXT, second, letters("Two.") + END, "Two.")
    found = known.encode(PROMPT + "One." + NEXT + "Two." + NEXT)
    assert found[: len(second) + 5] == [*second, *letters("Two."), *END]
    assert second[: len(ids)] == ids


def test_old_answers_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transcripts, "MAX_TRANSCRIPTS", 2)
    known, ids = remembered("One.", letters("One.") + END)
    assert known.encode(PROMPT + "One." + NEXT)[: len(ids)] == ids
    for answer in ("Two.", "Three."):
        known.remember(PROMPT, TOKENIZER.encode(PROMPT), letters(answer), answer)
    text = PROMPT + "One." + NEXT
    assert known.encode(text) == encode_prompt(TOKENIZER, text)


@given(answer=st.text(min_size=1), told=st.text(), tail=st.text())
def test_the_ids_always_spell_the_text(answer: str, told: str, tail: str) -> None:
    answer = answer.encode("utf-8", "replace").decode()
    known, _ = remembered(answer, TOKENIZER.encode(answer) + END)
    for text in (PROMPT + answer + tail, PROMPT + told, PROMPT + answer + NEXT + told):
        clean = text.encode("utf-8", "replace").decode()
        assert TOKENIZER.decode(known.encode(clean), keep_special=True) == clean
