"""Answers that were given lately, as text and as ids: a conversation that goes on keeps its ids.

A client sends the whole conversation back as text. Encoded again, an answer may become other ids
than those that were sampled, and every cache from there on would be useless. So what follows a
prompt that is known is looked up: as long as the new text says, token by token, what was sampled,
the sampled ids stand; only the rest is encoded.

What is remembered are bounded numbers of prompts and characters. Nothing here knows roles.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from gptnode.text.tokenizer import Tokenizer
from gptnode.text.turn_join import encode_prompt

__all__ = ["Transcripts"]

MAX_TRANSCRIPTS = 128
MAX_CHARS = 16 << 20


@dataclass(frozen=True, slots=True)
class _Transcript:
    """A prompt with its ids, and what was sampled after it."""

    prompt: str
    prompt_ids: tuple[int, ...]
    answer_ids: tuple[int, ...]
    answer: str


class Transcripts:
    """Remembers answers, the latest ones; `encode` uses them."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """None yet."""
        self._tokenizer = tokenizer
        self._known: OrderedDict[str, _Transcript] = OrderedDict()
        self._chars = 0

    def remember(
        self, prompt: str, prompt_ids: Sequence[int], answer_ids: Sequence[int], answer: str
    ) -> None:
        """``answer_ids`` were sampled after ``prompt_ids``, and ``answer`` is what was visible."""
        if not self._tokenizer.streams_bytes or not answer.strip():
            return
        # Two answers to one prompt are both worth keeping, the same answer only once.
        key = prompt + answer
        self._forget(key)
        self._known[key] = _Transcript(prompt, tuple(prompt_ids), tuple(answer_ids), answer)
        self._chars += len(prompt)
        while len(self._known) > MAX_TRANSCRIPTS or self._chars > MAX_CHARS:
            self._forget(next(iter(self._known)))

    def encode(self, text: str) -> list[int]:
        """The ids of a rendered conversation, with sampled ids for the answers that are known."""
        best: list[int] = []
        best_rest = text
        for known in tuple(self._known.values()):  # others may remember while this thread looks
            if len(known.prompt) > len(text) - len(best_rest) and text.startswith(known.prompt):
                found = self._follow(known, text)
                if found is not None:
                    best, best_rest = found
        if not best:
            return encode_prompt(self._tokenizer, text)
        last = self._tokenizer.piece(best[-1]).decode("utf-8", "replace")
        last_token = last if best[-1] in self._tokenizer.special_ids else ""
        return [*best, *self._tokenizer.encode_continuation(best_rest, last_token)]

    def _follow(self, known: _Transcript, text: str) -> tuple[list[int], str] | None:
        """The ids of ``known`` as far as ``text`` says the same, and what of it is left.

        None unless that reaches to the end of the answer: inside of it, where somebody edited it,
        a border between tokens could be one that the tokenizer would never make.
        """
        left = text[len(known.prompt) :].encode("utf-8", "replace")
        wanted = known.answer.rstrip().encode("utf-8", "replace")
        ids = list(known.prompt_ids)
        done = 0
        for token_id in known.answer_ids:
            piece = self._tokenizer.piece(token_id)
            if not left.startswith(piece, done):
                break
            ids.append(token_id)
            done += len(piece)
        if done < len(wanted) or wanted.strip() not in left[:done]:
            return None
        try:
            return ids, left[done:].decode()
        except UnicodeDecodeError:  # it ends inside a character
            return None

    def _forget(self, key: str) -> None:
        known = self._known.pop(key, None)
        if known is not None:
            self._chars -= len(known.prompt)
