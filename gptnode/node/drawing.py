"""Tokens drawn by whoever has the head: what is asked for, how it is done, what may come back.

The asking side has ids and a sampler, the other one rows of hidden states. What is drawn is the
same on either: all that it depends on is in the `Draw`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gptnode.errors import MismatchError
from gptnode.model.sampler import Sampler, Sampling
from gptnode.node.head_batching import HeadBatcher
from gptnode.node.tensors import ids_from_wire, ids_to_wire
from gptnode.wire.messages import Draw, WireTensor

__all__ = ["NONE_DRAWN", "check_drawn", "draw_tokens", "draw_with", "ids_tensor", "sample_rows"]

NONE_DRAWN = -1
"""The answer for a step that wants no token."""


def ids_tensor(ids: Sequence[int]) -> Tensor:
    """Ids as they go through a pipeline: (1, T), int32, on the CPU."""
    return torch.tensor([ids], dtype=torch.int32)


def draw_with(sampler: Sampler, ids: Sequence[int], guess: Sequence[int]) -> Draw:
    """What to ask for, to have drawn what ``sampler`` would draw after ``ids`` and ``guess``."""
    sampling = sampler.sampling
    seen = sorted(set(ids)) if sampling.repetition_penalty != 1 else []
    return Draw(
        float(sampling.temperature),
        sampling.top_k,
        float(sampling.top_p),
        float(sampling.min_p),
        float(sampling.repetition_penalty),
        sampler.seed,
        sampler.drawn,
        tuple(guess),
        ids_to_wire(seen, (len(seen),)) if seen else None,
    )


async def draw_tokens(
    heads: HeadBatcher, hidden: Tensor, draw: Draw, vocab_size: int
) -> tuple[tuple[int, ...], float]:
    """The tokens that ``draw`` asks for, and the seconds in the lane.

    Args:
        heads: The model's head.
        hidden: What the last block gave for a step, (1, T, D).
        draw: What is asked for.
        vocab_size: Of the model.

    Raises:
        MismatchError: the step is shorter than the guess that it should have, ids are outside of
            the vocabulary, or the logits hold NaN or Inf.
    """
    if len(draw.guess) >= hidden.shape[1]:
        raise MismatchError(f"a guess of {len(draw.guess)} tokens in a step of {hidden.shape[1]}")
    seen = ids_from_wire(draw.seen, vocab_size, "the client") if draw.seen is not None else []
    sampling = Sampling(
        draw.temperature,
        draw.top_k,
        draw.top_p,
        draw.min_p,
        draw.repetition_penalty,
        draw.seed,
    )
    sampler = Sampler(sampling, drawn=draw.drawn)
    rows = hidden[0, -len(draw.guess) - 1 :].unsqueeze(1)
    return await heads.run(rows, lambda logits: sample_rows(logits, seen, draw.guess, sampler))


def sample_rows(
    logits: Tensor, ids: Sequence[int], guess: Sequence[int], sampler: Sampler
) -> tuple[int, ...]:
    """In the lane: the token after ``ids``, and after each of ``guess`` that was sampled.

    Args:
        logits: (1 + len(guess), V).
        ids: The context; or those that are in it, in any order.
        guess: What may follow it.
        sampler: Draws them.
    """
    tokens: list[int] = []
    for row in logits:
        tokens.append(sampler.sample(row, [*ids, *tokens]))
        if len(tokens) > len(guess) or tokens[-1] != guess[len(tokens) - 1]:
            break
    return tuple(tokens)


def check_drawn(answer: WireTensor, draw: Draw | None, vocab_size: int, who: str) -> Tensor:
    """The tokens that came back for ``draw``, as ``ids_tensor`` makes it; one -1 for None.

    Raises:
        MismatchError: they aren't what was asked for.
    """
    if draw is None:
        return ids_tensor([NONE_DRAWN])
    tokens = ids_from_wire(answer, vocab_size, who)
    right = len(tokens) - 1
    if answer.shape != (1, len(tokens)) or tuple(tokens[:right]) != draw.guess[:right]:
        raise MismatchError(f"{who} drew {len(tokens)} tokens for another guess than was sent")
    return ids_tensor(tokens)
