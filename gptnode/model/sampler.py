"""From logits to the next token id.

Knows numbers only: which ids end an answer and how it is shown is the business of others.
Everything runs on the CPU in f32 and f64, so that a seed means the same on every machine.
"""

from __future__ import annotations

import hashlib
import math
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor

from gptnode.errors import MismatchError, UsageError

__all__ = ["Sampler", "Sampling", "random_number"]

FIRST_CANDIDATES: Final = 256  # top-p seldom needs more, and sorting a whole vocabulary is slow


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn; the filters are applied in this order, as in transformers.

    ``repetition_penalty`` makes ids that are in the context less likely (above 1; Keskar et al.
    2019, arXiv 1909.05858); ``temperature`` 0 then takes the likeliest; ``top_k`` keeps that
    many (0: all); ``top_p`` the likeliest that make up this much together (1: all; Holtzman et
    al. 2020, arXiv 1904.09751); ``min_p`` those at least this likely beside the likeliest (0:
    all; Nguyen et al. 2024, arXiv 2407.01082). ``seed`` None: another one each time.

    Raises:
        UsageError: a value is out of its range; the error names the option.
    """

    temperature: float = 0.7
    top_k: int = 0
    top_p: float = 0.95
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        """Check the ranges."""
        # A NaN compares false with everything, so each range is asked for positively.
        if not 0 <= self.temperature < math.inf:
            raise _out_of_range("temperature", "0 (greedy) or more", self.temperature)
        if not self.top_k >= 0:
            raise _out_of_range("top-k", "0 (off) or more", self.top_k)
        if not 0 < self.top_p <= 1:
            raise _out_of_range("top-p", "above 0 and at most 1", self.top_p)
        if not 0 <= self.min_p <= 1:
            raise _out_of_range("min-p", "from 0 to 1", self.min_p)
        if not 0 < self.repetition_penalty < math.inf:
            raise _out_of_range("repetition-penalty", "above 0", self.repetition_penalty)
        if self.seed is not None and not 0 <= self.seed < 2**63:
            raise _out_of_range("seed", "from 0 to 2^63 - 1", self.seed)

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is always taken."""
        return self.temperature == 0


class Sampler:
    """Draws the tokens of one answer: one random number a token, those of its seed in order.

    ``seed`` and ``drawn`` are all of its state: another one that has the same draws the same.
    ``needs_logits``: whether it does more than that with the logits it is given.
    """

    needs_logits = False

    def __init__(self, sampling: Sampling, *, drawn: int = 0) -> None:
        """``drawn``: how many numbers of its seed were drawn before."""
        self.sampling = sampling
        self.seed = sampling.seed if sampling.seed is not None else secrets.randbits(63)
        self.drawn = drawn

    def sample(self, logits: Tensor, recent_ids: Sequence[int] = ()) -> int:
        """The id of the next token.

        Args:
            logits: (V,), of any float dtype on any device.
            recent_ids: The ids of the whole context, for the repetition penalty.

        Raises:
            MismatchError: the logits hold NaN or Inf.
            ValueError: the logits have another shape, or an id is not in the vocabulary.
        """
        if logits.dim() != 1 or logits.numel() == 0:
            raise ValueError(f"logits of one position are (V,), not {tuple(logits.shape)}")
        with torch.inference_mode():
            scores = logits.to(device="cpu", dtype=torch.float32)
            # Both are NaN if any score is; an eighth of what asking each of them takes.
            if not all(math.isfinite(extreme) for extreme in torch.aminmax(scores)):
                raise MismatchError("the logits are not finite: NaN or Inf came out of the model")
            scores = _penalised(scores, recent_ids, self.sampling.repetition_penalty)
            if self.sampling.greedy:
                return int(scores.max(0).indices)
            return self._draw(scores)

    def ahead(self, tokens: int = 0) -> Sampler:
        """One that draws what this one will draw once it has drawn ``tokens`` more.

        This one stays as it is.
        """
        return Sampler(replace(self.sampling, seed=self.seed), drawn=self.drawn + tokens)

    def _draw(self, scores: Tensor) -> int:
        sampling = self.sampling
        # From the largest down and in f64, no temperature can overflow.
        scores = (scores.to(torch.float64) - scores.max()) / sampling.temperature
        ids, chances = _candidates(scores, sampling.top_k, sampling.top_p)
        if sampling.min_p > 0:
            kept = chances >= sampling.min_p * chances.max()
            ids, chances = ids[kept], chances[kept]
        sums = chances.cumsum(0)
        point = random_number(self.seed, self.drawn) * sums[-1]
        self.drawn += 1
        # To the right of the point: a token of no chance spans nothing and is never hit.
        index = int(torch.searchsorted(sums, point, right=True))
        if index == len(ids):
            index = int(chances.argmax())  # the product was rounded up to the whole sum
        return int(ids[index])


def random_number(seed: int, number: int) -> float:
    """The random number ``number``, from 0, of ``seed``: evenly from 0 to below 1, 53 bits of it.

    A hash of both, so that whoever goes on with an answer needs no generator's state.
    """
    name = seed.to_bytes(8, "little") + number.to_bytes(8, "little")
    digest = hashlib.blake2b(name, digest_size=8).digest()
    return (int.from_bytes(digest, "little") >> 11) * 2.0**-53


def _penalised(scores: Tensor, recent_ids: Sequence[int], penalty: float) -> Tensor:
    """Each id of the context once: positive scores are divided, negative ones multiplied."""
    if penalty == 1 or not recent_ids:
        return scores
    ids = torch.tensor(sorted(set(recent_ids)))
    if int(ids[0]) < 0 or int(ids[-1]) >= len(scores):
        raise ValueError(f"an id of the context is not in the vocabulary of {len(scores)} tokens")
    scores = scores.clone()
    chosen = scores[ids]
    scores[ids] = torch.where(chosen > 0, chosen / penalty, chosen * penalty)
    return scores


def _candidates(scores: Tensor, top_k: int, top_p: float) -> tuple[Tensor, Tensor]:
    """Ids that top-k and top-p leave, and their chances, which sum to at most 1."""
    size = len(scores)
    if 0 < top_k < size:
        best, ids = scores.topk(top_k)
        return _nucleus(ids, best.softmax(0), top_p)
    chances = scores.softmax(0)
    if top_p == 1:
        return torch.arange(size), chances
    best, ids = chances.topk(min(FIRST_CANDIDATES, size))
    if float(best.sum()) < top_p:
        best, ids = chances.sort(descending=True)
    return _nucleus(ids, best, top_p)


def _nucleus(ids: Tensor, chances: Tensor, top_p: float) -> tuple[Tensor, Tensor]:
    """The likeliest, given in falling order, until ``top_p`` is reached; never none."""
    before = chances.cumsum(0) - chances
    kept = before < top_p
    return ids[kept], chances[kept]


def _out_of_range(option: str, wanted: str, value: float) -> UsageError:
    return UsageError(f"{option} must be {wanted}, not {value}")
