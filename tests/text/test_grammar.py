"""Which tokens may follow, so that an answer keeps its form."""

from __future__ import annotations

import json
import random

import pytest

from gptnode.demo.bundled import bundled_model_folder
from gptnode.errors import UsageError
from gptnode.text.grammar import Grammar, GrammarMatcher
from gptnode.text.tokenizer import Tokenizer

SCHEMA = {
    "type": "object",
    "properties": {
        "colour": {"enum": ["red", "blue"]},
        "count": {"type": "integer", "minimum": 1, "maximum": 20},
    },
    "required": ["colour", "count"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_folder(bundled_model_folder())


def allowed(matcher: GrammarMatcher, ids: list[int]) -> list[int]:
    mask = matcher.allowed(ids)
    return [bit for bit in range(8 * len(mask)) if mask[bit // 8] >> bit % 8 & 1]


def walk(matcher: GrammarMatcher, tokenizer: Tokenizer, seed: int) -> str:
    """Any answer at all that is allowed."""
    choose, ids = random.Random(seed), list[int]()
    while True:
        choices = allowed(matcher, ids)
        if set(choices) & tokenizer.eos_ids:
            return tokenizer.decode(ids)
        ids.append(choose.choice(choices))
        assert len(ids) < 2000


@pytest.mark.parametrize("seed", range(8))
def test_whatever_is_allowed_fits_the_schema(tokenizer: Tokenizer, seed: int) -> None:
    matcher = GrammarMatcher(Grammar.json_schema(SCHEMA), tokenizer, tokenizer.eos_ids)
    found = json.loads(walk(matcher, tokenizer, seed))
    assert found["colour"] in ("red", "blue")
    assert 1 <= found["count"] <= 20
    assert len(found) == 2


def test_a_regular_expression_matches_as_a_whole(tokenizer: Tokenizer) -> None:
    matcher = GrammarMatcher(Grammar.regex("[0-9]{3}-[a-c]"), tokenizer, tokenizer.eos_ids)
    text = walk(matcher, tokenizer, 1)
    assert len(text) == 5
    assert text[:3].isdigit()
    assert text[4] in "abc"


def test_an_object_is_an_object(tokenizer: Tokenizer) -> None:
    matcher = GrammarMatcher(Grammar.json_object(), tokenizer, tokenizer.eos_ids)
    first = {tokenizer.decode([token]).lstrip()[:1] for token in allowed(matcher, [])}
    assert first <= {"{", ""}


def test_a_step_that_is_repeated_or_guessed_otherwise_is_asked_about_again(
    tokenizer: Tokenizer,
) -> None:
    matcher = GrammarMatcher(Grammar.regex("(cat|dog|cow)s?"), tokenizer, tokenizer.eos_ids)
    beginning = allowed(matcher, [])
    cat, dog = tokenizer.encode("cat"), tokenizer.encode("dog")
    after_cat = allowed(matcher, cat)
    assert allowed(matcher, dog) == after_cat
    assert allowed(matcher, cat[:1]) != []
    assert allowed(matcher, []) == beginning
    assert allowed(matcher, cat) == after_cat


@pytest.mark.parametrize(
    "grammar",
    [Grammar.json_schema({"type": "banana"}), Grammar.regex("[0-9"), Grammar("json", "{")],
)
def test_what_is_no_grammar_is_said(tokenizer: Tokenizer, grammar: Grammar) -> None:
    with pytest.raises(UsageError, match="can't be used"):
        GrammarMatcher(grammar, tokenizer, tokenizer.eos_ids)


def test_an_answer_that_left_the_grammar_is_an_error(tokenizer: Tokenizer) -> None:
    matcher = GrammarMatcher(Grammar.regex("[0-9]+"), tokenizer, tokenizer.eos_ids)
    with pytest.raises(UsageError):
        matcher.allowed(tokenizer.encode("cat"))


def test_a_grammar_without_end_is_refused() -> None:
    with pytest.raises(UsageError, match="at most"):
        Grammar.regex("a" * 300_000)
