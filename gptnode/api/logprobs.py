"""Log probabilities of tokens in OpenAI's two forms, in step with the text that is shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gptnode.model.logprobs import TokenLogprob
from gptnode.text.tokenizer import Tokenizer

__all__ = ["ShownTokens", "chat_logprobs", "completion_logprobs"]


class ShownTokens:
    """Tells which tokens belong to the text that was shown so far.

    Text is withheld while it may become a stop sequence, and a stop sequence is never shown: its
    tokens have no place in the answer. A control token has no text either.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Before the first token."""
        self._tokenizer = tokenizer
        self._taken = 0
        self._token_bytes = 0
        self._shown_bytes = 0

    def take(self, text: str, sampled: Sequence[TokenLogprob]) -> tuple[TokenLogprob, ...]:
        """The tokens that ``text``, newly shown, is made of; ``sampled`` are all of the answer."""
        if not sampled:
            return ()
        if self._taken == 0:
            # What a decoder strips at the start of a text was a byte of its first token.
            first = self._tokenizer.piece(sampled[0].id)
            self._shown_bytes = int(first.startswith(b" ") and not text.startswith(" "))
        self._shown_bytes += len(text.encode("utf-8", "replace"))
        taken: list[TokenLogprob] = []
        while self._taken < len(sampled) and self._token_bytes < self._shown_bytes:
            token = sampled[self._taken]
            self._taken += 1
            if token.id in self._tokenizer.special_ids:
                continue
            self._token_bytes += len(self._tokenizer.piece(token.id))
            taken.append(token)
        return tuple(taken)


def chat_logprobs(tokenizer: Tokenizer, tokens: Sequence[TokenLogprob]) -> dict[str, Any]:
    """The field ``logprobs`` of a chat completion's choice."""
    return {
        "content": [
            {
                **_entry(tokenizer, token.id, token.logprob),
                "top_logprobs": [_entry(tokenizer, other, value) for other, value in token.top],
            }
            for token in tokens
        ],
        "refusal": None,
    }


def completion_logprobs(
    tokenizer: Tokenizer, tokens: Sequence[TokenLogprob], offset: int
) -> dict[str, Any]:
    """The field ``logprobs`` of a text completion's choice; ``offset`` is of its text's start."""
    texts = [_text(tokenizer, token.id) for token in tokens]
    offsets: list[int] = []
    for text in texts:
        offsets.append(offset)
        offset += len(text)
    return {
        "tokens": texts,
        "token_logprobs": [token.logprob for token in tokens],
        "top_logprobs": [
            {_text(tokenizer, other): value for other, value in token.top} for token in tokens
        ],
        "text_offset": offsets,
    }


def _entry(tokenizer: Tokenizer, token_id: int, logprob: float) -> dict[str, Any]:
    return {
        "token": _text(tokenizer, token_id),
        "logprob": logprob,
        "bytes": list(tokenizer.piece(token_id)),
    }


def _text(tokenizer: Tokenizer, token_id: int) -> str:
    return tokenizer.piece(token_id).decode("utf-8", "replace")
