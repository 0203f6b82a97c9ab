"""What is put behind an answer to ask the next question, as text and as ids.

The ids of an answer are never encoded again: what a model sampled is what its cache holds. So a
question that follows is rendered behind a stand-in for the history, and the part after the
stand-in's answer is joined to the real ids, minus what they already end with. Knows no turns but
the stand-in's, and no state.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gptnode.text.template import ANSWER, QUESTION, ChatTemplate, Turn
from gptnode.text.tokenizer import Tokenizer

__all__ = ["encode_prompt", "join_ids", "next_turn_text"]

# Longer than any end of a turn; the joint is looked for in so much of the context and no more.
TAIL_TOKENS = 64
MAX_HEAD_CHARS = 512


def encode_prompt(tokenizer: Tokenizer, text: str) -> list[int]:
    """The ids of a rendered conversation, with exactly one BOS in front if the model wants one.

    Most templates write BOS themselves; a tokenizer that adds it too would make it two.
    """
    if tokenizer.bos_id is None or tokenizer.bos_token is None:
        return tokenizer.encode(text)
    if tokenizer.wants_bos and not text.startswith(tokenizer.bos_token):
        return [tokenizer.bos_id, *tokenizer.encode(text)]
    return tokenizer.encode(text)


def next_turn_text(
    template: ChatTemplate, system: Sequence[Turn], question: str
) -> tuple[str, str] | None:
    """What follows an answer: the marks before the question, and all from there to the next answer.

    The second text begins with the first. None if the template hides where its answers end.

    Raises:
        TextError: the template fails.
    """
    history = [*system, Turn("user", "x"), Turn("assistant", ANSWER)]
    texts: list[str] = []
    for text in (QUESTION, question):
        rendered = template.render([*history, Turn("user", text)], add_generation_prompt=True)
        _, found, rest = rendered.partition(ANSWER)
        if not found:
            return None
        texts.append(rest)
    marks, found, _ = texts[0].partition(QUESTION)
    if not found or ANSWER in texts[0]:
        return None
    return (marks if texts[1].startswith(marks) else ""), texts[1]


def join_ids(
    tokenizer: Tokenizer,
    stops: Sequence[str | tuple[int, ...]],
    ids: Sequence[int],
    marks: str,
    text: str,
) -> list[int]:
    """``ids`` and behind them ``text``, without what of its ``marks`` the ids already end with.

    An answer that ended by itself brings its end-of-turn token along, one that was cut doesn't.
    """
    tail = tokenizer.decode(ids[-TAIL_TOKENS:], keep_special=True)
    stop_strings = [stop for stop in stops if isinstance(stop, str)]
    done = _chars_done(tail, marks[:MAX_HEAD_CHARS], tokenizer.added_texts, stop_strings)
    last_token = max(filter(tail.endswith, tokenizer.added_texts), key=len, default="")
    return [*ids, *tokenizer.encode_continuation(text[done:], last_token)]


def _chars_done(tail: str, marks: str, tokens: Sequence[str], stops: Sequence[str]) -> int:
    """How many characters of ``marks`` the context already has at its end.

    The end of ``tail`` counts as a piece of ``marks`` if the piece is a beginning of it, or holds a
    whole token or stop string: a line feed that happens to end an answer is no end of turn. A
    piece never ends inside a token, whose text would then be spelt out.
    """
    token_places = list(_places(marks, tokens))
    places = sorted({*token_places, *_places(marks, stops)})
    starts = sorted({0, *(edge for place in places for edge in place)})
    for end in range(len(marks), 0, -1):
        if any(first < end < last for first, last in token_places):
            continue
        for start in starts:
            if start < end and tail.endswith(marks[start:end]):
                whole = any(start <= first and last <= end for first, last in places)
                if start == 0 or whole:
                    return end
    return 0


def _places(text: str, words: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Where each of ``words`` stands in ``text``, as half-open ranges."""
    for word in words:
        start = text.find(word) if word else -1
        while start >= 0:
            yield start, start + len(word)
            start = text.find(word, start + 1)
