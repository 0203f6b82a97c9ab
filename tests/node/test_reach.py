"""Knocking at real servers: near, far, closed and gone ones, and none of their room is taken."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from gptnode.net.host import Host, PeerStream, open_host
from gptnode.net.identity import create_identity
from gptnode.node import metric_catalogue as names
from gptnode.node.block_server import BlockServer, KVBudget
from gptnode.node.compute import ComputeLane
from gptnode.node.reach import ReachWatch, knock

from .test_serving import Place, dialler, serving
from .test_watched_server import watched


@pytest.fixture
def place(tmp_path: Path, tiny_model: Path) -> Place:
    place = Place(tmp_path, tiny_model)
    for name in ("anna", "ben", "laptop", "phone"):
        place.ids[name] = create_identity(tmp_path / f"{name}.key")
    place.write_map(["laptop"])
    return place


@asynccontextmanager
async def answering(
    place: Place, handler: Callable[[PeerStream], Awaitable[None]]
) -> AsyncIterator[Host]:
    """A node that listens as anna, and handles streams as it is told."""
    listen = ("/ip4/127.0.0.1/tcp/0",)
    async with open_host(
        place.ids["anna"], listen=listen, allow=lambda _: True, handler=handler
    ) as host:
        yield host


async def test_a_server_that_serves_is_reachable_and_gives_nothing_for_it(
    place: Place,
) -> None:
    async with watched(place) as (info, _, pages), dialler(place, "laptop") as host:
        for _ in range(3):
            reach = await knock(host, info.peer_id, info.addrs)
            assert (reach.state, reach.reason) == ("reachable", "")
            assert reach.round_trip_s is not None
            assert 0 < reach.round_trip_s < 1
        assert await pages.value(names.SESSIONS_OPENED, model="tiny") == 0
        assert await pages.value(names.SESSIONS_ENDED, how="closed") == 0
        assert await pages.value(names.CONNECTIONS) == 1  # it is kept for the next knock


async def test_a_server_that_does_not_know_who_knocks_refuses(place: Place) -> None:
    async with serving(place.config) as (info, _, _), dialler(place, "phone") as host:
        reach = await knock(host, info.peer_id, info.addrs)
        assert (reach.state, reach.round_trip_s) == ("refuses", None)
        assert reach.reason


async def test_a_server_that_is_not_there_is_down_with_a_reason(place: Place) -> None:
    async with dialler(place, "laptop") as host:
        reach = await knock(host, place.ids["anna"].peer_id, ("/ip4/127.0.0.1/tcp/1",))
        assert (reach.state, reach.round_trip_s) == ("down", None)
        assert "refused" in reach.reason


async def test_a_server_that_leaves_says_so(place: Place, lane: ComputeLane) -> None:
    server = BlockServer(lane, KVBudget(1, 1), epoch=1)
    async with answering(place, server.handle) as anna, dialler(place, "laptop") as host:
        assert (await knock(host, anna.peer_id, anna.addrs)).state == "reachable"
        server.leaving = True
        reach = await knock(host, anna.peer_id, anna.addrs)
        assert (reach.state, reach.reason) == (
            "leaving",
            "the peer says: the server is shutting down",
        )


async def test_a_node_that_takes_the_knock_and_says_nothing_is_silent(place: Place) -> None:
    async def never(stream: object) -> None:
        await trio.sleep_forever()

    async with answering(place, never) as anna, dialler(place, "laptop") as host:
        reach = await knock(host, anna.peer_id, anna.addrs)
        assert (reach.state, reach.round_trip_s) == ("silent", None)


async def test_peers_are_watched_until_others_are_and_a_dead_one_delays_nobody(
    place: Place,
    nursery: trio.Nursery,
) -> None:
    async with serving(place.config) as (info, leave, ended), dialler(place, "laptop") as host:
        watch = ReachWatch(host, interval_s=0.05)
        dead = place.ids["ben"].peer_id
        assert watch.of(info.peer_id).state == "unknown"
        watch.watch(nursery, {info.peer_id: info.addrs, dead: ("/ip4/127.0.0.1/tcp/1",)})

        async def until(peer_id: str, state: str) -> None:
            with trio.fail_after(20):
                while watch.of(peer_id).state != state:  # noqa: ASYNC110
                    await trio.sleep(0.01)

        await until(info.peer_id, "reachable")
        await until(dead, "down")
        watch.watch(nursery, {info.peer_id: info.addrs})
        assert watch.of(dead).state == "unknown"
        assert watch.of(info.peer_id).state == "reachable"
        leave.set()
        await ended.wait()
        with trio.fail_after(20):
            while watch.of(info.peer_id).state == "reachable":  # noqa: ASYNC110
                await trio.sleep(0.01)


@pytest.mark.parametrize("times", [1, 2])
async def test_one_knock_at_each_is_enough_to_know_all(place: Place, times: int) -> None:
    async with serving(place.config) as (info, _, _), dialler(place, "laptop") as host:
        watch = ReachWatch(host)
        for _ in range(times):
            await watch.knock_once({info.peer_id: info.addrs, place.ids["ben"].peer_id: ()})
        assert watch.of(info.peer_id).state == "reachable"
        assert watch.of(place.ids["ben"].peer_id).state == "down"
