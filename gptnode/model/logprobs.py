"""How likely the model itself found a token: natural logarithms of the softmax of its logits.

Before temperature, penalties, filters and grammars: what the model says, not how it is sampled.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["TokenLogprob", "token_logprob"]


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token's log probability, and those of the likeliest tokens in its place, falling."""

    id: int
    logprob: float
    top: tuple[tuple[int, float], ...]


def token_logprob(logits: Tensor, token: int, top: int) -> TokenLogprob:
    """Of ``token`` and the ``top`` likeliest after ``logits`` (V), in f64 on the CPU."""
    with torch.inference_mode():
        logprobs = logits.to(device="cpu", dtype=torch.float64).log_softmax(0)
        best = logprobs.topk(min(top, len(logprobs)))
        likeliest = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return TokenLogprob(token, float(logprobs[token]), tuple(likeliest))
