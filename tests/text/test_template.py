from __future__ import annotations

import json
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import transformers
from hypothesis import given
from hypothesis import strategies as st

from gptnode.errors import TextError
from gptnode.text.builtin_templates import BUILTIN_TEMPLATES, builtin_template, detect_template
from gptnode.text.template import ChatTemplate, ToolCall, Turn, load_template
from gptnode.text.tokenizer import Tokenizer
from tests.text import templates
from tests.text.conftest import NAMES, Maker
from tests.text.makers import MARKS, UNHURRIED, byte_level_json

USER, ANSWER, AGAIN = Turn("user", " Hi é\n"), Turn("assistant", "Hello. "), Turn("user", "And?")
SYSTEM = Turn("system", "Be <brief> & kind.")
CONVERSATIONS = {
    "question": [USER],
    "answered": [USER, ANSWER],
    "second question": [USER, ANSWER, AGAIN],
    "system": [SYSTEM, USER, ANSWER, AGAIN],
    "out of turn": [USER, AGAIN],
}


@cache
def their_tokenizer() -> Any:
    data = byte_level_json(["<s>", "</s>"])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer.from_str(json.dumps(data)), **NAMES
    )


def hugging_face(source: str, turns: list[Turn], *, add_generation_prompt: bool) -> str:
    """What transformers makes of it."""
    text = their_tokenizer().apply_chat_template(
        [{"role": turn.role, "content": turn.text} for turn in turns],
        chat_template=source,
        tokenize=False,
        add_generation_prompt=add_generation_prompt,
    )
    assert isinstance(text, str)
    return text


def ours(source: str) -> ChatTemplate:
    return ChatTemplate("test", source, bos_token="<s>", eos_token="</s>")


class TestParityWithTransformers:
    @pytest.mark.parametrize("name", templates.ALL)
    @pytest.mark.parametrize("turns", CONVERSATIONS.values(), ids=CONVERSATIONS)
    @pytest.mark.parametrize("generation", [True, False])
    def test_the_text_is_the_same(self, name: str, turns: list[Turn], generation: bool) -> None:
        source = templates.ALL[name]
        try:
            expected = hugging_face(source, turns, add_generation_prompt=generation)
        except Exception as error:
            with pytest.raises(TextError) as caught:
                ours(source).render(turns, add_generation_prompt=generation)
            assert str(error) in caught.value.detail
        else:
            assert ours(source).render(turns, add_generation_prompt=generation) == expected

    @pytest.mark.parametrize("template", BUILTIN_TEMPLATES, ids=lambda t: t.name)
    def test_built_in_templates_render_there_too(self, template: object) -> None:
        source = getattr(template, "source", "")
        for turns in CONVERSATIONS.values():
            expected = hugging_face(source, turns, add_generation_prompt=True)
            assert ours(source).render(turns, add_generation_prompt=True) == expected

    @UNHURRIED
    @given(texts=st.lists(st.text(), min_size=1, max_size=4))
    def test_any_text_passes_alike(self, texts: list[str]) -> None:
        turns = [Turn("user" if i % 2 == 0 else "assistant", t) for i, t in enumerate(texts)]
        for name in ("chatml", "llama3", "json"):
            source = templates.ALL[name]
            expected = hugging_face(source, turns, add_generation_prompt=True)
            assert ours(source).render(turns, add_generation_prompt=True) == expected


BUILT_IN = {
    "chatml": (
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nQ<|im_end|>\n"
        "<|im_start|>assistant\nA<|im_end|>\n<|im_start|>user\nR<|im_end|>\n"
        "<|im_start|>assistant\n"
    ),
    "chatml-sep": (
        "<|im_start|>system<|im_sep|>S<|im_end|><|im_start|>user<|im_sep|>Q<|im_end|>"
        "<|im_start|>assistant<|im_sep|>A<|im_end|><|im_start|>user<|im_sep|>R<|im_end|>"
        "<|im_start|>assistant<|im_sep|>"
    ),
    "llama2": (
        "<s>[INST] <<SYS>>\nS\n<</SYS>>\n\nQ [/INST] A </s><s>[INST] R [/INST]"
    ),
    "llama3": (
        "<s><|start_header_id|>system<|end_header_id|>\n\nS<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nQ<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nA<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nR<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    ),
    "mistral": "<s>[INST] S\n\nQ[/INST] A</s>[INST] R[/INST]",
    "gemma": (
        "<s><start_of_turn>user\nS\n\nQ<end_of_turn>\n<start_of_turn>model\nA<end_of_turn>\n"
        "<start_of_turn>user\nR<end_of_turn>\n<start_of_turn>model\n"
    ),
    "alpaca": (
        "S\n\n### Instruction:\nQ\n\n### Response:\nA</s>\n\n"
        "### Instruction:\nR\n\n### Response:\n"
    ),
    "tags": (
        "<|system|>\nS</s>\n<|user|>\nQ</s>\n<|assistant|>\nA</s>\n<|user|>\nR</s>\n<|assistant|>\n"
    ),
    "tags-end": (
        "<|system|>\nS<|end|>\n<|user|>\nQ<|end|>\n<|assistant|>\nA<|end|>\n"
        "<|user|>\nR<|end|>\n<|assistant|>\n"
    ),
    "plain": "S\n\nUser: Q\nAssistant: A\nUser: R\nAssistant:",
}  # fmt: skip
BUILT_IN["chatml-system"] = BUILT_IN["chatml"]


class TestBuiltIn:
    @pytest.mark.parametrize("template", BUILTIN_TEMPLATES, ids=lambda t: t.name)
    def test_the_text_is_that_of_the_makers(self, template: object) -> None:
        turns = [Turn("system", "S"), Turn("user", "Q"), Turn("assistant", "A"), Turn("user", "R")]
        text = ours(getattr(template, "source", "")).render(turns, add_generation_prompt=True)
        assert text == BUILT_IN[getattr(template, "name", "")]

    def test_defaults_stand_in_for_a_missing_system_text(self) -> None:
        chatml, alpaca = builtin_template("chatml-system"), builtin_template("alpaca")
        assert chatml is not None and alpaca is not None
        turns = [Turn("user", "Q")]
        assert (
            ours(chatml.source)
            .render(turns, add_generation_prompt=True)
            .startswith(
                "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nQ"
            )
        )
        assert (
            ours(alpaca.source)
            .render(turns, add_generation_prompt=True)
            .startswith("Below is an instruction that describes a task.")
        )

    @pytest.mark.parametrize(
        ("tokens", "name"),
        [
            ("<|start_header_id|> <|end_header_id|> <|eot_id|>", "llama3"),
            ("<|im_start|> <|im_end|>", "chatml"),
            ("<|im_start|> <|im_sep|> <|im_end|>", "chatml-sep"),
            ("<start_of_turn> <end_of_turn> <s>", "gemma"),
            ("[INST] [/INST] <unk> <s> </s> <0x0A>", "mistral"),
            ("<unk> <s> </s> <0x0A>", "llama2"),
            ("<|user|> <|assistant|> <unk> <s> </s> <0x0A>", "tags"),
            ("<|user|> <|assistant|> <|end|>", "tags-end"),
            ("### Instruction: ### Response:", "plain"),
            ("<|endoftext|>", "plain"),
            ("", "plain"),
        ],
    )
    def test_the_vocabulary_tells_the_template(self, tokens: str, name: str) -> None:
        assert detect_template(tokens.split()).name == name

    def test_alpaca_is_told_by_its_headings(self) -> None:
        assert detect_template(["### Instruction:", "### Response:"]).name == "alpaca"

    @pytest.mark.parametrize(
        ("written", "name"),
        [
            ("ChatML", "chatml"),
            ("LLAMA-2", "llama2"),
            ("llama_3", "llama3"),
            ("Llama-3.1", "llama3"),
            ("Mistral-Instruct", "mistral"),
            ("gemma", "gemma"),
            ("ALPACA", "alpaca"),
            ("zephyr", "tags"),
            ("Plain", "plain"),
            ("CHATML_SEP", "chatml-sep"),
        ],
    )
    def test_names_are_forgiving(self, written: str, name: str) -> None:
        template = builtin_template(written)
        assert template is not None
        assert template.name == name

    def test_names_are_unique(self) -> None:
        names = [n for t in BUILTIN_TEMPLATES for n in (t.name.replace("-", ""), *t.aliases)]
        assert len(names) == len(set(names))


OWN = "OWN {{ messages[0].content }}"


class TestChoice:
    def test_a_named_template_wins(self, make_folder: Maker, byte_level: Tokenizer) -> None:
        folder = make_folder({}, tokenizer_config={"chat_template": OWN})
        assert load_template(folder, byte_level, "Llama-2").name == "llama2"

    @pytest.mark.parametrize("name", [None, "", "auto", " Auto "])
    def test_the_models_own_comes_before_detection(
        self, name: str | None, make_folder: Maker, byte_level: Tokenizer
    ) -> None:
        folder = make_folder({}, tokenizer_config={"chat_template": OWN})
        template = load_template(folder, byte_level, name)
        assert template.name == "model"
        assert template.render([Turn("user", "Q")], add_generation_prompt=True) == "OWN Q"

    def test_a_file_of_its_own_comes_before_the_configuration(
        self, make_folder: Maker, byte_level: Tokenizer
    ) -> None:
        folder = make_folder({}, "FILE", tokenizer_config={"chat_template": OWN})
        template = load_template(folder, byte_level, None)
        assert template.render([], add_generation_prompt=True) == "FILE"

    def test_of_a_list_the_default_is_taken(
        self, make_folder: Maker, byte_level: Tokenizer
    ) -> None:
        entries = [{"name": "rag", "template": "RAG"}, {"name": "default", "template": OWN}]
        folder = make_folder({}, tokenizer_config={"chat_template": entries})
        template = load_template(folder, byte_level, None)
        assert template.render([Turn("user", "Q")], add_generation_prompt=True) == "OWN Q"

    def test_without_one_the_vocabulary_decides(
        self, make_folder: Maker, byte_level: Tokenizer, llama_2: Tokenizer
    ) -> None:
        assert load_template(make_folder({}), byte_level, None).name == "llama3"
        assert load_template(make_folder({}), llama_2, None).name == "llama2"
        assert load_template(None, llama_2, "auto").name == "llama2"

    @pytest.mark.parametrize("source", ["{{ messages[0].content }}!", "{% if true %}Q!{% endif %}"])
    def test_text_with_jinja_marks_is_a_template(self, source: str, byte_level: Tokenizer) -> None:
        template = load_template(None, byte_level, source)
        assert template.name == "custom"
        assert template.render([Turn("user", "Q")], add_generation_prompt=True) == "Q!"

    def test_an_unknown_name_lists_the_known(self, byte_level: Tokenizer) -> None:
        with pytest.raises(TextError, match=r"'vicuna': choose auto, llama3, .*plain"):
            load_template(None, byte_level, "vicuna")

    @pytest.mark.parametrize("value", [7, {}, [], [{"name": "rag", "template": "x"}]])
    def test_a_strange_entry_is_an_error_that_names_the_file(
        self, value: object, make_folder: Maker, byte_level: Tokenizer
    ) -> None:
        folder = make_folder({}, tokenizer_config={"chat_template": value})
        with pytest.raises(TextError, match=r"tokenizer_config\.json: chat_template"):
            load_template(folder, byte_level, None)


class TestStops:
    @pytest.mark.parametrize(
        ("name", "token"),
        [
            ("chatml", "<|im_end|>"),
            ("llama3", "<|eot_id|>"),
            ("gemma", "<end_of_turn>"),
            ("mistral", "[INST]"),
            ("mistral", "</s>"),
            ("tags-end", "<|end|>"),
        ],
    )
    def test_marks_that_are_tokens_stop_as_ids(
        self, name: str, token: str, byte_level: Tokenizer
    ) -> None:
        assert (byte_level.id_of(token),) in load_template(None, byte_level, name).stops

    def test_marks_that_are_not_tokens_stop_as_text(self, llama_2: Tokenizer) -> None:
        assert "<|im_end|>" in load_template(None, llama_2, "chatml").stops
        assert "### Instruction:" in load_template(None, llama_2, "alpaca").stops
        assert "\nUser:" in load_template(None, llama_2, "plain").stops

    def test_every_built_in_template_has_stops(self, llama_2: Tokenizer) -> None:
        for template in BUILTIN_TEMPLATES:
            assert load_template(None, llama_2, template.name).stops

    @pytest.mark.parametrize(
        ("name", "token"),
        [("chatml", "<|im_end|>"), ("llama3", "<|eot_id|>"), ("gemma", "<end_of_turn>")],
    )
    def test_the_end_of_a_turn_is_found_in_the_models_own_template(
        self, name: str, token: str, make_folder: Maker, byte_level: Tokenizer
    ) -> None:
        folder = make_folder({}, templates.ALL[name])
        assert load_template(folder, byte_level, None).stops == ((byte_level.id_of(token),),)


class TestErrors:
    @pytest.mark.parametrize("source", ["{% if %}", "{{ x", "{% endfor %}", "{{ 'a' | nofilter }}"])
    def test_what_is_no_template_is_refused(self, source: str) -> None:
        with pytest.raises(TextError, match="'test' is not valid: line 1"):
            ours(source)

    @pytest.mark.parametrize(
        ("source", "reason"),
        [
            ("{{ raise_exception('only\nthree roles') }}", "only three roles"),
            ("{{ messages[7].content.x.y }}", "no element 7"),
            ("{{ 1 / 0 }}", "division by zero"),
            ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "recursion|steps"),
            ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
             "more than 200,000 steps"),
            ("{% for a in range(99999) %}" + "x" * 200 + "{% endfor %}", "8,388,608 characters"),
            ("{{ 'x' * 10**9 }}", "characters"),
        ],
    )  # fmt: skip
    def test_a_template_that_fails_says_why_on_one_line(self, source: str, reason: str) -> None:
        with pytest.raises(TextError, match=reason) as caught:
            ours(source).render([USER], add_generation_prompt=True)
        assert "\n" not in caught.value.detail

    @UNHURRIED
    @given(source=st.text(alphabet="{}%'ax| \n+*.()[]_#-", max_size=40))
    def test_garbage_is_never_another_error(self, source: str) -> None:
        try:
            ours(source).render([USER], add_generation_prompt=True)
        except TextError as error:
            assert "\n" not in error.detail

    def test_a_template_goes_on_after_a_failure(self) -> None:
        template = ours("{{ raise_exception('no') if messages | length > 1 else 1 }}ok")
        with pytest.raises(TextError):
            template.render([USER, ANSWER], add_generation_prompt=True)
        assert template.render([USER], add_generation_prompt=True) == "1ok"


def test_the_date_is_that_of_today() -> None:
    text = ours(templates.LLAMA_3).render([USER], add_generation_prompt=False)
    assert datetime.now().strftime("%d %b %Y") in text


def test_all_marks_are_tokens_of_the_test_vocabulary(byte_level: Tokenizer) -> None:
    assert all(byte_level.special_id(mark) is not None for mark in MARKS)


def test_a_folder_without_any_file_is_no_error(tmp_path: Path, byte_level: Tokenizer) -> None:
    assert load_template(tmp_path, byte_level, None).name == "llama3"


TOOL = {
    "type": "function",
    "function": {"name": "weather", "description": "of a place", "parameters": {"type": "object"}},
}
CALLING = """\
{%- for tool in tools or [] %}{{ tool | tojson }}{% endfor %}
{%- for message in messages %}
    {{- '<' + message.role + '>' + message.content }}
    {%- for call in message.tool_calls or [] %}
        {{- call.id + ':' + call.function.name + call.function.arguments | tojson }}
    {%- endfor %}
    {{- (message.name or '') + (message.tool_call_id or '') }}
{%- endfor %}"""


class TestTools:
    TURNS = (
        Turn("user", "Rain?"),
        Turn("assistant", "", calls=(ToolCall("weather", {"place": "Köln"}, "c1"),)),
        Turn("tool", "Sun.", call_id="c1", name="weather"),
    )

    def test_tools_calls_and_results_are_rendered_as_by_transformers(self) -> None:
        theirs = their_tokenizer().apply_chat_template(
            [turn.message() for turn in self.TURNS],
            chat_template=CALLING,
            tools=[TOOL],
            tokenize=False,
        )
        text = ours(CALLING).render(self.TURNS, add_generation_prompt=False, tools=[TOOL])
        assert text == theirs
        assert 'c1:weather{"place": "Köln"}<tool>Sun.weatherc1' in text

    def test_a_template_shows_whether_it_takes_tools(self) -> None:
        assert ours(CALLING).takes_tools()
        assert not ours(templates.CHATML).takes_tools()
        assert not ours(templates.LLAMA_3).takes_tools()  # it refuses them

    def test_a_list_of_templates_may_have_one_for_tools(self, make_folder: Maker) -> None:
        entries = [
            {"name": "default", "template": "{{ messages[0].content }}"},
            {"name": "tool_use", "template": CALLING},
        ]
        config = {"chat_template": entries, **NAMES}
        folder = make_folder(byte_level_json(["<s>", "</s>"]), tokenizer_config=config)
        template = load_template(folder, Tokenizer.from_folder(folder), None)
        assert template.takes_tools()
        assert template.tool_source == CALLING
        plain = template.render([Turn("user", "Hi")], add_generation_prompt=False)
        assert plain == "Hi"

    def test_without_tools_nothing_changes(self) -> None:
        turns = [USER, ANSWER, AGAIN]
        template = ours(templates.CHATML)
        plain = template.render(turns, add_generation_prompt=True)
        assert template.render(turns, add_generation_prompt=True, tools=[]) == plain
