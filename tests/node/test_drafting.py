"""A draft model changes no token, whatever it says, and follows the ids as all caches do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
import torch
import trio

from gptnode.errors import ModelError
from gptnode.model.native.binding import kernels
from gptnode.model.sampler import Sampler, Sampling
from gptnode.model.shard import Head
from gptnode.node.compute import ComputeLane
from gptnode.node.config import ClientConfig
from gptnode.node.draft_length import DraftLength
from gptnode.node.drafting import Drafter, DraftModel, find_draft, give_draft, load_draft
from gptnode.node.loading import ModelSource, folder_paths, open_device, open_model
from gptnode.node.opened_model import find_model
from gptnode.node.runtime import open_engine
from gptnode.routing.entries import PlacedEnds
from tests.tiny_llama import write_tiny_llama, write_truncated

from .benches import PROMPT, Bench, SwarmOf
from .conftest import VOCAB, MemoryHost

GREEDY = Sampling(temperature=0.0)
SAMPLINGS = [
    GREEDY,
    Sampling(temperature=0.0, repetition_penalty=1.3),
    Sampling(temperature=0.8, seed=3),
    Sampling(temperature=1.0, top_p=1.0, seed=4, repetition_penalty=1.1),
]
KINDS = ["the model", "half of it", "another", "the opposite"]

Give = Callable[[Bench, str], Awaitable[Drafter]]

pytestmark = pytest.mark.skipif(kernels is None, reason="the kernels aren't built here")


class Opposite:
    """A head that thinks the least of what another one thinks the most of."""

    def __init__(self, head: Head) -> None:
        self._head = head

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        return -self._head(hidden)


@pytest.fixture
def source(tiny_model: Path) -> ModelSource:
    """The tiny model in bf16: there, rows of a step are the same alone and together."""
    return open_bf16(tiny_model)


@pytest.fixture
def always_three(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guesses don't depend on how fast this machine is, and nothing is looked up."""
    monkeypatch.setattr(DraftLength, "best", lambda length: 3)
    monkeypatch.setattr(DraftLength, "likely", 3)
    monkeypatch.setattr("gptnode.node.speculation.GRAMS", ())


@pytest.fixture
def load(
    tiny_model: Path, tmp_path: Path, lane: ComputeLane
) -> Callable[[str], Awaitable[DraftModel]]:
    """Loads a draft model of one of the ``KINDS``."""

    async def load_kind(kind: str) -> DraftModel:
        folder = tiny_model
        if kind == "half of it":
            folder = write_truncated(tiny_model, tmp_path / "half", 2)
        if kind == "another":
            folder = write_tiny_llama(tmp_path / "other", VOCAB, n_blocks=1, seed=5)
        draft = await load_draft(open_bf16(folder), lane)
        if kind == "the opposite":
            draft = replace(draft, head=Opposite(draft.head))  # type: ignore[arg-type]
        return draft

    return load_kind


@pytest.fixture
def give(load: Callable[[str], Awaitable[DraftModel]]) -> Give:
    """Lets a draft model guess for a bench."""

    async def give_kind(bench: Bench, kind: str) -> Drafter:
        draft, speculation = await load(kind), bench.generator.speculation
        assert speculation is not None
        give_draft(speculation, draft, draft.config, 1024, bench.reports.append)
        drafts = speculation._drafts
        assert isinstance(drafts, Drafter)
        return drafts

    return give_kind


@pytest.fixture
def guessing(source: ModelSource, lane: ComputeLane, nursery: trio.Nursery) -> Bench:
    return Bench(source, lane, nursery, speculate=True)


def open_bf16(folder: Path) -> ModelSource:
    return open_model("tiny", folder_paths(folder), "bf16", open_device("cpu"))


@pytest.mark.usefixtures("always_three")
@pytest.mark.parametrize("sampling", SAMPLINGS, ids=str)
@pytest.mark.parametrize("kind", KINDS)
async def test_the_tokens_are_those_without_a_draft_model(
    guessing: Bench, whole: Bench, give: Give, kind: str, sampling: Sampling
) -> None:
    await give(guessing, kind)
    assert await guessing.sampled(PROMPT, 40, sampling) == await whole.sampled(PROMPT, 40, sampling)
    speculation = guessing.generator.speculation
    assert speculation is not None
    assert speculation.drafted > 10
    if kind == "the model":  # with the very random numbers, too
        assert speculation.drafted_right == speculation.drafted
    if kind == "the opposite" and sampling is GREEDY:
        assert speculation.drafted_right == 0


@pytest.mark.usefixtures("always_three")
@pytest.mark.parametrize("rings", [False, True])
@pytest.mark.parametrize("kind", KINDS)
async def test_over_peers_the_tokens_are_the_same_too(
    swarm_of: SwarmOf, whole: Bench, give: Give, kind: str, rings: bool
) -> None:
    swarm = swarm_of(("0-1", ("anna",)), ("2-3", ("ben",)), rings=rings, speculate=True)
    await give(swarm, kind)
    for sampling in SAMPLINGS:
        said = await swarm.sampled(PROMPT, 25, sampling)
        assert said == await whole.sampled(PROMPT, 25, sampling)


@pytest.mark.usefixtures("always_three")
@pytest.mark.parametrize("kind", ["the model", "half of it"])
async def test_peers_with_the_head_draw_the_same_tokens_for_a_draft_model(
    swarm_of: SwarmOf, whole: Bench, give: Give, kind: str
) -> None:
    ends = PlacedEnds(embed=True, head=True)
    thin = swarm_of(("0-1", ("anna",)), ("2-3", ("ben",)), ends=ends, rings=True, speculate=True)
    await give(thin, kind)
    for sampling in SAMPLINGS:
        said = await thin.sampled(PROMPT, 25, sampling)
        assert said == await whole.sampled(PROMPT, 25, sampling)
    speculation = thin.generator.speculation
    assert speculation is not None
    assert (speculation.drafted_right == speculation.drafted > 0) is (kind == "the model")


@pytest.mark.parametrize("kind", KINDS)
async def test_guesses_of_any_length_change_no_token(
    guessing: Bench, whole: Bench, give: Give, kind: str
) -> None:
    await give(guessing, kind)
    for sampling in SAMPLINGS:
        said = await guessing.sampled(PROMPT, 60, sampling)
        assert said == await whole.sampled(PROMPT, 60, sampling)


@pytest.mark.usefixtures("always_three")
async def test_other_turns_and_taken_back_ones_are_right_after_drafts(
    guessing: Bench, whole: Bench, give: Give
) -> None:
    await give(guessing, "half of it")
    begun = await guessing.greedy(PROMPT, 6)  # short: chunks of more than 16 rows round by shape
    for ids in ([*begun, 9, 8], begun[:9], begun[:-3], [5, *begun], begun):
        for sampling in SAMPLINGS:
            said = await guessing.sampled(ids, 9, sampling)
            assert said == await whole.sampled(ids, 9, sampling)
    await guessing.generator.forget()
    assert await guessing.greedy(begun, 9) == await whole.greedy(begun, 9)


@pytest.mark.usefixtures("always_three")
@pytest.mark.parametrize("rings", [False, True])
async def test_a_replica_takes_over_between_drafts(
    swarm_of: SwarmOf, whole: Bench, host: MemoryHost, give: Give, rings: bool
) -> None:
    swarm = swarm_of(("0-1", ("anna",)), ("2-3", ("ben", "cleo")), rings=rings, speculate=True)
    await give(swarm, "half of it")
    ids = await swarm.greedy(PROMPT, 20)
    host.kill("ben")
    assert await swarm.greedy(ids, 20) == await whole.greedy(PROMPT, 40)
    assert swarm.swarm.hops()[1].label == "cleo"


@pytest.mark.usefixtures("always_three")
async def test_an_answer_that_is_stopped_anywhere_can_go_on(
    swarm_of: SwarmOf, whole: Bench, give: Give
) -> None:
    swarm = swarm_of(("0-1", ("anna",)), ("2-3", ("ben",)), speculate=True)
    await give(swarm, "half of it")
    ids = await swarm.greedy(PROMPT, 20)
    for number in range(30):
        with trio.move_on_after(0.0002 * number):
            ids = await swarm.greedy(ids, 1)
    assert await swarm.greedy(ids, 10) == await whole.greedy(ids, 10)


async def test_a_drafter_with_a_past_guesses_as_a_new_one(
    load: Callable[[str], Awaitable[DraftModel]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gptnode.node.drafting.READ_TOKENS", 5)
    draft, choose = await load("half of it"), Random(1)
    old = Drafter(draft, 256, VOCAB, pytest.fail)
    ids = list(PROMPT)
    for _ in range(120):
        sampler = Sampler(choose.choice(SAMPLINGS))
        ids = ids[: choose.randint(1, len(ids))] if choose.random() < 0.4 else ids
        ids = [*ids, *choose.choices(range(VOCAB), k=choose.randint(0, 12))]
        most, drawn = choose.randint(1, 5), choose.randint(0, 3)
        if choose.random() < 0.3:
            await old.follow(ids)
        guess = await old.draft(ids, most, sampler, drawn=drawn)
        fresh = Drafter(draft, 256, VOCAB, pytest.fail)
        assert guess == await fresh.draft(ids, most, sampler, drawn=drawn)
        assert len(guess) == most
        ids += guess[: choose.randint(0, most)]


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=str)
async def test_what_was_drafted_ahead_is_there_at_once(
    load: Callable[[str], Awaitable[DraftModel]],
    sampling: Sampling,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    draft = Drafter(await load("half of it"), 256, VOCAB, pytest.fail)
    sampler = Sampler(sampling)
    guess = await draft.draft(PROMPT, 3, sampler)
    ahead = await draft.draft([*PROMPT, *guess], 4, sampler, drawn=3)
    assert guess + ahead == await Drafter(draft._model, 256, VOCAB, pytest.fail).draft(
        PROMPT, 7, sampler
    )
    monkeypatch.setattr(Drafter, "_forward", pytest.fail)
    ids = [*PROMPT, *guess, ahead[0]]
    assert await draft.draft(ids, 3, sampler, drawn=4) == ahead[1:]


async def test_drafts_end_with_the_context_of_the_draft_model(
    load: Callable[[str], Awaitable[DraftModel]],
) -> None:
    draft = Drafter(await load("half of it"), 20, VOCAB, pytest.fail)
    sampler = Sampler(GREEDY)
    ids = list(range(17))
    assert len(await draft.draft(ids, 8, sampler)) == 3
    assert await draft.draft(list(range(20)), 8, sampler) == []
    await draft.follow(list(range(40)))
    assert await draft.draft(list(range(40)), 8, sampler) == []
    assert len(await draft.draft(ids, 8, sampler)) == 3


@pytest.mark.usefixtures("always_three")
async def test_a_draft_model_that_fails_is_named_once_and_the_answer_goes_on(
    guessing: Bench, whole: Bench, give: Give, monkeypatch: pytest.MonkeyPatch
) -> None:
    drafts = await give(guessing, "half of it")
    forward = drafts._forward
    monkeypatch.setattr(drafts, "_forward", lambda *args: forward(*args) * torch.nan)
    assert await guessing.greedy(PROMPT, 20) == await whole.greedy(PROMPT, 20)
    (line,) = guessing.reports
    assert line.startswith("the draft model guesses no more: ")


async def test_forgetting_frees_the_cache_of_the_draft_model(
    guessing: Bench, give: Give, lane: ComputeLane, monkeypatch: pytest.MonkeyPatch
) -> None:
    drafts = await give(guessing, "half of it")
    await drafts.draft(PROMPT, 3, Sampler(GREEDY))
    cache = drafts._cache
    assert cache is not None
    assert cache.bytes_in_use > 0
    await guessing.generator.forget()
    await lane.run(lambda: None)
    assert cache.bytes_in_use == 0


def test_a_draft_model_with_other_tokens_is_refused(
    tiny_model: Path, source: ModelSource, tmp_path: Path
) -> None:
    other = write_truncated(tiny_model, tmp_path / "other", 1)
    tokens = (other / "tokenizer.json").read_text()
    (other / "tokenizer.json").write_text(
        tokens.replace('"w7"', '"!"').replace('"w9"', '"w7"').replace('"!"', '"w9"')
    )
    with pytest.raises(ModelError, match=r"aren't those of the model: 'w7' is 11 there, and 13"):
        find_draft(other, None, source, pytest.fail)
    (other / "tokenizer.json").write_text(tokens.replace('"w7"', '"new"'))
    with pytest.raises(ModelError, match=r"'w7' is 11 there, and no token of the draft"):
        find_draft(other, None, source, pytest.fail)
    (other / "tokenizer.json").write_text(tokens.replace('"w6"', '"w5"'))
    with pytest.raises(ModelError, match=r"it has \d+, the model 64"):
        find_draft(other, None, source, pytest.fail)


def test_the_option_beats_the_map_and_only_what_is_asked_for_has_to_be_there(
    tiny_model: Path, source: ModelSource, tmp_path: Path
) -> None:
    small = write_truncated(tiny_model, tmp_path / "small", 1)
    reports: list[str] = []
    assert find_draft(None, None, source, pytest.fail) is None
    found = find_draft(small, tmp_path / "absent", source, pytest.fail)
    assert found is not None
    assert found.config.n_blocks == 1
    assert find_draft(None, small, source, pytest.fail) is not None
    with pytest.raises(ModelError, match="no such folder with a draft model"):
        find_draft(tmp_path / "absent", small, source, pytest.fail)
    assert find_draft(None, tmp_path / "absent", source, reports.append) is None
    assert "no such folder with a draft model" in reports.pop()
    assert find_draft(tiny_model, None, source, reports.append) is not None
    assert "no smaller than the model" in reports.pop()


@pytest.mark.parametrize("dtype", ["bf16", "f32"])
async def test_a_draft_model_is_used_where_guesses_change_no_token(
    tiny_model: Path, tmp_path: Path, dtype: str
) -> None:
    small = write_truncated(tiny_model, tmp_path / "small", 1)
    reports: list[str] = []
    config = ClientConfig(model_dir=tiny_model, dtype=dtype, threads=1, draft=small)
    async with open_engine(find_model(config), config, report=reports.append) as engine:
        assert (engine.draft is not None) is (dtype == "bf16")
        assert [line[:24] for line in reports] == ["the draft model isn't us"] * (dtype == "f32")
        sampler, ids = Sampler(GREEDY), list(PROMPT)
        for _ in range(8):
            ids.append(await engine.generator.next_token(ids, sampler))
    assert len(ids) == len(PROMPT) + 8
