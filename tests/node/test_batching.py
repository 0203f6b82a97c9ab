"""Whose steps run next in a lane, and together with whose."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import trio
import trio.testing
from torch import Tensor

from gptnode.errors import ContextError, MismatchError
from gptnode.model.kv_cache import KVCache
from gptnode.model.native import binding
from gptnode.model.shard import BlockStack
from gptnode.node.batch_times import BatchTimes
from gptnode.node.batching import Batcher
from gptnode.node.compute import ComputeLane
from gptnode.node.loading import folder_paths, open_model
from gptnode.node.step_work import LongStep, StepWork
from gptnode.span import Span
from tests.tiny_llama import D_MODEL

ALL = Span(0, 4)
CPU = torch.device("cpu")
joins = pytest.mark.skipif(not binding.available, reason="only the kernels join rows")


@pytest.fixture
def load(tiny_model: Path) -> Callable[..., BlockStack]:
    def load(dtype: str = "bf16", span: Span = ALL) -> BlockStack:
        return open_model("tiny", folder_paths(tiny_model), dtype, CPU).load_blocks(span)

    return load


@pytest.fixture
def batcher(lane: ComputeLane) -> Batcher:
    return Batcher(lane)


class User:
    """A context and what its steps should give: those of a twin that is alone."""

    def __init__(
        self, batcher: Batcher, stack: BlockStack, name: str = "anna", seed: int = 0
    ) -> None:
        self.name = name
        self.cache = stack.new_cache(256)
        self.finished = 0
        self.compute_s = self.queue_s = 0.0
        self._stack = stack
        # With scratch memory of its own: it computes in another thread.
        self._alone = BlockStack(stack.config, stack.span, stack.blocks, stack.dtype, stack.device)
        self._twin = stack.new_cache(256)
        self._batcher = batcher
        self._random = torch.Generator().manual_seed(seed)

    def hidden(self, tokens: int) -> Tensor:
        return torch.randn(1, tokens, D_MODEL, generator=self._random).to(self._stack.dtype)

    def fill(self, tokens: int) -> None:
        """Have a history, made here and now."""
        x = self.hidden(tokens)
        assert torch.equal(self._alone(x, self.cache), self._alone(x, self._twin))

    def work(self, x: Tensor, position: int | None = None) -> StepWork[Tensor]:
        at = self.cache.length if position is None else position
        return StepWork(
            self.name, self._stack, self.cache, at, x.shape[1], lambda: x, lambda result: result
        )

    async def step(self, tokens: int = 1) -> None:
        """A step is what it is for the twin, to the bit."""
        x = self.hidden(tokens)
        expected = self._alone(x, self._twin)
        ran = await self._batcher.run(self.work(x))
        assert torch.equal(ran.value, expected)
        self.compute_s, self.queue_s = ran.compute_s, ran.queue_s
        self.finished += 1


@contextmanager
def held(lane: ComputeLane) -> Iterator[None]:
    """The lane is busy inside the block."""
    may_go_on = threading.Event()
    lane.run_soon(may_go_on.wait)
    try:
        yield
    finally:
        may_go_on.set()


async def together(lane: ComputeLane, steps: Sequence[Callable[[], object]]) -> None:
    """All of them wait before the first begins."""
    async with trio.open_nursery() as nursery:
        with held(lane):
            for step in steps:
                nursery.start_soon(step)  # type: ignore[arg-type]
                await trio.testing.wait_all_tasks_blocked()


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[list[KVCache]]:
    """The caches of each batch of several, and of each step that ran alone."""
    seen: list[list[KVCache]] = []
    batch, call = BlockStack.batch, BlockStack.__call__

    def batched(self: BlockStack, steps: Sequence[tuple[Tensor, KVCache]]) -> list[Tensor]:
        seen.append([cache for _, cache in steps])
        return batch(self, steps)

    def called(self: BlockStack, hidden: Tensor, cache: KVCache) -> Tensor:
        if threading.current_thread().name == "gptnode-compute":
            seen.append([cache])
        return call(self, hidden, cache)

    monkeypatch.setattr(BlockStack, "batch", batched)
    monkeypatch.setattr(BlockStack, "__call__", called)
    return seen


# --- short steps ----------------------------------------------------------------------------------


@joins
@pytest.mark.parametrize("dtype", ["bf16", "int8", "int4"])
async def test_steps_that_wait_together_run_as_one_and_each_is_as_if_alone(
    dtype: str,
    lane: ComputeLane,
    batcher: Batcher,
    load: Callable[..., BlockStack],
    batches: list[list[KVCache]],
) -> None:
    stack = load(dtype)
    users = [User(batcher, stack, name=f"peer{i % 3}", seed=i) for i in range(8)]
    for i, user in enumerate(users):
        user.fill(3 + 5 * i)
    for _ in range(3):
        await together(lane, [user.step for user in users])
    assert [len(batch) for batch in batches] == [8, 8, 8]


async def test_where_products_round_by_their_shape_each_step_runs_alone(
    lane: ComputeLane,
    batcher: Batcher,
    load: Callable[..., BlockStack],
    batches: list[list[KVCache]],
) -> None:
    stack = load("f32")
    users = [User(batcher, stack, seed=i) for i in range(4)]
    for user in users:
        user.fill(5)
    await together(lane, [user.step for user in users])
    assert [len(batch) for batch in batches] == [1, 1, 1, 1]


async def test_steps_over_other_blocks_do_not_mix(
    lane: ComputeLane,
    batcher: Batcher,
    load: Callable[..., BlockStack],
    batches: list[list[KVCache]],
) -> None:
    stack = load()
    stacks = [stack.part(Span(0, 2)), stack.part(Span(1, 3)), stack]
    users = [User(batcher, stacks[i % 3], name=f"peer{i % 2}", seed=i) for i in range(9)]
    await together(lane, [user.step for user in users])
    assert {len({cache.span for cache in batch}) for batch in batches} == {1}
    assert sum(map(len, batches)) == 9


@joins
async def test_steps_of_several_tokens_join_as_far_as_there_is_room(
    lane: ComputeLane,
    batcher: Batcher,
    load: Callable[..., BlockStack],
    batches: list[list[KVCache]],
) -> None:
    stack = load()
    users = [User(batcher, stack, seed=i) for i in range(4)]
    tokens = [20, 20, 12, 1]
    await together(lane, [lambda u=u, n=n: u.step(n) for u, n in zip(users, tokens, strict=True)])
    places = [[next(i for i, u in enumerate(users) if u.cache is c) for c in b] for b in batches]
    assert places == [[0, 2], [1, 3]]


@joins
async def test_a_peer_with_many_sessions_does_not_keep_another_waiting(
    lane: ComputeLane,
    batcher: Batcher,
    load: Callable[..., BlockStack],
    batches: list[list[KVCache]],
) -> None:
    stack = load()
    greedy = [User(batcher, stack, name="anna", seed=i) for i in range(60)]
    modest = User(batcher, stack, name="ben", seed=99)
    await together(lane, [*(user.step for user in greedy), modest.step])
    assert [len(batch) for batch in batches] == [32, 29]
    assert modest.cache in batches[0]


async def used_to_each_other(
    lane: ComputeLane,
    batcher: Batcher,
    stack: BlockStack,
    monkeypatch: pytest.MonkeyPatch,
    *,
    usual_s: float,
) -> tuple[User, User]:
    """Two who had two steps together, and for whom waiting saves more than anything."""
    anna, ben = User(batcher, stack, "anna", seed=1), User(batcher, stack, "ben", seed=2)
    for _ in range(2):
        await together(lane, [anna.step, ben.step])
    monkeypatch.setattr(BatchTimes, "usual_s", lambda *_: usual_s)
    monkeypatch.setattr(BatchTimes, "saved_s", lambda *_: 1e9)
    monkeypatch.setattr("gptnode.node.expecting.LATE", 1e9)
    return anna, ben


@joins
async def test_those_who_are_about_to_be_back_are_waited_for(
    lane: ComputeLane,
    batcher: Batcher,
    load: Callable[..., BlockStack],
    batches: list[list[KVCache]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    anna, ben = await used_to_each_other(lane, batcher, load(), monkeypatch, usual_s=1e9)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(anna.step)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert anna.finished == 2
        nursery.start_soon(ben.step)
    assert [len(batch) for batch in batches] == [2, 2, 2]


@joins
async def test_nobody_waits_where_batches_take_next_to_no_time(
    lane: ComputeLane,
    batcher: Batcher,
    load: Callable[..., BlockStack],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    anna, _ = await used_to_each_other(lane, batcher, load(), monkeypatch, usual_s=0.001)
    await anna.step()
    assert anna.finished == 3


@joins
async def test_other_work_of_the_lane_ends_the_wait(
    lane: ComputeLane,
    batcher: Batcher,
    load: Callable[..., BlockStack],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    anna, _ = await used_to_each_other(lane, batcher, load(), monkeypatch, usual_s=1e9)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(anna.step)
        await trio.testing.wait_all_tasks_blocked(0.01)
        await lane.run(lambda: None)
    assert anna.finished == 3


async def test_a_caller_who_left_is_skipped_and_the_cache_is_as_it_was(
    lane: ComputeLane,
    batcher: Batcher,
    load: Callable[..., BlockStack],
    batches: list[list[KVCache]],
) -> None:
    stack = load()
    gone, stays = User(batcher, stack, seed=1), User(batcher, stack, seed=2)
    gone.fill(5)
    with held(lane):
        with trio.move_on_after(0.02):
            await batcher.run(gone.work(gone.hidden(1)))
    await stays.step()
    assert [stays.cache] in batches
    assert gone.cache.length == 5
    await gone.step()


def poisoned() -> Tensor:
    raise MismatchError("activations from the client hold NaN or Inf")


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (lambda user: user.work(user.hidden(1), position=250), MismatchError),
        (lambda user: user.work(user.hidden(30)), ContextError),
        (
            lambda user: StepWork("x", user._stack, user.cache, 0, 1, poisoned, lambda r: r),
            MismatchError,
        ),
        (
            lambda user: StepWork(
                "x", user._stack, user.cache, 0, 1, lambda: user.hidden(1), lambda r: 1 // 0
            ),
            ZeroDivisionError,
        ),
        (lambda user: user.work(user.hidden(1).double()), ValueError),
    ],
    ids=["position", "room", "reading", "writing", "dtype"],
)
async def test_a_step_that_fails_fails_alone(
    spoil: Callable[[User], StepWork[Tensor]],
    error: type[Exception],
    lane: ComputeLane,
    batcher: Batcher,
    load: Callable[..., BlockStack],
) -> None:
    stack = load()
    good = [User(batcher, stack, seed=i) for i in range(3)]
    bad = User(batcher, stack, name="ben")
    bad.fill(240)

    async def fail() -> None:
        with pytest.raises(error):
            await batcher.run(spoil(bad))

    await together(lane, [good[0].step, fail, good[1].step, good[2].step])
    assert [user.finished for user in good] == [1, 1, 1]


@joins
async def test_a_batch_that_fails_for_no_reason_is_done_one_by_one(
    lane: ComputeLane,
    batcher: Batcher,
    load: Callable[..., BlockStack],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stack = load()
    users = [User(batcher, stack, seed=i) for i in range(5)]
    tried: list[int] = []

    def fails(self: BlockStack, steps: Sequence[tuple[Tensor, KVCache]]) -> list[Tensor]:
        tried.append(len(steps))
        raise RuntimeError("no memory")

    monkeypatch.setattr(BlockStack, "batch", fails)
    await together(lane, [user.step for user in users])
    assert tried == [5]
    assert [user.finished for user in users] == [1] * 5


async def test_times_tell_waiting_from_working(
    lane: ComputeLane, batcher: Batcher, load: Callable[..., BlockStack]
) -> None:
    stack = load()
    users = [User(batcher, stack, seed=i) for i in range(3)]
    async with trio.open_nursery() as nursery:
        with held(lane):
            for user in users:
                nursery.start_soon(user.step)
            await trio.testing.wait_all_tasks_blocked()
            await trio.sleep(0.05)
    assert all(user.queue_s >= 0.05 and user.compute_s > 0 for user in users)


async def test_what_goes_wrong_on_the_device_is_the_error_of_all_who_took_part(
    load: Callable[..., BlockStack],
) -> None:
    failures = iter([RuntimeError("an illegal address")])

    def wait() -> None:
        for error in failures:
            raise error

    stack = load()
    with ComputeLane(threads=1, wait=wait) as lane:
        batcher = Batcher(lane)
        users = [User(batcher, stack, seed=i) for i in range(2)]
        with pytest.raises(RuntimeError, match="illegal address"):
            await batcher.run(users[0].work(users[0].hidden(1)))
        await users[1].step()


async def test_a_finished_step_keeps_nothing_alive(
    lane: ComputeLane, batcher: Batcher, load: Callable[..., BlockStack]
) -> None:
    stack = load()
    user = User(batcher, stack)
    await user.step()
    await user.step(40)
    gone = weakref.ref(user.cache)
    del user
    await lane.run(lambda: None)
    gc.collect()
    assert gone() is None


# --- long steps -----------------------------------------------------------------------------------


class Watched:
    """What the lane does, piece by piece; a piece waits for `go_on` if it is to be held."""

    def __init__(self) -> None:
        self.order: list[str] = []
        self.hold_at = 0
        self.held = threading.Event()
        self.go_on = threading.Event()

    @property
    def pieces(self) -> int:
        return self.order.count("piece")


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    watch = Watched()
    advance, run_batch = LongStep.advance, Batcher._run_batch

    def advanced(self: LongStep) -> Tensor | None:
        watch.order.append("piece")
        if watch.pieces == watch.hold_at:
            watch.held.set()
            watch.go_on.wait()
        return advance(self)

    def ran(self: Batcher, batch: list[object]) -> None:
        if batch:
            watch.order.append("batch")
        run_batch(self, batch)  # type: ignore[arg-type]

    monkeypatch.setattr(LongStep, "advance", advanced)
    monkeypatch.setattr(Batcher, "_run_batch", ran)
    return watch


@pytest.mark.parametrize("dtype", ["bf16", "int8", "f32"])
async def test_a_long_step_lets_short_ones_pass_after_the_piece_that_it_is_at(
    dtype: str, batcher: Batcher, load: Callable[..., BlockStack], watched: Watched
) -> None:
    stack = load(dtype)
    prompt, chat = User(batcher, stack, "anna", seed=1), User(batcher, stack, "ben", seed=2)
    chat.fill(7)
    watched.hold_at = 3
    async with trio.open_nursery() as nursery:
        nursery.start_soon(prompt.step, 100)
        await trio.to_thread.run_sync(watched.held.wait)
        nursery.start_soon(chat.step)
        await trio.testing.wait_all_tasks_blocked()
        watched.go_on.set()
    assert watched.order[:4] == ["piece", "piece", "piece", "batch"]
    assert watched.pieces > 4 * len(stack.span)
    assert (prompt.finished, chat.finished) == (1, 1)


async def test_those_who_decode_all_the_time_do_not_stop_a_long_step(
    lane: ComputeLane, batcher: Batcher, load: Callable[..., BlockStack], watched: Watched
) -> None:
    """Two contexts: one of their steps always waits while the other one's is computed."""
    stack = load()
    prompt = User(batcher, stack, "anna", seed=1)
    chats = [User(batcher, load(), "ben", seed=seed) for seed in (2, 3)]

    async def chat(user: User) -> None:
        while not prompt.finished:
            await user.step()
            user.cache.truncate(0)
            user._twin.truncate(0)

    async with trio.open_nursery() as nursery:
        for user in chats:
            nursery.start_soon(chat, user)
        await prompt.step(100)
    first = watched.order.index("piece")
    last = len(watched.order) - watched.order[::-1].index("piece")
    under_way = watched.order[first:last]
    assert under_way.count("batch") <= under_way.count("piece")
    assert all(user.finished for user in chats)


async def test_other_work_of_the_lane_has_its_turn_between_two_pieces(
    lane: ComputeLane, batcher: Batcher, load: Callable[..., BlockStack], watched: Watched
) -> None:
    prompt = User(batcher, load(), seed=1)
    pieces: list[int] = []
    watched.hold_at = 2
    async with trio.open_nursery() as nursery:
        nursery.start_soon(prompt.step, 100)
        await trio.to_thread.run_sync(watched.held.wait)
        nursery.start_soon(lane.run, lambda: pieces.append(watched.pieces))
        await trio.testing.wait_all_tasks_blocked()
        watched.go_on.set()
    assert pieces == [2]


async def test_long_steps_of_one_peer_do_not_keep_those_of_another_waiting(
    lane: ComputeLane, batcher: Batcher, load: Callable[..., BlockStack]
) -> None:
    stack = load()
    users = [User(batcher, stack, name, seed=i) for i, name in enumerate("aaab")]
    order: list[str] = []

    async def step(user: User) -> None:
        work = replace(user.work(user.hidden(40)), write=lambda _: order.append(user.name))
        await batcher.run(work)

    await together(lane, [lambda user=user: step(user) for user in users])
    assert "".join(order) == "abaa"


async def test_a_long_step_whose_caller_left_is_given_up_and_its_cache_may_be_closed(
    lane: ComputeLane, batcher: Batcher, load: Callable[..., BlockStack], watched: Watched
) -> None:
    stack = load()
    gone, stays = User(batcher, stack, seed=1), User(batcher, stack, seed=2)
    watched.hold_at = 3
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stays.step, 50)
        await trio.to_thread.run_sync(watched.held.wait)
        async with trio.open_nursery() as session:
            session.start_soon(gone.step, 100)
            await trio.testing.wait_all_tasks_blocked()
            session.cancel_scope.cancel()
        lane.run_soon(gone.cache.close)
        watched.go_on.set()
    assert stays.finished == 1
    assert watched.pieces < 2 * 4 * (len(stack.span) + 1), "nothing of the other one"
    await stays.step()


async def test_a_long_step_that_is_left_half_done_leaves_the_cache_usable(
    lane: ComputeLane, batcher: Batcher, load: Callable[..., BlockStack], watched: Watched
) -> None:
    user = User(batcher, load(), seed=1)
    user.fill(9)
    watched.hold_at = 6
    async with trio.open_nursery() as nursery:
        nursery.start_soon(batcher.run, user.work(user.hidden(100)))
        await trio.to_thread.run_sync(watched.held.wait)
        nursery.cancel_scope.cancel()
    watched.go_on.set()
    await lane.run(lambda: None)
    assert user.cache.length == 9
    await user.step(60)
    await user.step()


async def test_a_long_step_that_fails_fails_alone(
    batcher: Batcher, load: Callable[..., BlockStack]
) -> None:
    stack = load()
    bad, good = User(batcher, stack, seed=1), User(batcher, stack, seed=2)
    bad.fill(5)
    with pytest.raises(MismatchError):
        await batcher.run(bad.work(bad.hidden(40), position=6))
    with pytest.raises(ContextError):
        await batcher.run(bad.work(bad.hidden(252)))
    await good.step(40)
    assert bad.cache.length == 5


async def test_the_time_of_a_long_step_is_that_of_its_pieces(
    batcher: Batcher, load: Callable[..., BlockStack], watched: Watched
) -> None:
    prompt = User(batcher, load(), seed=1)
    watched.hold_at = 1
    began_s = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(prompt.step, 40)
        await trio.to_thread.run_sync(watched.held.wait)
        await trio.sleep(0.05)
        watched.go_on.set()
    assert prompt.compute_s >= 0.05, "the piece that was held"
    assert prompt.compute_s + prompt.queue_s <= trio.current_time() - began_s
