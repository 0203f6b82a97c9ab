"""Guessing tokens ahead changes none of them, and saves steps where text repeats itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from gptnode.model.native.binding import kernels
from gptnode.model.sampler import Sampler, Sampling
from gptnode.node.block_server import BlockServer
from gptnode.node.compute import ComputeLane
from gptnode.node.draft_length import LENGTHS, DraftLength
from gptnode.node.loading import ModelSource, folder_paths, open_device, open_model
from gptnode.node.remote_stage import RemoteStage
from gptnode.node.served_context import ServedContext
from gptnode.node.speculation import PromptLookup, Ready, Speculation
from gptnode.node.stages import LocalStage
from gptnode.wire.messages import Stepped, WireTensor

from .benches import PROMPT, Bench, SwarmOf
from .conftest import MemoryHost

REPEATS = [*([5, 6, 7, 8, 9, 10, 11, 12] * 4), 5, 6, 7]
SAMPLINGS = [
    Sampling(temperature=0.0),
    Sampling(temperature=0.0, repetition_penalty=1.3),
    *(Sampling(temperature=0.3, seed=seed) for seed in range(3)),
    Sampling(temperature=1.0, top_p=0.9, min_p=0.01, seed=7),
]

needs_kernels = pytest.mark.skipif(kernels is None, reason="the kernels aren't built here")


@pytest.fixture
def source(tiny_model: Path) -> ModelSource:
    """The tiny model in bf16: there, rows of a step are the same alone and together."""
    return open_model("tiny", folder_paths(tiny_model), "bf16", open_device("cpu"))


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tokens each step had."""
    seen: list[int] = []
    for kind in (LocalStage, RemoteStage):
        forward = kind.forward

        async def counted(
            stage: Any, hidden: torch.Tensor, position: int, forward: Callable[..., Any] = forward
        ) -> torch.Tensor:
            seen.append(hidden.shape[1])
            result: torch.Tensor = await forward(stage, hidden, position)
            return result

        monkeypatch.setattr(kind, "forward", counted)
    return seen


@pytest.fixture
def always_three(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guesses don't depend on how fast this machine is."""
    monkeypatch.setattr(DraftLength, "best", lambda length: 3)


@pytest.fixture
def guessing(source: ModelSource, lane: ComputeLane, nursery: trio.Nursery) -> Bench:
    return Bench(source, lane, nursery, speculate=True)


@needs_kernels
@pytest.mark.parametrize("sampling", SAMPLINGS, ids=str)
@pytest.mark.parametrize("prompt", [PROMPT, REPEATS], ids=["plain", "repeats"])
async def test_the_tokens_are_those_without_guesses(
    guessing: Bench, whole: Bench, sampling: Sampling, prompt: list[int]
) -> None:
    assert await guessing.sampled(prompt, 60, sampling) == await whole.sampled(prompt, 60, sampling)
    speculation = guessing.generator.speculation
    assert speculation is not None
    assert speculation.right <= speculation.guessed


@needs_kernels
@pytest.mark.usefixtures("always_three")
async def test_text_that_repeats_itself_takes_fewer_steps(
    guessing: Bench, rows: list[int], whole: Bench
) -> None:
    said = await whole.greedy(PROMPT, 80)  # a small model ends in a circle
    plain = len(rows)
    rows.clear()
    assert await guessing.greedy(PROMPT, 80) == said
    assert len(rows) < plain
    assert max(rows[1:]) > 1
    assert guessing.generator.speculation is not None
    assert guessing.generator.speculation.right > 0


@needs_kernels
@pytest.mark.usefixtures("always_three")
async def test_other_turns_and_taken_back_ones_are_right_after_guesses(
    guessing: Bench, whole: Bench
) -> None:
    begun = await guessing.greedy(PROMPT, 50)
    for ids in ([*begun, 9, 8, 7], begun[:20], begun[:-3], [5, *begun], begun):
        assert await guessing.greedy(ids, 9) == await whole.greedy(ids, 9)


@needs_kernels
@pytest.mark.usefixtures("always_three")
@pytest.mark.parametrize("rings", [False, True])
async def test_a_replica_takes_over_between_guesses(
    swarm_of: SwarmOf, whole: Bench, host: MemoryHost, rings: bool
) -> None:
    swarm = swarm_of(("0-1", ("anna",)), ("2-3", ("ben", "cleo")), rings=rings, speculate=True)
    ids = await swarm.greedy(PROMPT, 40)
    host.kill("ben")
    assert await swarm.greedy(ids, 20) == await whole.greedy(PROMPT, 60)
    assert swarm.swarm.hops()[1].label == "cleo"


@needs_kernels
@pytest.mark.usefixtures("always_three")
@pytest.mark.parametrize("rings", [False, True])
async def test_a_peer_that_gets_slow_is_replaced_among_guesses(
    swarm_of: SwarmOf,
    whole: Bench,
    host: MemoryHost,
    monkeypatch: pytest.MonkeyPatch,
    rings: bool,
) -> None:
    monkeypatch.setattr("gptnode.node.pace.SLOW_AT_LEAST_S", 0.1)
    compute, slow = ServedContext.step, list[BlockServer]()

    async def stalls(
        context: ServedContext, position: int, sent: WireTensor, *draw: Any
    ) -> Stepped:
        if any(context._batcher is server._batcher for server in slow) and sent.shape[1] > 1:
            await trio.sleep(3.0)
        return await compute(context, position, sent, *draw)

    monkeypatch.setattr(ServedContext, "step", stalls)
    swarm = swarm_of(("0-1", ("anna",)), ("2-3", ("ben", "cleo")), rings=rings, speculate=True)
    ids = await swarm.greedy(PROMPT, 60)
    slow.append(host.servers["ben"])
    assert await swarm.greedy(ids, 30) == await whole.greedy(PROMPT, 90)
    assert swarm.swarm.hops()[1].label == "cleo"


@needs_kernels
async def test_guesses_end_at_the_end_of_the_context(guessing: Bench, whole: Bench) -> None:
    room = guessing.generator.max_tokens
    ids = [REPEATS[i % 8] for i in range(room - 10)]
    assert await guessing.greedy(ids, 10) == await whole.greedy(ids, 10)


async def test_there_are_no_guesses_where_rows_differ_by_their_company(
    tiny_model: Path, lane: ComputeLane, nursery: trio.Nursery
) -> None:
    source = open_model("tiny", folder_paths(tiny_model), "f32", open_device("cpu"))
    assert Bench(source, lane, nursery, speculate=True).generator.speculation is None


async def test_a_cancelled_guess_leaves_everything_in_order(
    guessing: Bench, whole: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = await guessing.greedy(PROMPT, 30)
    for _ in range(20):
        with trio.move_on_after(0.0005):
            ids = await guessing.greedy(ids, 1)
    assert await guessing.greedy(ids, 10) == await whole.greedy(ids, 10)


@given(st.lists(st.integers(0, 3), max_size=60), st.integers(1, 8))
def test_a_guess_is_what_followed_the_same_tokens_before(ids: list[int], most: int) -> None:
    guess = PromptLookup().draft(ids, most)
    assert len(guess) <= most
    if guess:
        ends = [
            at
            for n in (2, 3, 4)
            for at in range(n, len(ids))
            if ids[at - n : at] == ids[-n:] and ids[at : at + most] == guess
        ]
        assert ends


@given(st.lists(st.lists(st.integers(0, 3), max_size=20), max_size=6))
def test_a_lookup_that_follows_a_context_guesses_as_a_new_one(parts: list[list[int]]) -> None:
    lookup, ids = PromptLookup(), list[int]()
    for part in parts:
        ids = [*ids[: len(ids) - len(part) // 2], *part]
        assert lookup.draft(ids, 5) == PromptLookup().draft(ids, 5)


def test_right_guesses_over_a_slow_link_get_long_and_wrong_ones_end() -> None:
    length = DraftLength()
    assert length.best() == 0  # first a step without
    length.note(0, 0, 0.2)
    for _ in range(20):
        guessed = length.best()
        length.note(guessed, guessed, 0.2 + 0.002 * guessed)
    assert length.best() == max(LENGTHS)
    for _ in range(40):
        guessed = length.best()
        length.note(guessed, 0, 0.2 + 0.05 * guessed if guessed else 0.2)
    tries = []
    for _ in range(64):
        tries.append(length.best())
        length.note(tries[-1], 0, 0.2 + 0.05 * tries[-1])
    assert 2 <= sum(guessed > 0 for guessed in tries) <= 6  # now and then, as text may change


def test_the_time_that_drafting_takes_makes_guesses_shorter_and_ends_them() -> None:
    def settled(drafting_s: float) -> int:
        length = DraftLength()
        length.note(0, 0, 0.05)
        for _ in range(40):
            guessed = length.best()
            length.note(guessed, round(0.7 * guessed), 0.05 + 0.001 * guessed, drafting_s * guessed)
        return length.likely

    fast, slow, too_slow = settled(0.0), settled(0.012), settled(0.05)
    assert fast > slow > too_slow == 0


class Clock:
    """A time that passes when somebody says so."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def perf_counter(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The one by which drafting is timed."""
    clock = Clock()
    monkeypatch.setattr("gptnode.node.speculation.time", clock)
    return clock


class ScriptedDrafts:
    """Guesses what comes next in a text that it knows, and takes its time for it."""

    def __init__(
        self, text: list[int], clock: Clock, *, token_s: float = 0.0, unread: int = 0
    ) -> None:
        self.drafted = 0
        self.followed = 0
        self.unread = unread
        self._text = text
        self._clock = clock
        self._token_s = token_s

    def behind(self, ids: Sequence[int]) -> int:
        return self.unread

    async def follow(self, ids: Sequence[int]) -> None:
        await trio.lowlevel.checkpoint()
        self.followed += 1
        self.unread = 0

    async def draft(
        self, ids: Sequence[int], most: int, sampler: Sampler, *, drawn: int = 0
    ) -> list[int]:
        await trio.lowlevel.checkpoint()
        guess = self._text[len(ids) : len(ids) + most]
        self._clock.now_s += self._token_s * len(guess)
        self.drafted += 1
        return guess

    def forget(self) -> None:
        pass


async def told(
    speculation: Speculation, text: list[int], *, waits: bool = False, step_s: float = 0.01
) -> list[int]:
    """How long each guess was, in steps that take ``step_s`` and say ``text``."""
    sampler, lengths, at = Sampler(Sampling(temperature=0.0)), list[int](), 8
    while at < len(text) - 1:
        room = len(text) - 1 - at
        guess = await speculation.draft(text[:at], room, sampler, waits=waits)
        right = 0
        while right < len(guess) and guess[right] == text[at + right]:
            right += 1
        took_s = step_s + 0.0001 * len(guess) + speculation.drafting_s
        speculation.note(guess, text[at : at + right + 1], took_s)
        lengths.append(len(guess))
        at += right + 1
    return lengths


async def test_a_draft_model_guesses_where_nothing_repeats_itself(clock: Clock) -> None:
    text = list(range(300))
    speculation, drafts = Speculation(), ScriptedDrafts(text, clock)
    speculation.draft_with(drafts)
    lengths = await told(speculation, text)
    assert lengths[0] == 0  # first a step without
    assert max(lengths) == max(LENGTHS)
    assert speculation.drafted == speculation.guessed == speculation.drafted_right


async def test_a_draft_model_rests_while_lookup_does_as_well(clock: Clock) -> None:
    text = [5, 6, 7, 8, 9, 10, 11, 12] * 40
    speculation, drafts = Speculation(), ScriptedDrafts(text, clock, token_s=0.001)
    speculation.draft_with(drafts)
    await told(speculation, text)
    assert speculation.right > 200
    assert speculation.drafted < speculation.guessed / 4


async def test_lookup_that_misleads_is_left_for_a_draft_model_and_taken_up_again(
    clock: Clock,
) -> None:
    misleads = [token for n in range(60) for token in (1, 2, 100 + n, 3, 4)]
    repeats = [5, 6, 7, 8, 9, 10, 11, 12] * 30
    text = [*misleads, *repeats]
    speculation, drafts = Speculation(), ScriptedDrafts(text, clock, token_s=0.0005)
    speculation.draft_with(drafts)
    await told(speculation, text[: len(misleads)])
    assert speculation.drafted_right > 150
    before = drafts.drafted
    await told(speculation, text)
    drafted_again = drafts.drafted - before
    assert drafted_again < len(text) / 8


async def test_a_draft_model_that_does_not_pay_is_only_tried_now_and_then(clock: Clock) -> None:
    text = list(range(400))
    speculation, drafts = Speculation(), ScriptedDrafts(text, clock, token_s=0.02)
    speculation.draft_with(drafts)
    lengths = await told(speculation, text, step_s=0.001)
    assert sum(length > 0 for length in lengths) < len(lengths) / 8
    async with speculation.meanwhile(text[:9], Sampler(Sampling()), waits=True):
        drafted = drafts.drafted
        await trio.testing.wait_all_tasks_blocked()
    assert drafts.drafted == drafted  # nor ahead


async def test_a_long_prompt_is_read_while_the_peers_compute_and_not_while_they_wait(
    clock: Clock,
) -> None:
    text = list(range(60))
    speculation, drafts = Speculation(), ScriptedDrafts(text, clock, unread=1000)
    speculation.draft_with(drafts)
    assert not any(await told(speculation, text[:20], waits=True))
    assert drafts.followed == 0
    async with speculation.meanwhile(text[:20], Sampler(Sampling()), waits=True):
        await trio.testing.wait_all_tasks_blocked()
    assert drafts.followed == 1
    assert any(await told(speculation, text, waits=True))


async def test_alone_a_long_prompt_is_read_before_the_first_guess(clock: Clock) -> None:
    text = list(range(60))
    speculation, drafts = Speculation(), ScriptedDrafts(text, clock, unread=1000)
    speculation.draft_with(drafts)
    assert any(await told(speculation, text))
    assert drafts.followed == 1
    async with speculation.meanwhile(text[:20], Sampler(Sampling()), waits=False):
        drafted = drafts.drafted
        await trio.testing.wait_all_tasks_blocked()
    assert drafts.drafted == drafted


def test_tokens_that_are_ready_are_for_the_same_context_and_sampler_alone() -> None:
    one, other = object(), object()
    ready = Ready([1, 2, 3], [4, 5], one)
    assert ready.take([1, 2, 3], one) == 4
    assert ready.take([1, 2, 3, 4], one) == 5
    assert ready.take([1, 2, 3, 4, 5], one) is None
    assert Ready([1, 2], [3], one).take([1, 2], other) is None
    changed = Ready([1, 2], [3], one)
    assert changed.take([1, 9], one) is None
    assert changed.take([1, 2], one) is None
