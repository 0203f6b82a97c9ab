"""Waiting for a key: woken together, and nothing stays."""

from __future__ import annotations

import trio
import trio.testing

from gptnode.net.waits import Waits


async def test_all_that_wait_for_a_key_are_woken_and_no_others() -> None:
    waits, woken = Waits(), []

    async def wait(key: str) -> None:
        await waits.wait(key)
        woken.append(key)

    async with trio.open_nursery() as nursery:
        for key in ("a", "a", "b"):
            nursery.start_soon(wait, key)
        await trio.testing.wait_all_tasks_blocked()
        waits.wake("a")
        waits.wake("nobody")
        await trio.testing.wait_all_tasks_blocked()
        assert woken == ["a", "a"]
        assert len(waits) == 1
        nursery.cancel_scope.cancel()
    assert len(waits) == 0


async def test_a_wait_that_was_cancelled_leaves_the_others() -> None:
    waits = Waits()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(waits.wait, "a")
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(0):
            await waits.wait("a")
        assert len(waits) == 1
        waits.wake("a")
    assert len(waits) == 0
