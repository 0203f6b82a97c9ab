"""The compute lane."""

from __future__ import annotations

import gc
import threading
import weakref

import pytest
import trio
import trio.testing

from gptnode.node.compute import ComputeLane


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
