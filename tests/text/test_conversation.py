from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptnode.errors import ContextError, TextError
from gptnode.text.builtin_templates import BUILTIN_TEMPLATES
from gptnode.text.conversation import Conversation
from gptnode.text.template import ChatTemplate, Turn, load_template
from gptnode.text.tokenizer import Tokenizer
from gptnode.text.turn_join import encode_prompt
from tests.text import templates
from tests.text.makers import UNHURRIED

CHAT_STYLES = [
    *(template.name for template in BUILTIN_TEMPLATES if template.name != "plain"),
    "own-chatml",
    "own-llama2",
    "own-llama3",
    "own-mistral",
    "own-gemma",
]
QUESTIONS = ("Hello there!", "And how are you?", "User: x\n\nwhy é👍?")
ANSWERS = ("I am fine.", "Very much, thank you 👍.", "ok")


def style(name: str, tokenizer: Tokenizer) -> ChatTemplate:
    own = name.removeprefix("own-")
    return load_template(None, tokenizer, templates.ALL[own] if own != name else name)


def whole(tokenizer: Tokenizer, template: ChatTemplate, turns: list[Turn]) -> list[int]:
    """The conversation encoded in one piece."""
    return encode_prompt(tokenizer, template.render(turns, add_generation_prompt=True))


def sampled(
    tokenizer: Tokenizer, template: ChatTemplate, turns: list[Turn], prompt: list[int]
) -> tuple[list[int], list[int]]:
    """What a model would answer for the last assistant turn: the ids, with and without its end."""
    after = whole(tokenizer, template, [*turns, Turn("user", "gptnode next")])
    assert after[: len(prompt)] == prompt
    rest = after[len(prompt) :]
    end = next((i for i, token in enumerate(rest) if token in tokenizer.special_ids), None)
    if end is None:
        answer = tokenizer.encode_continuation(turns[-1].text)
        return answer, answer
    return rest[: end + 1], rest[:end]


def chat(
    tokenizer: Tokenizer, template: ChatTemplate, *, system: str | None, cut: bool
) -> Callable[[Conversation], list[Turn]]:
    """Three exchanges, each prompt compared with the whole conversation encoded at once."""

    def run(conversation: Conversation) -> list[Turn]:
        turns = [Turn("system", system)] if system else []
        for question, answer in zip(QUESTIONS, ANSWERS, strict=True):
            turns.append(Turn("user", question))
            prompt = conversation.ask(question)
            assert prompt == whole(tokenizer, template, turns)
            assert prompt == list(conversation.ids)
            turns.append(Turn("assistant", answer))
            ended, unended = sampled(tokenizer, template, turns, prompt)
            conversation.answered(unended if cut else ended, answer)
        return turns

    return run


class TestNewTurnsAlone:
    @pytest.mark.parametrize("name", CHAT_STYLES)
    @pytest.mark.parametrize("cut", [False, True], ids=["ended", "cut"])
    def test_prompts_equal_the_whole_conversation_encoded_at_once(
        self, name: str, cut: bool, any_family: Tokenizer
    ) -> None:
        template = style(name, any_family)
        run = chat(any_family, template, system=None, cut=cut)
        conversation = Conversation(any_family, template)
        turns = run(conversation)
        assert list(conversation.turns) == turns

    @pytest.mark.parametrize(
        "name", [name for name in CHAT_STYLES if name not in ("own-gemma", "own-mistral")]
    )
    def test_so_with_a_system_text(self, name: str, any_family: Tokenizer) -> None:
        template = style(name, any_family)
        run = chat(any_family, template, system="Be kind.", cut=False)
        run(Conversation(any_family, template, "Be kind."))

    @pytest.mark.parametrize("name", CHAT_STYLES)
    def test_a_loaded_context_goes_on_as_the_chat_did(
        self, name: str, any_family: Tokenizer
    ) -> None:
        template = style(name, any_family)
        first = Conversation(any_family, template)
        chat(any_family, template, system=None, cut=False)(first)
        second = Conversation(any_family, template)
        second.load(first.ids)
        assert second.ids == first.ids
        assert second.turns == ()
        assert second.ask("More?") == first.ask("More?")

    def test_plain_text_without_any_mark_is_the_same_text(self, any_family: Tokenizer) -> None:
        # Its pieces may be other tokens than the whole: nothing keeps "Assistant:" and " I" apart.
        template = style("plain", any_family)
        conversation = Conversation(any_family, template)
        turns: list[Turn] = []
        for question, answer in zip(QUESTIONS, ANSWERS, strict=True):
            turns.append(Turn("user", question))
            ids = conversation.ask(question)
            text = template.render(turns, add_generation_prompt=True)
            assert any_family.decode(ids, keep_special=True).replace("<s> ", "<s>") == f"<s>{text}"
            conversation.answered(any_family.encode_continuation(f" {answer}\nUser:"), answer)
            turns.append(Turn("assistant", answer))

    @UNHURRIED
    @given(question=st.text(), answer=st.lists(st.integers(0, 400), max_size=20))
    def test_the_ids_so_far_never_change(
        self, any_family: Tokenizer, question: str, answer: list[int]
    ) -> None:
        conversation = Conversation(any_family, style("chatml", any_family))
        prompt = conversation.ask("Hello")
        conversation.answered(answer, any_family.decode(answer))
        before = conversation.ids
        assert list(before) == prompt + answer
        assert tuple(conversation.ask(question)[: len(before)]) == before

    @UNHURRIED
    @given(question=st.text())
    def test_any_question_gives_what_one_piece_gives(
        self, byte_level: Tokenizer, question: str
    ) -> None:
        template = style("chatml", byte_level)
        conversation = Conversation(byte_level, template)
        conversation.ask("Hello")
        conversation.answered(byte_level.encode("Hi.<|im_end|>"), "Hi.")
        turns = [Turn("user", "Hello"), Turn("assistant", "Hi."), Turn("user", question)]
        assert conversation.ask(question) == whole(byte_level, template, turns)


class TestEndOfAnswer:
    def text(self, tokenizer: Tokenizer, name: str, answer: str) -> str:
        """The context's text after "Q", an answer of these ids, and "R"."""
        conversation = Conversation(tokenizer, style(name, tokenizer))
        prompt = conversation.ask("Q")
        conversation.answered(tokenizer.encode_continuation(answer), answer)
        ids = conversation.ask("R")
        return tokenizer.decode(ids[len(prompt) :], keep_special=True)

    @pytest.mark.parametrize(
        ("name", "answer", "text"),
        [
            ("chatml", "A<|im_end|>", "A<|im_end|>\n<|im_start|>user\nR"),
            ("chatml", "A", "A<|im_end|>\n<|im_start|>user\nR"),
            ("chatml", "A\n", "A\n<|im_end|>\n<|im_start|>user\nR"),
            ("chatml", "A<", "A<<|im_end|>\n<|im_start|>user\nR"),
            ("chatml", "A<|im_end|>\n", "A<|im_end|>\n<|im_start|>user\nR"),
            ("chatml", "A</s>", "A</s><|im_end|>\n<|im_start|>user\nR"),
            ("chatml", "A<|im_end|>\n<|im_start|>", "A<|im_end|>\n<|im_start|>user\nR"),
            ("chatml", "", "<|im_end|>\n<|im_start|>user\nR"),
            ("llama3", "A<|eot_id|>", "A<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nR"),
            ("llama2", "A</s>", "A</s><s>[INST] R"),
            ("llama2", "A </s>", "A </s><s>[INST] R"),
            ("llama2", "A", "A </s><s>[INST] R"),
            ("mistral", "A[INST]", "A[INST] R"),
            ("alpaca", "A</s>", "A</s>\n\n### Instruction:\nR"),
            ("alpaca", "A\n\n### Instruction:", "A\n\n### Instruction:\nR"),
            ("alpaca", "A### Instruction:", "A### Instruction:\nR"),
            ("alpaca", "A", "A</s>\n\n### Instruction:\nR"),
            ("plain", "A\nUser:", "A\nUser: R"),
            ("plain", "A\n", "A\nUser: R"),
            ("plain", "A", "A\nUser: R"),
        ],
    )
    def test_marks_that_the_answer_brought_along_are_not_repeated(
        self, name: str, answer: str, text: str, byte_level: Tokenizer
    ) -> None:
        assert self.text(byte_level, name, answer).startswith(text)

    def test_marks_without_tokens_are_joined_as_text(self, llama_2: Tokenizer) -> None:
        text = self.text(llama_2, "chatml", "A<|im_end|>")
        assert text.lstrip().startswith("A<|im_end|>\n<|im_start|>user\nR<|im_end|>\n")


class TestOneBos:
    @pytest.mark.parametrize("name", CHAT_STYLES)
    def test_a_prompt_begins_with_exactly_one(self, name: str, any_family: Tokenizer) -> None:
        ids = Conversation(any_family, style(name, any_family)).ask("Hello")
        assert ids[0] == any_family.bos_id
        assert ids.count(any_family.bos_id or 0) == 1

    def test_none_is_added_where_none_is_wanted(self, wordpiece: Tokenizer) -> None:
        assert encode_prompt(wordpiece, "Hello") == wordpiece.encode("Hello")

    def test_bos_in_the_text_is_not_doubled(self, byte_level: Tokenizer) -> None:
        assert encode_prompt(byte_level, "<s>Hello") == byte_level.encode("<s>Hello")
        assert encode_prompt(byte_level, "Hello") == byte_level.encode("<s>Hello")
        assert encode_prompt(byte_level, "") == [byte_level.bos_id]


@pytest.fixture
def conversation(byte_level: Tokenizer) -> Conversation:
    return Conversation(byte_level, style("chatml", byte_level), "Be kind.")


class TestTurns:
    def answer(self, conversation: Conversation, text: str) -> None:
        conversation.answered([5, 6, 7], text)

    def test_undo_restores_the_ids_exactly(self, conversation: Conversation) -> None:
        seen = [conversation.ids]
        for number in range(3):
            conversation.ask(f"Q{number}")
            self.answer(conversation, f"A{number}")
            seen.append(conversation.ids)
        for ids in reversed(seen[:-1]):
            conversation.undo()
            assert conversation.ids == ids
        with pytest.raises(ContextError, match="no question to take back"):
            conversation.undo()

    def test_undo_takes_back_a_question_without_an_answer(self, conversation: Conversation) -> None:
        conversation.ask("Q")
        conversation.undo()
        assert (conversation.ids, conversation.turns) == ((), ())

    def test_retry_gives_the_same_prompt(self, conversation: Conversation) -> None:
        prompt = conversation.ask("Q")
        assert conversation.retry() == prompt
        self.answer(conversation, "A")
        assert conversation.retry() == prompt == list(conversation.ids)
        assert conversation.turns == (Turn("user", "Q"),)
        self.answer(conversation, "B")
        assert conversation.turns[-1] == Turn("assistant", "B")
        assert list(conversation.ids) == [*prompt, 5, 6, 7]

    def test_retry_needs_a_question(self, conversation: Conversation) -> None:
        with pytest.raises(ContextError, match="no question to ask again"):
            conversation.retry()
        conversation.load([1, 2])
        with pytest.raises(ContextError, match="since the context was loaded"):
            conversation.retry()

    def test_an_answer_that_never_began_leaves_a_chat_that_goes_on(
        self, conversation: Conversation, byte_level: Tokenizer
    ) -> None:
        prompt = conversation.ask("Q")
        conversation.answered([], "")
        assert list(conversation.ids) == prompt
        text = byte_level.decode(conversation.ask("R"), keep_special=True)
        assert "assistant\n<|im_end|>\n<|im_start|>user\nR<|im_end|>" in text
        conversation.undo()
        assert conversation.retry() == prompt

    def test_questions_and_answers_alternate(self, conversation: Conversation) -> None:
        with pytest.raises(ContextError, match="no question awaits"):
            conversation.answered([1], "A")
        conversation.ask("Q")
        before = conversation.ids
        with pytest.raises(ContextError, match="no answer yet"):
            conversation.ask("R")
        assert conversation.ids == before
        assert conversation.awaits_answer

    def test_clear_keeps_the_system_text(
        self, conversation: Conversation, byte_level: Tokenizer
    ) -> None:
        prompt = conversation.ask("Q")
        self.answer(conversation, "A")
        conversation.clear()
        assert (conversation.ids, conversation.turns) == ((), ())
        assert conversation.ask("Q") == prompt
        assert "Be kind." in byte_level.decode(prompt)

    def test_undo_after_load_goes_back_to_what_was_loaded(self, conversation: Conversation) -> None:
        conversation.load([9, 8, 7])
        conversation.ask("Q")
        self.answer(conversation, "A")
        conversation.undo()
        assert conversation.ids == (9, 8, 7)

    def test_loading_nothing_is_an_empty_chat(self, conversation: Conversation) -> None:
        prompt = conversation.ask("Q")
        conversation.load([])
        assert conversation.ask("Q") == prompt


class TestSystemText:
    def test_it_takes_effect_in_an_empty_chat(
        self, conversation: Conversation, byte_level: Tokenizer
    ) -> None:
        conversation.set_system("Be short.")
        assert conversation.system == "Be short."
        text = byte_level.decode(conversation.ask("Q"), keep_special=True)
        assert text.startswith("<s><|im_start|>system\nBe short.<|im_end|>\n")

    def test_it_is_put_before_what_was_said_and_answers_keep_their_ids(
        self, conversation: Conversation, byte_level: Tokenizer
    ) -> None:
        for question in ("Q", "R"):
            conversation.ask(question)
            conversation.answered([*byte_level.encode("odd"), 5, 300, 7], "odd")
        conversation.ask("S")
        conversation.set_system("Be short.")
        anew = Conversation(byte_level, style("chatml", byte_level), "Be short.")
        for question in ("Q", "R"):
            anew.ask(question)
            anew.answered([*byte_level.encode("odd"), 5, 300, 7], "odd")
        assert list(conversation.ids) == anew.ask("S")
        conversation.answered([1], "x")
        conversation.set_system(None)
        assert "system" not in byte_level.decode(conversation.ids)

    def test_that_of_a_loaded_context_stays(self, conversation: Conversation) -> None:
        conversation.load([4, 5])
        with pytest.raises(ContextError, match="loaded context"):
            conversation.set_system("Be short.")
        assert (conversation.ids, conversation.system) == ((4, 5), "Be kind.")

    @pytest.mark.parametrize("source", [templates.GEMMA, "{% for m in messages if m.role != "
                             "'system' %}[{{ m.content }}]{% endfor %}"])  # fmt: skip
    def test_a_template_without_system_turns_gets_it_with_the_first_question(
        self, source: str, byte_level: Tokenizer
    ) -> None:
        conversation = Conversation(byte_level, load_template(None, byte_level, source), "Sys.")
        assert "Sys.\n\nQ" in byte_level.decode(conversation.ask("Q"))
        conversation.answered(byte_level.encode("A"), "A")
        assert byte_level.decode(conversation.ask("R")).count("Sys.") == 1


HIDES_ANSWERS = "{% for m in messages %}{{ m.content | upper }}|{% endfor %}"
FAILS_LATER = (
    "{% if messages | length > 1 %}{{ raise_exception('one question only') }}{% endif %}"
    "{{ messages[0].content }}"
)


class TestAwkwardTemplates:
    def test_answers_that_cant_be_found_are_rendered_anew(self, byte_level: Tokenizer) -> None:
        template = load_template(None, byte_level, HIDES_ANSWERS)
        conversation = Conversation(byte_level, template)
        conversation.ask("q")
        conversation.answered([5, 6], "an answer")
        before = conversation.ids
        assert byte_level.decode(conversation.ask("r")) == "Q|AN ANSWER|R|"
        conversation.undo()
        assert conversation.ids == before

    def test_a_loaded_context_cant_be_rendered_anew(self, byte_level: Tokenizer) -> None:
        conversation = Conversation(byte_level, load_template(None, byte_level, HIDES_ANSWERS))
        conversation.load([5, 6])
        with pytest.raises(TextError, match="can't continue a loaded context"):
            conversation.ask("r")
        assert conversation.ids == (5, 6)

    def test_a_template_that_fails_leaves_the_chat_as_it_was(self, byte_level: Tokenizer) -> None:
        conversation = Conversation(byte_level, load_template(None, byte_level, FAILS_LATER))
        conversation.ask("q")
        conversation.answered([5], "a")
        before = (conversation.ids, conversation.turns)
        with pytest.raises(TextError, match="one question only"):
            conversation.ask("r")
        assert (conversation.ids, conversation.turns) == before

    def test_a_failing_change_of_the_system_text_changes_nothing(
        self, byte_level: Tokenizer
    ) -> None:
        source = "{{ raise_exception('no x') if 'x' in messages[0].content }}{{ messages }}"
        conversation = Conversation(byte_level, load_template(None, byte_level, source), "Sys")
        conversation.ask("q")
        before = conversation.ids
        with pytest.raises(TextError, match="no x"):
            conversation.set_system("x")
        assert (conversation.ids, conversation.system) == (before, "Sys")

    def test_a_system_text_that_looks_like_the_stand_in_is_harmless(
        self, byte_level: Tokenizer
    ) -> None:
        template = style("chatml", byte_level)
        conversation = Conversation(byte_level, template, "gptnodeAnswer7 gptnodeQuestion7")
        conversation.ask("gptnodeQuestion7")
        conversation.answered(byte_level.encode("gptnodeAnswer7<|im_end|>"), "gptnodeAnswer7")
        text = byte_level.decode(conversation.ask("gptnodeAnswer7"), keep_special=True)
        assert text.endswith(
            "assistant\ngptnodeAnswer7<|im_end|>\n<|im_start|>user\ngptnodeAnswer7<|im_end|>\n"
            "<|im_start|>assistant\n"
        )
