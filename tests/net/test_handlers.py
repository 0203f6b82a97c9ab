"""Handlers of streams: they may fail, be many, or be missing."""

from __future__ import annotations

import logging

import pytest
import trio
import trio.testing

from gptnode.errors import (
    PeerBusyError,
    PeerUnreachableError,
)
from gptnode.net.host import PeerStream
from gptnode.net.yamux_muxer import YamuxMuxer
from tests.net.hosts import (
    muxed_streams,
    read_all,
    read_exactly,
    round_trip,
    server_and_client,
    until,
)

pytestmark = pytest.mark.usefixtures("each_muxer")


async def test_a_failing_handler_ends_its_stream_and_nothing_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fail_if_asked(stream: PeerStream) -> None:
        if await read_exactly(stream, 1) == b"!":
            raise RuntimeError("the handler is broken")
        await stream.send_all(b"fine")

    async with server_and_client(fail_if_asked) as (server, client):
        bad = await client.open_stream(server.peer_id)
        await bad.send_all(b"!")
        with pytest.raises(trio.BrokenResourceError):
            await bad.receive_some()
        good = await client.open_stream(server.peer_id)
        await good.send_all(b".")
        assert await read_all(good) == b"fine"
    [record] = [one for one in caplog.records if one.levelno >= logging.ERROR]
    assert record.name == "gptnode.net"
    assert record.exc_info is not None
    assert "the handler is broken" in str(record.exc_info[1])


async def test_a_client_without_a_handler_says_that_it_serves_nothing() -> None:
    async with server_and_client() as (server, client):
        await until(lambda: server.connected() == (client.peer_id,))
        with pytest.raises(PeerUnreachableError, match="no block server"):
            await server.open_stream(client.peer_id)
        async with await client.open_stream(server.peer_id) as stream:
            assert await round_trip(stream, b"x") == b"x"


async def test_a_peer_gets_a_bounded_number_of_streams() -> None:
    async with server_and_client() as (server, client):
        streams = [await client.open_stream(server.peer_id) for _ in range(32)]
        with pytest.raises(PeerBusyError):
            await client.open_stream(server.peer_id)
        await streams.pop().reset()
        streams[0].peer_id  # noqa: B018  the others live on
        assert await round_trip(streams[0], b"x") == b"x"
        with trio.fail_after(5):
            while True:
                try:
                    last = await client.open_stream(server.peer_id)
                except PeerBusyError:
                    await trio.sleep(0.01)  # its handler hasn't ended yet
                else:
                    break
        assert await round_trip(last, b"y") == b"y"


async def test_many_short_streams_leave_nothing_behind() -> None:
    async with server_and_client() as (server, client):
        async with await client.open_stream(server.peer_id) as stream:
            await round_trip(stream, b"x")
        await until(lambda: muxed_streams(client) == 0 and muxed_streams(server) == 0)
        tasks = trio.lowlevel.current_statistics().tasks_living
        for _ in range(300):
            async with await client.open_stream(server.peer_id) as stream:
                await round_trip(stream, b"x")
        await until(lambda: muxed_streams(client) == 0 and muxed_streams(server) == 0)
        await until(lambda: trio.lowlevel.current_statistics().tasks_living <= tasks)
        for host in (server, client):
            [[link]] = host._links.values()
            muxer = link._muxer
            if isinstance(muxer, YamuxMuxer):
                assert muxer._unreleased == muxer._tails == {}
            else:
                assert len(muxer._reading) == len(muxer._writing) == 0
                assert muxer._state.unread_bytes == muxer._state.granted_bytes == 0
                assert not muxer._opened
