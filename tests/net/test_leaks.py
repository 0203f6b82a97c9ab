"""A host that was connected to many times has no more tasks, links or streams than before."""

from __future__ import annotations

import pytest
import trio

from gptnode.net.host import Host, PeerStream, open_host
from tests.net.hosts import (
    LOOPBACK,
    everyone,
    muxed_streams,
    new_identity,
    round_trip,
    server_and_client,
    until,
)

pytestmark = pytest.mark.usefixtures("each_muxer")


def tasks() -> int:
    return trio.lowlevel.current_statistics().tasks_living


async def settled() -> int:
    """The number of tasks once it doesn't change any more: a connection starts several."""
    before, same = tasks(), 0
    while same < 20:
        await trio.sleep(0.005)
        now = tasks()
        before, same = now, same + 1 if now == before else 0
    return before


async def back_to(baseline: int, server: Host) -> None:
    await until(lambda: tasks() <= baseline and not server.strangers())


async def test_connections_opened_and_closed_leave_no_task_behind() -> None:
    async with server_and_client() as (server, client):
        await client.disconnect(server.peer_id)
        await until(lambda: server.connected() == ())
        baseline = await settled()
        for _ in range(60):
            await client.connect(server.peer_id, server.addrs)
            await client.disconnect(server.peer_id)
        await back_to(baseline, server)
        assert server._links == client._links == {}
        assert client._dialling == {}


@pytest.mark.parametrize("said", [b"", b"\x13/multistream/1.0.0\n", b"\xff" * 40])
async def test_strangers_that_come_and_go_leave_no_task_behind(said: bytes) -> None:
    async with server_and_client() as (server, _):
        port = int(server.addrs[0].split("/")[4])
        baseline = await settled()
        for _ in range(60):
            async with await trio.open_tcp_stream("127.0.0.1", port) as raw:
                await raw.send_all(said)
        await back_to(baseline, server)


async def test_refused_peers_leave_no_task_behind() -> None:
    async with open_host(
        new_identity(), listen=LOOPBACK, allow=lambda _: False, handler=_never
    ) as server:
        baseline = await settled()
        for _ in range(20):
            async with open_host(new_identity(), allow=everyone) as stranger:
                with pytest.raises(Exception, match="refuses this node"):
                    await stranger.connect(server.peer_id, server.addrs)
        await back_to(baseline, server)
        assert server._links == {}


async def test_streams_opened_and_broken_off_leave_no_task_behind() -> None:
    async with server_and_client() as (server, client):
        async with await client.open_stream(server.peer_id) as stream:
            assert await round_trip(stream, b"x") == b"x"
        await until(lambda: muxed_streams(server) == muxed_streams(client) == 0)
        baseline = await settled()
        for number in range(90):
            stream = await client.open_stream(server.peer_id)
            await stream.send_all(b"some")
            if number % 3:
                await stream.reset()
            else:
                await stream.aclose()
        await until(lambda: muxed_streams(server) == muxed_streams(client) == 0)
        await back_to(baseline, server)


async def _never(_: PeerStream) -> None:
    raise AssertionError("a refused peer reached the handler")
