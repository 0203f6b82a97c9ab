"""The sampler of one answer: draws its tokens, and keeps what is asked for beside them.

Tokens that were guessed ahead are sampled like all others, before anybody asks for them, and a step
may be repeated. So what is kept stands at its place in the context.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from gptnode.model.logprobs import TokenLogprob, token_logprob
from gptnode.model.sampler import Sampler, Sampling

__all__ = ["AnswerSampler"]


class AnswerSampler(Sampler):
    """A sampler that keeps log probabilities."""

    def __init__(self, sampling: Sampling, *, top_logprobs: int | None = None) -> None:
        """``top_logprobs``: of how many likeliest tokens beside the one that is drawn, if any."""
        super().__init__(sampling)
        self._top_logprobs = top_logprobs
        self.needs_logits = top_logprobs is not None
        self._logprobs: dict[int, TokenLogprob] = {}

    def sample(self, logits: Tensor, recent_ids: Sequence[int] = ()) -> int:
        """See ``Sampler``."""
        token = super().sample(logits, recent_ids)
        if self._top_logprobs is not None:
            self._logprobs[len(recent_ids)] = token_logprob(logits, token, self._top_logprobs)
        return token

    def ahead(self, tokens: int = 0) -> Sampler:
        """See ``Sampler``; it draws as this one and keeps nothing."""
        return Sampler(self.sampling) if self.sampling.greedy else super().ahead(tokens)

    def take_logprob(self, position: int) -> TokenLogprob | None:
        """That of the token at ``position`` of the context, once; None where it isn't kept."""
        return self._logprobs.pop(position, None)
