"""A server that leaves: sessions end after their step, clients are told, nobody new gets in."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import torch
import trio
import trio.testing

from gptnode.errors import GptNodeError, PeerBusyError, StreamLostError
from gptnode.net.client_channel import ClientChannel
from gptnode.node.block_server import BlockServer
from gptnode.node.compute import ComputeLane
from gptnode.node.loading import ModelSource
from gptnode.span import Span

from .conftest import MemoryHost
from .test_block_server import hidden, open_for, opening, session, step

ALL = Span(0, 4)
MakeServer = Callable[..., BlockServer]


async def drained(server: BlockServer) -> None:
    with trio.fail_after(5):
        await server.drain()


async def test_a_server_without_sessions_leaves_at_once(make_server: MakeServer) -> None:
    server = make_server(ALL)
    with trio.fail_after(1):
        await server.drain()
    assert server.leaving


async def test_an_idle_session_is_told_that_the_server_goes_away(
    host: MemoryHost, make_server: MakeServer, source: ModelSource
) -> None:
    server = host.servers["anna"] = make_server(ALL)
    async with session(host, "anna", open_for(source)) as (channel, _):
        await step(channel, 0, hidden(3))
        await drained(server)
        with pytest.raises(StreamLostError, match="shutting down"):
            await step(channel, 3, hidden(1))


async def test_the_step_under_way_is_answered_before_that(
    host: MemoryHost, make_server: MakeServer, source: ModelSource, lane: ComputeLane
) -> None:
    server = host.servers["anna"] = make_server(ALL)
    stack = source.load_blocks(ALL)
    x = hidden(3)
    expected = stack(x, stack.new_cache(8))
    busy = threading.Event()
    got: list[torch.Tensor] = []
    async with session(host, "anna", open_for(source)) as (channel, _):

        async def ask() -> None:
            got.append(await step(channel, 0, x))

        async with trio.open_nursery() as nursery:
            lane.run_soon(busy.wait)
            nursery.start_soon(ask)
            with trio.fail_after(5):
                while not server_steps(server):  # noqa: ASYNC110
                    await trio.sleep(0.001)
            nursery.start_soon(drained, server)
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert not got
            busy.set()
        assert torch.equal(got[0], expected)
        with pytest.raises(StreamLostError, match="shutting down"):
            await step(channel, 3, hidden(1))


def server_steps(server: BlockServer) -> bool:
    """Whether its one session is busy with a request and not waiting for one."""
    return server._streams == 1 and not server._idle


async def test_a_new_session_is_refused_with_going_away(
    host: MemoryHost, make_server: MakeServer, source: ModelSource
) -> None:
    server = host.servers["anna"] = make_server(ALL)
    await drained(server)
    refusal = await opening(host, open_for(source))
    assert isinstance(refusal, StreamLostError)
    assert "shutting down" in refusal.detail


async def test_a_client_that_has_not_opened_yet_does_not_hold_a_leaving_server(
    host: MemoryHost, make_server: MakeServer
) -> None:
    server = host.servers["anna"] = make_server(ALL)
    channel = ClientChannel(await host.open_stream("anna"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(channel.run)
        await trio.testing.wait_all_tasks_blocked()
        await drained(server)
        assert isinstance(channel.lost, GptNodeError)


async def test_the_caches_of_sessions_that_were_handed_over_are_given_back(
    host: MemoryHost, make_server: MakeServer, source: ModelSource
) -> None:
    server = host.servers["anna"] = make_server(ALL)
    async with (
        session(host, "anna", open_for(source)) as (first, _),
        session(host, "anna", open_for(source)),
    ):
        await step(first, 0, hidden(3))
        assert server._budget.total.sessions == 2
        await drained(server)
        assert server._budget.total.n_bytes == 0


async def test_one_peer_that_has_its_share_is_busy_and_another_gets_in(
    host: MemoryHost, nursery: trio.Nursery, make_server: MakeServer, source: ModelSource
) -> None:
    server = host.servers["anna"] = make_server(ALL)
    server._budget.max_peer_sessions = 1
    other = MemoryHost("other", nursery)
    other.servers["anna"] = server
    async with session(host, "anna", open_for(source)):
        refusal = await opening(host, open_for(source))
        assert isinstance(refusal, PeerBusyError)
        assert refusal.retry_after_s > 0
        async with session(other, "anna", open_for(source)) as (channel, _):
            await step(channel, 0, hidden(1))


async def test_blocks_that_are_being_loaded_are_a_reason_to_come_back(
    host: MemoryHost, make_server: MakeServer, source: ModelSource
) -> None:
    server = host.servers["anna"] = make_server(Span(0, 2))
    server.loading = True
    refusal = await opening(host, open_for(source, ALL))
    assert isinstance(refusal, PeerBusyError)
    async with session(host, "anna", open_for(source, Span(0, 2))) as (channel, _):
        await step(channel, 0, hidden(1))
