"""What goes in and what comes out: settings, messages, replies. Knows no threads and no tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, TypedDict

if TYPE_CHECKING:
    from gptnode.model.logprobs import TokenLogprob
    from gptnode.text.grammar import Grammar

__all__ = ["FinishReason", "Messages", "Reply", "Settings", "Usage"]

FinishReason = Literal["stop", "length"]
Messages: TypeAlias = str | Sequence[Mapping[str, str]]
"""A question, or messages with ``role`` (system, user, assistant) and ``content``."""


class Settings(TypedDict, total=False):
    """How to answer. What isn't given is as the model's generation_config.json has it, or else

    ``temperature`` 0.7 (0 is greedy), ``top_p`` 0.95, and ``top_k``, ``min_p`` and
    ``repetition_penalty`` do nothing. ``max_tokens``: the most of an answer, as many as the context
    has room for by default. ``seed``: the same one gives the same answer. ``stop``: texts that end
    it. ``top_logprobs``: tell how likely the model found each token, and so many others.
    ``grammar``: the form that it has to have.
    """

    max_tokens: int | None
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repetition_penalty: float
    seed: int | None
    stop: str | Sequence[str]
    top_logprobs: int | None
    grammar: Grammar | None


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one answer; ``reused_tokens`` of the prompt were in caches already."""

    prompt_tokens: int
    completion_tokens: int
    reused_tokens: int

    @property
    def total_tokens(self) -> int:
        """Prompt and answer."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer that is complete.

    ``finish_reason``: ``stop`` where the model or a stop text ended it, ``length`` where
    ``max_tokens`` or the context did. ``logprobs``: of all tokens, where they were asked for.
    """

    text: str
    finish_reason: FinishReason
    usage: Usage
    prefill_s: float
    tokens_per_s: float
    logprobs: tuple[TokenLogprob, ...] = ()

    def __str__(self) -> str:
        """The text."""
        return self.text
