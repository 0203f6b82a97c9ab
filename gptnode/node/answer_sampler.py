"""The sampler of one answer: draws its tokens, and keeps what is asked for beside them.

Tokens that were guessed ahead are sampled like all others, before anybody asks for them, and a step
may be repeated. So what is kept stands at its place in the context.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from gptnode.model.logprobs import TokenLogprob, token_logprob
from gptnode.model.sampler import Sampler, Sampling
from gptnode.text.grammar import GrammarMatcher

__all__ = ["AnswerSampler"]

LEAST = torch.finfo(torch.float32).min
"""What a token has that isn't allowed: a finite score, of no chance."""


class AnswerSampler(Sampler):
    """A sampler that keeps log probabilities, and keeps to a grammar."""

    def __init__(
        self,
        sampling: Sampling,
        *,
        top_logprobs: int | None = None,
        prompt_tokens: int = 0,
        grammar: Callable[[], GrammarMatcher] | None = None,
    ) -> None:
        """Nothing is drawn yet.

        Args:
            sampling: How tokens are drawn.
            top_logprobs: Of how many likeliest tokens beside the one that is drawn, if any.
            prompt_tokens: Where the answer begins in the context.
            grammar: Makes what the answer keeps to. Called where tokens are drawn, with the first.
        """
        super().__init__(sampling)
        self._top_logprobs = top_logprobs
        self._prompt_tokens = prompt_tokens
        self._make_grammar = grammar
        self._grammar: GrammarMatcher | None = None
        self.needs_logits = top_logprobs is not None or grammar is not None
        self._logprobs: dict[int, TokenLogprob] = {}

    def sample(self, logits: Tensor, recent_ids: Sequence[int] = ()) -> int:
        """See ``Sampler``; of the tokens that the grammar allows.

        Raises:
            UsageError: the grammar is none, or too complex.
        """
        token = super().sample(self._masked(logits, recent_ids), recent_ids)
        if self._top_logprobs is not None:
            self._logprobs[len(recent_ids)] = token_logprob(logits, token, self._top_logprobs)
        return token

    def ahead(self, tokens: int = 0) -> Sampler:
        """See ``Sampler``; it draws as this one, keeps nothing, and to nothing."""
        return Sampler(self.sampling) if self.sampling.greedy else super().ahead(tokens)

    def take_logprob(self, position: int) -> TokenLogprob | None:
        """That of the token at ``position`` of the context, once; None where it isn't kept."""
        return self._logprobs.pop(position, None)

    def _masked(self, logits: Tensor, ids: Sequence[int]) -> Tensor:
        if self._make_grammar is None:
            return logits
        if self._grammar is None:
            self._grammar = self._make_grammar()
        mask = bytearray(self._grammar.allowed(ids[self._prompt_tokens :]))
        octets = torch.frombuffer(mask, dtype=torch.uint8)
        allowed = (octets.unsqueeze(1) >> torch.arange(8)).bitwise_and(1).flatten().bool()
        known = min(len(allowed), len(logits))  # a head may have more rows than there are tokens
        scores = logits.to(device="cpu", dtype=torch.float32, copy=True)
        scores[known:] = LEAST
        scores[:known].masked_fill_(~allowed[:known], LEAST)
        return scores
