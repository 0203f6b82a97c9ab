"""Dialling: addresses, deadlines, reasons."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from gptnode.errors import (
    PeerTimeoutError,
    PeerUnreachableError,
)
from gptnode.net.host import open_host
from tests.net.hosts import (
    LOOPBACK,
    echo,
    everyone,
    new_identity,
    server_and_client,
    until,
)


async def test_connecting_twice_is_one_connection() -> None:
    async with server_and_client() as (server, client):
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(client.connect, server.peer_id, server.addrs)
        assert len(client._links[server.peer_id]) == 1


async def test_five_connects_at_once_are_one_connection() -> None:
    async with (
        open_host(new_identity(), listen=LOOPBACK, allow=everyone, handler=echo) as server,
        open_host(new_identity(), allow=everyone) as client,
    ):
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(client.connect, server.peer_id, server.addrs)
        assert len(client._links[server.peer_id]) == 1


async def test_every_address_that_failed_is_named_with_its_reason() -> None:
    async with open_host(new_identity(), allow=everyone) as client:
        free = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = free[0].socket.getsockname()[1]
        await free[0].aclose()
        addrs = [
            f"/ip4/127.0.0.1/tcp/{port}",
            "/dns/no-such-host.invalid/tcp/1",
            "/ip4/1.2.3.4/udp/1",
        ]
        with pytest.raises(PeerUnreachableError) as caught:
            await client.connect(new_identity().peer_id, addrs)
        assert f"at {addrs[0]}: connection refused" in caught.value.detail
        assert f"at {addrs[1]}: " in caught.value.detail
        assert "not over TCP" in caught.value.detail
        assert "\n" not in caught.value.detail


async def test_the_second_address_is_tried_after_the_first_failed() -> None:
    async with (
        open_host(new_identity(), listen=LOOPBACK, allow=everyone, handler=echo) as server,
        open_host(new_identity(), allow=everyone) as client,
    ):
        silent = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = silent[0].socket.getsockname()[1]
        addrs = ["nonsense", f"/ip4/127.0.0.1/tcp/{port}", server.addrs[0]]
        await client.connect(server.peer_id, addrs, timeout_s=2.0)
        assert client.connected() == (server.peer_id,)
        await silent[0].aclose()


async def test_a_failed_dial_can_be_repeated_at_once() -> None:
    """Canary of a trap: the stock swarm doesn't redial for 60 s."""
    async with (
        open_host(new_identity(), listen=LOOPBACK, allow=everyone, handler=echo) as server,
        open_host(new_identity(), allow=everyone) as client,
    ):
        for _ in range(3):
            with pytest.raises(PeerUnreachableError):
                await client.connect(server.peer_id, ["/ip4/127.0.0.1/tcp/1"])
        await client.connect(server.peer_id, server.addrs)


async def test_a_silent_listener_times_out_within_the_deadline() -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    async with open_host(new_identity(), allow=everyone) as client:
        with pytest.raises(PeerUnreachableError, match="timed out"), trio.fail_after(5):
            await client.connect(
                new_identity().peer_id, [f"/ip4/127.0.0.1/tcp/{port}"], timeout_s=0.3
            )
    await listeners[0].aclose()


async def test_another_peer_behind_the_address_is_told_by_its_id() -> None:
    async with (
        open_host(new_identity(), listen=LOOPBACK, allow=everyone, handler=echo) as server,
        open_host(new_identity(), allow=everyone) as client,
    ):
        expected = new_identity().peer_id
        addr = server.addrs[0].partition("/p2p/")[0]
        with pytest.raises(PeerUnreachableError, match="another peer answers there") as caught:
            await client.connect(expected, [addr])
        assert server.peer_id in caught.value.detail
        with pytest.raises(PeerUnreachableError, match="another peer"):
            await client.connect(expected, server.addrs)
        assert client.connected() == ()


async def test_a_program_that_hangs_up_at_once_is_unreachable_not_refusing() -> None:
    async def hang_up(stream: trio.SocketStream) -> None:
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, hang_up, listeners)
        port = listeners[0].socket.getsockname()[1]
        async with open_host(new_identity(), allow=everyone) as client:
            with pytest.raises(PeerUnreachableError, match="no libp2p node"):
                await client.connect(new_identity().peer_id, [f"/ip4/127.0.0.1/tcp/{port}"])
        nursery.cancel_scope.cancel()


async def test_a_frozen_peer_times_out_and_is_dialled_anew() -> None:
    """The peer's kernel goes on, its process doesn't: a relay that stops stands for it."""
    async with (
        open_host(new_identity(), listen=LOOPBACK, allow=everyone, handler=echo) as server,
        open_host(new_identity(), allow=everyone) as client,
        trio.open_nursery() as nursery,
    ):
        frozen = False
        server_port = int(server.addrs[0].split("/")[4])

        async def pump(source: trio.SocketStream, sink: trio.SocketStream) -> None:
            async for data in source:
                if frozen:
                    await trio.sleep_forever()
                await sink.send_all(data)

        async def relay(inward: trio.SocketStream) -> None:
            outward = await trio.open_tcp_stream("127.0.0.1", server_port)
            async with inward, outward, trio.open_nursery() as pumps:
                pumps.start_soon(pump, inward, outward)
                pumps.start_soon(pump, outward, inward)

        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, relay, listeners)
        port = listeners[0].socket.getsockname()[1]
        await client.connect(server.peer_id, [f"/ip4/127.0.0.1/tcp/{port}"])
        await client.open_stream(server.peer_id)
        frozen = True
        with pytest.raises(PeerTimeoutError, match="didn't answer"):
            await client.open_stream(server.peer_id, timeout_s=0.3)
        await until(lambda: client.connected() == ())
        await client.connect(server.peer_id, server.addrs)
        await client.open_stream(server.peer_id)
        nursery.cancel_scope.cancel()


async def test_streams_need_a_connection() -> None:
    async with open_host(new_identity(), allow=everyone) as client:
        with pytest.raises(PeerUnreachableError, match="not connected"):
            await client.open_stream(new_identity().peer_id)
        with pytest.raises(PeerUnreachableError, match="itself"):
            await client.connect(client.peer_id, LOOPBACK)
        with pytest.raises(PeerUnreachableError, match="no address"):
            await client.connect(new_identity().peer_id, [])
        await client.disconnect(new_identity().peer_id)
