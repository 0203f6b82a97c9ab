"""Which tokens may come next, so that an answer has the form that it is asked for.

JSON objects, JSON that fits a schema, or a regular expression, matched token by token by the
llguidance library: a mask of the vocabulary for each token. Knows ids and no logits.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

from llguidance import LLMatcher, LLTokenizer

from gptnode.errors import UsageError
from gptnode.text.tokenizer import Tokenizer

__all__ = ["Grammar", "GrammarMatcher"]

MAX_SOURCE_CHARS = 256 * 1024

WHITE_SPACE = r" |\n {0,16}"
"""Between the parts of JSON: a blank, or a new line with its indent. Without a bound, a model that
is led where it wouldn't go by itself may write white space for ever."""


@dataclass(frozen=True, slots=True)
class Grammar:
    """The form of an answer; ``source`` is a JSON schema or a regular expression.

    Raises:
        UsageError: it is too long.
    """

    kind: Literal["json", "regex"]
    source: str

    def __post_init__(self) -> None:
        """Check the length."""
        if len(self.source) > MAX_SOURCE_CHARS:
            raise UsageError(f"a grammar has at most {MAX_SOURCE_CHARS:,} characters")

    @classmethod
    def json_object(cls) -> Self:
        """Any JSON object."""
        return cls("json", '{"type": "object"}')

    @classmethod
    def json_schema(cls, schema: Mapping[str, Any]) -> Self:
        """JSON that fits ``schema``."""
        return cls("json", json.dumps(schema))

    @classmethod
    def regex(cls, pattern: str) -> Self:
        """Text that ``pattern`` matches as a whole."""
        return cls("regex", pattern)


class GrammarMatcher:
    """Follows one answer; its state follows the ids that it is asked about."""

    def __init__(self, grammar: Grammar, tokenizer: Tokenizer, end_ids: frozenset[int]) -> None:
        """At the beginning of an answer. ``end_ids`` end it, where the grammar allows an end.

        This may take a second, where the grammar is complex.

        Raises:
            UsageError: the grammar is none, or uses what can't be matched.
        """
        if not end_ids:
            raise UsageError("a grammar needs a model that has a token to end answers with")
        try:
            source = (
                LLMatcher.grammar_from_regex(grammar.source)
                if grammar.kind == "regex"
                else LLMatcher.grammar_from_json_schema(
                    grammar.source, overrides={"whitespace_pattern": WHITE_SPACE}
                )
            )
        except ValueError as error:
            raise _wrong(str(error)) from error
        self._matcher = LLMatcher(_library_tokenizer(tokenizer, end_ids), source, log_level=0)
        self._ids: list[int] = []
        self._check()

    def allowed(self, ids: Sequence[int]) -> bytes:
        """A bit for each token of the vocabulary, the lowest first: may it follow ``ids``?

        Args:
            ids: The answer so far; any beginning of what it was, or what follows.

        Raises:
            UsageError: ``ids`` don't fit the grammar, or it is too complex for this answer.
        """
        known = self._ids
        same = min(len(known), len(ids))
        while known[:same] != list(ids[:same]):
            same -= 1
        if same < len(known):
            self._matcher.rollback(len(known) - same)
            del known[same:]
        for token in ids[same:]:
            self._matcher.consume_token(token)
            known.append(token)
        mask = self._matcher.compute_bitmask()
        self._check()
        return bytes(mask)

    def _check(self) -> None:
        if self._matcher.is_error():
            raise _wrong(self._matcher.get_error())


def _library_tokenizer(tokenizer: Tokenizer, end_ids: frozenset[int]) -> LLTokenizer:
    """The library's own view of ``tokenizer``, made once."""
    made = tokenizer.for_grammars
    if made is None or made[0] != end_ids:
        try:
            made = (end_ids, LLTokenizer(tokenizer.as_json(), eos_token=sorted(end_ids)))
        except (ValueError, RuntimeError) as error:
            raise UsageError(f"grammars don't work with this tokenizer: {error}") from error
        tokenizer.for_grammars = made
    library: LLTokenizer = made[1]
    return library


def _wrong(reason: str) -> UsageError:
    return UsageError(f"the grammar can't be used: {' '.join(reason.split())[:300]}")
