"""What a sampler may and may not choose."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from gptnode.errors import MismatchError, UsageError
from gptnode.model.sampler import Sampler, Sampling

FREE = {"temperature": 1.0, "top_p": 1.0}
logit_lists = st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=40)


def draws(logits: Tensor, count: int, **options: Any) -> list[int]:
    sampler = Sampler(Sampling(**(FREE | {"seed": 7} | options)))
    return [sampler.sample(logits) for _ in range(count)]


@given(logit_lists)
def test_greedy_is_the_argmax(values: list[float]) -> None:
    logits = torch.tensor(values)
    assert values[Sampler(Sampling(temperature=0)).sample(logits)] == max(values)


@settings(deadline=None)
@given(
    logit_lists,
    st.integers(0, 50),
    st.floats(0.01, 1),
    st.floats(0, 1),
    st.floats(1e-300, 100),
    st.integers(0, 2**63 - 1),
)
def test_only_tokens_that_every_filter_keeps_are_sampled(
    values: list[float], top_k: int, top_p: float, min_p: float, temperature: float, seed: int
) -> None:
    logits = torch.tensor(values)
    sampling = Sampling(temperature, top_k, top_p, min_p, seed=seed)
    sampler = Sampler(sampling)
    chances = ((logits.double() - logits.max()) / temperature).softmax(0)
    ranked = chances.sort(descending=True).values
    cut = ranked[: top_k or None]
    share = cut / cut.sum()
    n_kept = int((share.cumsum(0) - share < top_p + 1e-9).sum())
    lowest = max(float(cut[n_kept - 1]), min_p * float(ranked[0])) * (1 - 1e-6)
    for _ in range(5):
        assert chances[sampler.sample(logits)] >= lowest


@given(logit_lists, st.integers(0, 2**63 - 1))
def test_the_same_seed_draws_the_same_tokens(values: list[float], seed: int) -> None:
    logits = torch.tensor(values)
    assert draws(logits, 20, seed=seed) == draws(logits, 20, seed=seed)


@pytest.mark.parametrize("point", [0.0, 1 - 2**-53])
@pytest.mark.parametrize("values", [[-1000.0, 0.0, -1000.0], [-1000.0, 0.1, 0.2, 0.7, -1000.0]])
def test_a_token_of_no_chance_is_not_hit_at_the_very_edge(
    values: list[float], point: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "rand", lambda *_, **__: torch.tensor(point, dtype=torch.float64))
    (drawn,) = draws(torch.tensor(values), 1)
    assert values[drawn] > -1000


def test_other_seeds_and_no_seed_draw_other_tokens() -> None:
    logits = torch.zeros(1000)
    runs = [draws(logits, 20, seed=seed) for seed in (1, 2, None, None)]
    assert len({tuple(run) for run in runs}) == 4


def test_a_seed_does_not_touch_the_generator_of_the_process() -> None:
    state = torch.get_rng_state()
    draws(torch.zeros(10), 5, seed=3)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("options", [{}, {"top_k": 4}, {"top_p": 0.9999999}, {"min_p": 1e-9}])
def test_tokens_come_as_often_as_they_are_likely(options: dict[str, Any]) -> None:
    chances = torch.tensor([0.5, 0.3, 0.15, 0.05])
    counts = torch.bincount(torch.tensor(draws(chances.log(), 4000, **options)), minlength=4)
    assert ((counts / 4000 - chances).abs() < 0.03).all()


def test_temperature_sharpens_and_flattens() -> None:
    logits = torch.tensor([1.0, 0.0])
    hot, warm, cold = (
        draws(logits, 2000, temperature=temperature).count(0) for temperature in (10.0, 1.0, 0.1)
    )
    assert 950 < hot < 1150
    assert abs(warm / 2000 - 1 / (1 + math.exp(-1))) < 0.03
    assert cold > 1990


def test_top_p_reaches_past_the_first_candidates() -> None:
    """A flat distribution over a large vocabulary needs the whole sort."""
    drawn = draws(torch.zeros(5000), 500, top_p=0.9)
    assert len(set(drawn)) > 300
    steep = torch.arange(5000).float() * -0.0001
    assert max(draws(steep, 500, top_p=0.5)) < 2500


def test_the_repetition_penalty_counts_each_id_of_the_context_once() -> None:
    logits = torch.tensor([2.0, 1.5, -1.0, -1.2])
    greedy = Sampler(Sampling(temperature=0, repetition_penalty=1.5))
    assert greedy.sample(logits, [0, 0, 0]) == 1  # 2 / 1.5 < 1.5
    assert greedy.sample(logits, [0, 1]) == 0  # 2 / 1.5 > 1.5 / 1.5
    assert greedy.sample(logits[2:], [0]) == 1  # -1 * 1.5 < -1.2
    assert torch.equal(logits, torch.tensor([2.0, 1.5, -1.0, -1.2]))


@given(logit_lists, st.lists(st.integers(0, 39), max_size=60), st.floats(0.5, 3))
def test_the_repetition_penalty_is_that_of_transformers(
    values: list[float], ids: list[int], penalty: float
) -> None:
    from transformers import RepetitionPenaltyLogitsProcessor

    assume(ids)
    ids = [i % len(values) for i in ids]
    logits = torch.tensor(values)
    theirs = RepetitionPenaltyLogitsProcessor(penalty)(torch.tensor([ids]), logits[None].clone())[0]
    ours = Sampler(Sampling(temperature=0, repetition_penalty=penalty)).sample(logits, ids)
    assert theirs[ours] == theirs.max()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_logits_that_are_not_finite_are_never_sampled(value: float, temperature: float) -> None:
    with pytest.raises(MismatchError, match="logits are not finite"):
        Sampler(Sampling(temperature)).sample(torch.tensor([0.0, value, 1.0]))


@pytest.mark.parametrize("shape", [(), (0,), (1, 4)])
def test_logits_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="logits of one position"):
        Sampler(Sampling()).sample(torch.zeros(shape))


def test_context_ids_outside_of_the_vocabulary_are_refused() -> None:
    with pytest.raises(ValueError, match="not in the vocabulary of 4"):
        Sampler(Sampling(repetition_penalty=2)).sample(torch.zeros(4), [1, 4, 2])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -0.1}, "temperature must be 0 (greedy) or more, not -0.1"),
        ({"temperature": math.nan}, "temperature must be 0 (greedy) or more, not nan"),
        ({"temperature": math.inf}, "temperature must be 0 (greedy) or more, not inf"),
        ({"top_k": -1}, "top-k must be 0 (off) or more, not -1"),
        ({"top_p": 0.0}, "top-p must be above 0 and at most 1, not 0.0"),
        ({"top_p": 1.1}, "top-p must be above 0 and at most 1, not 1.1"),
        ({"min_p": 1.5}, "min-p must be from 0 to 1, not 1.5"),
        ({"repetition_penalty": 0.0}, "repetition-penalty must be above 0, not 0.0"),
        ({"seed": -1}, "seed must be from 0 to 2^63 - 1, not -1"),
    ],
)
def test_values_out_of_range_name_the_option(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        Sampling(**options)
    assert caught.value.detail == message


@given(logit_lists, st.integers(0, 2**63 - 1), st.integers(0, 5))
def test_a_sampler_ahead_draws_what_the_sampler_will_draw(
    values: list[float], seed: int, tokens: int
) -> None:
    logits = torch.tensor(values)
    sampler = Sampler(Sampling(**(FREE | {"seed": seed})))
    sampler.sample(logits)
    ahead = sampler.ahead(tokens)
    drawn = [ahead.sample(logits) for _ in range(5)]
    assert [sampler.sample(logits) for _ in range(tokens + 5)][tokens:] == drawn
