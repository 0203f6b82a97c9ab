"""First come, first served, and refused where too many wait."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from gptnode.errors import ServiceBusyError
from gptnode.node.turns import Line, Turns


async def test_turns_are_taken_in_the_order_of_asking(nursery: trio.Nursery) -> None:
    turns, order = Turns(2, 10), list[int]()
    leave = [trio.Event() for _ in range(5)]

    async def one(number: int) -> None:
        async with turns.turn():
            order.append(number)
            await leave[number].wait()

    for number in range(5):
        nursery.start_soon(one, number)
        await wait_all_tasks_blocked()
    assert (order, turns.busy, turns.waiting) == ([0, 1], 2, 3)
    leave[1].set()
    await wait_all_tasks_blocked()
    assert order == [0, 1, 2]
    for number in (2, 0):
        leave[number].set()
        await wait_all_tasks_blocked()
    assert (order, turns.busy, turns.waiting) == ([0, 1, 2, 3, 4], 2, 0)
    for event in leave:
        event.set()
    await wait_all_tasks_blocked()
    assert turns.busy == 0


async def test_whoever_comes_when_too_many_wait_is_refused_and_told_when_to_come_back(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    turns = Turns(1, 1)

    async def take(seconds: float) -> None:
        async with turns.turn():
            await trio.sleep(seconds)

    for _ in range(30):  # it learns how long they take
        await take(8.0)
    nursery.start_soon(take, 8.0)
    await wait_all_tasks_blocked()
    nursery.start_soon(take, 8.0)
    await wait_all_tasks_blocked()
    with pytest.raises(ServiceBusyError, match="1 answers are under way and 1 more wait") as caught:
        await take(0.0)
    assert 14 < caught.value.retry_after_s <= 16


async def test_who_gives_up_waiting_leaves_no_trace() -> None:
    turns = Turns(1, 1)
    async with turns.turn():
        with trio.move_on_after(0.01):
            async with turns.turn():
                raise AssertionError("there is no second turn")
        assert turns.waiting == 0
    async with turns.turn():
        assert turns.busy == 1


async def test_an_error_ends_a_turn() -> None:
    turns = Turns(1, 0)
    with pytest.raises(ZeroDivisionError):
        async with turns.turn():
            raise ZeroDivisionError
    assert turns.busy == 0


async def test_those_in_line_are_called_in_order_and_who_came_back_for_nothing_is_first(
    nursery: trio.Nursery,
) -> None:
    line, order = Line(), list[str]()
    who = {name: trio.Event() for name in ("anna", "ben", "cleo")}

    async def wait(name: str) -> None:
        await line.wait(who[name])
        order.append(name)

    for name in ("anna", "ben"):
        nursery.start_soon(wait, name)
        await wait_all_tasks_blocked()
    line.call()
    await wait_all_tasks_blocked()
    assert order == ["anna"]
    nursery.start_soon(wait, "cleo")
    await wait_all_tasks_blocked()
    nursery.start_soon(wait, "anna")  # there was no room after all
    await wait_all_tasks_blocked()
    for _ in range(3):
        line.call()
        await wait_all_tasks_blocked()
    assert order == ["anna", "anna", "ben", "cleo"]
    assert len(line) == 0


async def test_a_call_for_one_that_has_left_goes_to_the_next(nursery: trio.Nursery) -> None:
    line, called = Line(), list[str]()
    anna, ben = trio.Event(), trio.Event()
    scope = trio.CancelScope()

    async def wait(who: trio.Event, name: str) -> None:
        await line.wait(who)
        called.append(name)

    async def leaving() -> None:
        with scope:
            await wait(anna, "anna")

    nursery.start_soon(leaving)
    await wait_all_tasks_blocked()
    nursery.start_soon(wait, ben, "ben")
    await wait_all_tasks_blocked()
    scope.cancel()
    line.call()
    await wait_all_tasks_blocked()
    assert called == ["ben"]
