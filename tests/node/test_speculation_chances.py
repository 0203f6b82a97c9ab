"""Sampled tokens have the model's own chances, whatever was guessed: chi-square over many seeds.

That tokens are the same with guesses and without is tested elsewhere, seed by seed. Here they are
measured against the chances themselves, and the measure against an acceptance that is wrong.
"""

from __future__ import annotations

import math
from collections import Counter
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
import trio

from gptnode.model.native.binding import kernels
from gptnode.model.sampler import Sampling
from gptnode.node.compute import ComputeLane
from gptnode.node.draft_length import DraftLength
from gptnode.node.drafting import give_draft, load_draft
from gptnode.node.ends import Ends, Sampled
from gptnode.node.loading import ModelSource, folder_paths, open_device, open_model
from gptnode.span import Span
from tests.tiny_llama import write_tiny_llama

from .benches import Bench

VOCAB = 4
TOKENS = 3
SEEDS = 1500
PROMPT = [1, 3, 2, 0, 1]
LEAST_EXPECTED = 5.0
ONE_IN_TEN_THOUSAND = 3.72  # standard deviations
SAMPLINGS = [
    Sampling(temperature=0.8, top_p=1.0),
    Sampling(temperature=1.2, top_k=3, top_p=1.0),
]

pytestmark = pytest.mark.skipif(kernels is None, reason="the kernels aren't built here")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model with so few tokens that each answer can be counted."""
    return write_tiny_llama(tmp_path / "few", VOCAB)


@pytest.fixture
def bench(
    folder: Path, lane: ComputeLane, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> Bench:
    """It guesses two tokens, always, and looks nothing up."""
    monkeypatch.setattr(DraftLength, "best", lambda length: 2)
    monkeypatch.setattr("gptnode.node.speculation.GRAMS", ())
    return Bench(open_bf16(folder), lane, nursery, speculate=True)


def open_bf16(folder: Path) -> ModelSource:
    return open_model("few", folder_paths(folder), "bf16", open_device("cpu"))


async def draft_with(bench: Bench, folder: Path, lane: ComputeLane) -> None:
    """Have the model in ``folder`` guess."""
    speculation = bench.generator.speculation
    assert speculation is not None
    draft = await load_draft(open_bf16(folder), lane)
    give_draft(speculation, draft, draft.config, 1024, pytest.fail)


def chances(folder: Path, sampling: Sampling) -> dict[tuple[int, ...], float]:
    """How likely each answer of ``TOKENS`` tokens is, by the definition of the sampling."""
    source = open_bf16(folder)
    embedding, stack = source.load_embedding(), source.load_blocks(Span(0, 4))
    head = source.load_head(embedding)

    def after(ids: tuple[int, ...]) -> list[float]:
        hidden = stack(embedding(torch.tensor([ids])), stack.new_cache(64))
        logits = head(hidden)[0].double() / sampling.temperature
        if sampling.top_k:
            logits[logits < logits.topk(sampling.top_k).values[-1]] = -math.inf
        found: list[float] = logits.softmax(0).tolist()
        return found

    return {
        answer: math.prod(after((*PROMPT, *answer[:at]))[token] for at, token in enumerate(answer))
        for answer in product(range(VOCAB), repeat=TOKENS)
    }


async def counted(bench: Bench, sampling: Sampling, first_seed: int) -> Counter[tuple[int, ...]]:
    """The answers under ``SEEDS`` seeds."""
    found: Counter[tuple[int, ...]] = Counter()
    for seed in range(first_seed, first_seed + SEEDS):
        chosen = Sampling(
            sampling.temperature, sampling.top_k, sampling.top_p, sampling.min_p, seed=seed
        )
        found[tuple((await bench.sampled(PROMPT, TOKENS, chosen))[len(PROMPT) :])] += 1
    return found


def excess(found: Counter[tuple[int, ...]], wanted: dict[tuple[int, ...], float]) -> float:
    """How far chi-square is above what chance gives once in ten thousand times; negative: below."""
    total = found.total()
    often = {answer: total * p for answer, p in wanted.items() if total * p >= LEAST_EXPECTED}
    cells = [(found[answer], expected) for answer, expected in often.items()]
    rest = total - sum(often.values())
    if rest >= LEAST_EXPECTED:
        cells.append((total - sum(found[answer] for answer in often), rest))
    square = sum((seen - expected) ** 2 / expected for seen, expected in cells)
    free = len(cells) - 1
    spread = 2 / (9 * free)  # Wilson and Hilferty 1931
    return square - free * (1 - spread + ONE_IN_TEN_THOUSAND * math.sqrt(spread)) ** 3


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=str)
async def test_without_guesses_tokens_have_their_chances(
    folder: Path, lane: ComputeLane, nursery: trio.Nursery, sampling: Sampling
) -> None:
    plain = Bench(open_bf16(folder), lane, nursery)
    assert excess(await counted(plain, sampling, 0), chances(folder, sampling)) < 0


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=str)
@pytest.mark.parametrize("seed", [0, 5], ids=["the model drafts", "another drafts"])
async def test_with_guesses_tokens_have_their_chances(
    bench: Bench, folder: Path, tmp_path: Path, lane: ComputeLane, sampling: Sampling, seed: int
) -> None:
    await draft_with(bench, write_tiny_llama(tmp_path / "draft", VOCAB, seed=seed), lane)
    assert excess(await counted(bench, sampling, 100_000), chances(folder, sampling)) < 0
    speculation = bench.generator.speculation
    assert speculation is not None
    assert 0 < speculation.drafted_right <= speculation.drafted
    assert (speculation.drafted_right == speculation.drafted) is (seed == 0)


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=str)
async def test_a_second_chance_for_guesses_would_be_seen(
    bench: Bench,
    folder: Path,
    tmp_path: Path,
    lane: ComputeLane,
    sampling: Sampling,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    right = Ends.sample

    async def wrong(self: Ends, *args: Any, **options: Any) -> Sampled:
        sampled = await right(self, *args, **options)
        guess = args[2]
        if guess and sampled.tokens[0] != guess[0]:
            again = await right(self, *args, **options)
            if again.tokens[0] == guess[0]:
                return again
        return sampled

    monkeypatch.setattr(Ends, "sample", wrong)
    await draft_with(bench, write_tiny_llama(tmp_path / "draft", VOCAB, seed=5), lane)
    assert excess(await counted(bench, sampling, 100_000), chances(folder, sampling)) > 0
