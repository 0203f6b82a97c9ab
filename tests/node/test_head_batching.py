"""Heads of several contexts as one product."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch
import trio
import trio.testing
from torch import Tensor

from gptnode.model.native import binding
from gptnode.model.native.blocks import MAX_ROWS
from gptnode.model.shard import Head
from gptnode.node.compute import ComputeLane
from gptnode.node.head_batching import HeadBatcher
from gptnode.node.loading import folder_paths, open_model
from tests.tiny_llama import D_MODEL

CPU = torch.device("cpu")


def head_of(folder: Path, dtype: str) -> Head:
    source = open_model("tiny", folder_paths(folder), dtype, CPU)
    return source.load_head(source.load_embedding())


@pytest.mark.parametrize("dtype", ["f32", "bf16", "int8"])
async def test_rows_that_wait_together_are_each_as_if_alone(
    dtype: str, lane: ComputeLane, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = head_of(tiny_model, dtype)
    rows = [torch.randn(1, 1, D_MODEL) for _ in range(5)]
    if dtype != "f32":
        rows = [row.bfloat16() for row in rows]
    expected = [head(row) for row in rows]
    sizes: list[int] = []
    call = Head.__call__

    def counted(self: Head, hidden: Tensor) -> Tensor:
        sizes.append(hidden.shape[0])
        return call(self, hidden)

    monkeypatch.setattr(Head, "__call__", counted)
    batcher, may_go_on = HeadBatcher(lane, head), threading.Event()
    same: dict[int, bool] = {}

    async def ask(number: int) -> None:
        logits, compute_s = await batcher.run(rows[number], lambda logits: logits.clone())
        same[number] = torch.equal(logits, expected[number])
        assert compute_s > 0

    lane.run_soon(may_go_on.wait)
    async with trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(ask, number)
        await trio.testing.wait_all_tasks_blocked()
        may_go_on.set()
    assert same == dict.fromkeys(range(5), True)
    joined = dtype != "f32" and binding.available
    assert sizes == ([5] if joined else [1] * 5)


async def test_what_is_made_of_the_logits_fails_alone(lane: ComputeLane, tiny_model: Path) -> None:
    batcher = HeadBatcher(lane, head_of(tiny_model, "bf16"))
    row = torch.randn(1, 1, D_MODEL).bfloat16()
    with pytest.raises(ZeroDivisionError):
        await batcher.run(row, lambda logits: 1 // 0)
    found, _ = await batcher.run(row, lambda logits: logits.shape)
    assert found == (1, 64)


@pytest.mark.parametrize(("dtype", "rows"), [("bf16", 1), ("bf16", MAX_ROWS), ("f32", 1)])
async def test_who_left_takes_nobodys_room(
    dtype: str, rows: int, lane: ComputeLane, tiny_model: Path
) -> None:
    head = head_of(tiny_model, dtype)
    batcher, may_go_on = HeadBatcher(lane, head), threading.Event()
    used: list[str] = []
    hidden = torch.randn(rows, 1, D_MODEL).to(head.norm.weight.dtype)
    lane.run_soon(may_go_on.wait)
    with trio.move_on_after(0.02):
        await batcher.run(hidden, lambda logits: used.append("left"))
    may_go_on.set()
    await batcher.run(hidden, lambda logits: used.append("stayed"))
    await batcher.run(hidden, lambda logits: used.append("came later"))
    assert used == ["stayed", "came later"]


async def test_who_leaves_while_the_batch_is_gathered_holds_up_nobody(
    lane: ComputeLane, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batcher = HeadBatcher(lane, head_of(tiny_model, "bf16"))
    row = torch.randn(1, 1, D_MODEL).bfloat16()
    begun, may_go_on = threading.Event(), threading.Event()
    gathered = HeadBatcher._gathered

    def slowly(self: HeadBatcher) -> list[object]:
        begun.set()
        may_go_on.wait()
        return list(gathered(self))

    monkeypatch.setattr(HeadBatcher, "_gathered", slowly)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(batcher.run, row, lambda logits: logits)
        await trio.to_thread.run_sync(begun.wait)
        nursery.cancel_scope.cancel()
    may_go_on.set()
    with trio.fail_after(30):
        shape, _ = await batcher.run(row, lambda logits: logits.shape)
    assert shape == (1, 64)


async def test_a_head_that_fails_fails_for_all_who_were_in_the_batch_and_for_nobody_else(
    lane: ComputeLane, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = head_of(tiny_model, "bf16")
    batcher, may_go_on = HeadBatcher(lane, head), threading.Event()
    row = torch.randn(1, 1, D_MODEL).bfloat16()
    failed: list[str] = []

    async def ask() -> None:
        try:
            await batcher.run(row, lambda logits: logits)
        except MemoryError as error:
            failed.append(str(error))

    def fails(self: Head, hidden: Tensor) -> Tensor:
        raise MemoryError("no memory for logits")

    lane.run_soon(may_go_on.wait)
    with monkeypatch.context() as patch:
        patch.setattr(Head, "__call__", fails)
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            may_go_on.set()
    assert failed == ["no memory for logits"] * 3
    logits, _ = await batcher.run(row, lambda logits: logits.clone())
    assert torch.equal(logits, head(row))


@pytest.mark.skipif(not binding.available, reason="only the kernels join rows")
async def test_after_a_batch_of_several_the_next_waits_for_as_many(
    lane: ComputeLane, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batcher, may_go_on = HeadBatcher(lane, head_of(tiny_model, "bf16")), threading.Event()
    row = torch.randn(1, 1, D_MODEL).bfloat16()
    finished: list[str] = []

    async def ask(name: str) -> None:
        await batcher.run(row, lambda logits: None)
        finished.append(name)

    lane.run_soon(may_go_on.wait)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, "anna")
        nursery.start_soon(ask, "ben")
        await trio.testing.wait_all_tasks_blocked()
        may_go_on.set()
    monkeypatch.setattr("gptnode.node.head_batching.MOMENT_S", 60.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, "anna")
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert len(finished) == 2, "it waits for the other one"
        nursery.start_soon(ask, "ben")
    assert len(finished) == 4


@pytest.mark.parametrize("dtype", ["f32", "bf16"])
async def test_a_context_may_have_several_rows_and_each_is_as_if_alone(
    dtype: str, lane: ComputeLane, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = head_of(tiny_model, dtype)
    counts = (1, 3, MAX_ROWS - 2, 2, MAX_ROWS + 5)
    asked = [torch.randn(count, 1, D_MODEL).to(head.norm.weight.dtype) for count in counts]
    expected = [torch.cat([head(row[None]) for row in rows]) for rows in asked]
    sizes: list[int] = []
    call = Head.__call__

    def counted(self: Head, hidden: Tensor) -> Tensor:
        sizes.append(hidden.shape[0])
        return call(self, hidden)

    monkeypatch.setattr(Head, "__call__", counted)
    batcher, may_go_on = HeadBatcher(lane, head), threading.Event()
    same: dict[int, bool] = {}

    async def ask(number: int) -> None:
        logits, _ = await batcher.run(asked[number], lambda logits: logits.clone())
        same[number] = torch.equal(logits, expected[number])

    lane.run_soon(may_go_on.wait)
    async with trio.open_nursery() as nursery:
        for number in range(len(counts)):
            nursery.start_soon(ask, number)
        await trio.testing.wait_all_tasks_blocked()
        may_go_on.set()
    assert same == dict.fromkeys(range(len(counts)), True)
    assert sum(sizes) == sum(counts)
    assert max(sizes) == (MAX_ROWS if dtype == "bf16" and binding.available else 1)
