"""The compute lane."""

from __future__ import annotations

import gc
import threading
import time
import weakref

import pytest
import torch
import trio
import trio.testing

from gptnode.node.compute import ComputeLane, device_wait


async def test_work_runs_in_one_other_thread(lane: ComputeLane) -> None:
    threads = {(await lane.run(threading.get_ident)).value for _ in range(5)}
    assert len(threads) == 1
    assert threads.isdisjoint({threading.get_ident()})


async def test_an_error_reaches_the_caller_and_the_lane_goes_on(lane: ComputeLane) -> None:
    with pytest.raises(ZeroDivisionError):
        await lane.run(lambda: 1 // 0)
    assert (await lane.run(lambda: 7)).value == 7


async def test_trio_runs_while_the_lane_computes(lane: ComputeLane) -> None:
    may_end = threading.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lane.run, may_end.wait)
        await trio.sleep(0.01)  # would never come back if the work held trio's thread
        may_end.set()


async def test_a_cancelled_caller_leaves_at_once_and_order_is_kept(lane: ComputeLane) -> None:
    has_begun, may_end = threading.Event(), threading.Event()
    order: list[str] = []

    def slow() -> None:
        has_begun.set()
        may_end.wait()
        order.append("slow")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(lane.run, slow)
        await trio.to_thread.run_sync(has_begun.wait)
        nursery.cancel_scope.cancel()
    assert order == []
    may_end.set()
    await lane.run(lambda: order.append("next"))
    assert order == ["slow", "next"]


async def test_work_whose_caller_left_before_it_began_is_skipped(lane: ComputeLane) -> None:
    may_end = threading.Event()
    ran: list[str] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lane.run, may_end.wait)
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(0.02):
            await lane.run(lambda: ran.append("left"))
        may_end.set()
    await lane.run(lambda: ran.append("stayed"))
    assert ran == ["stayed"]


async def test_times_tell_waiting_from_working(lane: ComputeLane) -> None:
    may_end = threading.Event()
    times: list[float] = []

    async def second() -> None:
        ran = await lane.run(lambda: None)
        times.append(ran.queue_s)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(lane.run, may_end.wait)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(second)
        await trio.testing.wait_all_tasks_blocked()
        await trio.sleep(0.05)
        may_end.set()
    assert times[0] >= 0.05


async def test_a_finished_step_keeps_nothing_alive(lane: ComputeLane) -> None:
    class Cache:
        def step(self) -> None:
            pass

    cache = Cache()
    gone = weakref.ref(cache)
    await lane.run(cache.step)
    await lane.run(lambda: None)
    del cache
    gc.collect()
    assert gone() is None


async def test_work_ends_when_its_device_is_done_and_the_lane_waits_for_it() -> None:
    order: list[str] = []
    threads: list[int] = []

    def wait() -> None:
        order.append("device is done")
        threads.append(threading.get_ident())

    with ComputeLane(threads=1, wait=wait) as lane:
        threads.append((await lane.run(threading.get_ident)).value)
        order.append("caller goes on")
    assert order == ["device is done", "caller goes on"]
    assert threads[0] == threads[1] != threading.get_ident()


async def test_the_time_that_the_device_takes_is_compute_time() -> None:
    with ComputeLane(threads=1, wait=lambda: time.sleep(0.05)) as lane:
        assert (await lane.run(lambda: None)).compute_s >= 0.05


async def test_what_went_wrong_on_the_device_is_the_error_of_that_work() -> None:
    failures = iter([RuntimeError("an illegal address")])

    def wait() -> None:
        for error in failures:
            raise error

    with ComputeLane(threads=1, wait=wait) as lane:
        with pytest.raises(RuntimeError, match="illegal address"):
            await lane.run(lambda: 1)
        assert (await lane.run(lambda: 2)).value == 2


@pytest.mark.parametrize("name", ["cuda", "cuda:1"])
def test_cuda_is_done_when_its_current_stream_is(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[torch.device] = []

    class Stream:
        def __init__(self, device: torch.device) -> None:
            self.device = device

        def synchronize(self) -> None:
            waited.append(self.device)

    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    device_wait(torch.device(name))()
    assert waited == [torch.device(name)]


def test_a_cpu_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cuda, "current_stream")
    device_wait(torch.device("cpu"))()
