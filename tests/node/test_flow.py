"""Items through workers in a row: order, overlap, and how the first error ends it."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest
import trio
import trio.testing

from gptnode.node.flow import Worker, flow


async def numbers(count: int) -> AsyncGenerator[list[str]]:
    for number in range(count):
        yield [str(number)]


def worker(name: str, takes_s: float = 0.0, room: int = 0) -> Worker[list[str]]:
    async def work(item: list[str]) -> None:
        await trio.sleep(takes_s)
        item.append(name)

    return Worker(work, room)


@pytest.mark.parametrize("n_workers", [0, 1, 2, 5])
@pytest.mark.parametrize("count", [0, 1, 7])
async def test_every_item_passes_all_workers_in_order(
    n_workers: int, count: int, autojump_clock: trio.testing.MockClock
) -> None:
    done: list[list[str]] = []
    names = [chr(ord("a") + n) for n in range(n_workers)]
    workers = [worker(name, 1 + 3 * (n % 2)) for n, name in enumerate(names)]
    await flow(numbers(count), workers, done.append)
    assert done == [[str(number), *names] for number in range(count)]


async def test_workers_are_at_different_items_at_the_same_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    began_s = trio.current_time()
    await flow(numbers(8), [worker("a", 1.0), worker("b", 1.0)], lambda item: None)
    assert trio.current_time() - began_s == pytest.approx(9.0)


@pytest.mark.parametrize("room", [0, 1, 3])
async def test_items_wait_where_there_is_room(
    room: int, autojump_clock: trio.testing.MockClock
) -> None:
    sent: list[float] = []

    async def send(item: list[str]) -> None:
        await trio.lowlevel.checkpoint()
        sent.append(trio.current_time())

    began_s = trio.current_time()
    await flow(numbers(9), [Worker(send), worker("slow", 1.0, room)], lambda item: None)
    at_once = sum(time_s == pytest.approx(began_s) for time_s in sent)
    assert at_once == room + 2  # those in the room, in the worker's hands, and in the sender's


async def test_the_first_error_is_raised_as_it_is_and_what_was_done_stays_done(
    autojump_clock: trio.testing.MockClock,
) -> None:
    done: list[list[str]] = []

    async def breaks(item: list[str]) -> None:
        await trio.sleep(1)
        if item[0] == "2":
            raise KeyError("2")
        item.append("b")

    with pytest.raises(KeyError, match="2"):
        await flow(numbers(9), [worker("a"), Worker(breaks), worker("c", 5.0)], done.append)
    assert done == [["0", "a", "b", "c"]]


async def test_two_errors_at_once_are_one() -> None:
    both = trio.Event()

    async def first(item: list[str]) -> None:
        if item[0] == "1":
            await both.wait()
            raise KeyError(1)

    async def second(item: list[str]) -> None:
        both.set()
        raise KeyError(2)

    with pytest.raises(KeyError):
        await flow(numbers(3), [Worker(first), Worker(second)], lambda item: None)


async def test_an_error_of_the_source_or_of_done_ends_it() -> None:
    async def broken() -> AsyncGenerator[list[str]]:
        yield ["0"]
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        await flow(broken(), [worker("a")], lambda item: None)

    def refuse(item: list[str]) -> None:
        raise LookupError(item[0])

    with pytest.raises(LookupError, match="0"):
        await flow(numbers(3), [worker("a")], refuse)


async def test_cancelled_it_ends_all_workers(autojump_clock: trio.testing.MockClock) -> None:
    done: list[list[str]] = []
    with trio.move_on_after(3.5) as scope:
        await flow(numbers(99), [worker("a", 1.0), worker("b", 1.0)], done.append)
    assert scope.cancelled_caught
    assert [item[0] for item in done] == ["0", "1"]
