"""Hosts: where they listen, how they live and what they leave behind."""

from __future__ import annotations

import os
import socket
import sys

import pytest
import trio
import trio.testing

from gptnode.errors import (
    NetworkError,
    PeerUnreachableError,
)
from gptnode.net.host import PeerStream, open_host
from tests.net.hosts import (
    LOOPBACK,
    echo,
    everyone,
    new_identity,
    round_trip,
    server_and_client,
    until,
)


async def test_addresses_name_the_real_port_and_the_peer() -> None:
    async with open_host(new_identity(), listen=LOOPBACK, allow=everyone) as host:
        [addr] = host.addrs
        _, _, ip, _, port, _, peer_id = addr.split("/")
        assert (ip, peer_id) == ("127.0.0.1", host.peer_id)
        assert int(port) > 0


async def test_the_wildcard_becomes_interface_addresses_with_loopback_last() -> None:
    async with open_host(new_identity(), listen=["/ip4/0.0.0.0/tcp/0"], allow=everyone) as host:
        assert host.addrs[-1].startswith("/ip4/127.0.0.1/tcp/")
        assert not any("/0.0.0.0/" in addr for addr in host.addrs)
        async with open_host(new_identity(), allow=everyone) as client:
            for addr in host.addrs:
                await client.connect(host.peer_id, [addr])
                await client.disconnect(host.peer_id)


async def test_ipv6_works() -> None:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            pass
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")
    async with (
        open_host(
            new_identity(), listen=["/ip6/::1/tcp/0"], allow=everyone, handler=echo
        ) as server,
        open_host(new_identity(), allow=everyone) as client,
    ):
        await client.connect(server.peer_id, server.addrs)
        async with await client.open_stream(server.peer_id) as stream:
            assert await round_trip(stream, b"six") == b"six"


async def test_a_port_in_use_is_named() -> None:
    """Canary of a trap: the stock TCP sets SO_REUSEPORT, and two nodes share a port in silence."""
    async with open_host(new_identity(), listen=LOOPBACK, allow=everyone) as host:
        addr = host.addrs[0].partition("/p2p/")[0]
        with pytest.raises(NetworkError, match="port is in use") as caught:
            async with open_host(new_identity(), listen=[addr], allow=everyone):
                pytest.fail("it listens on a port in use")
        assert addr in caught.value.detail


@pytest.mark.parametrize(
    "addr",
    ["", "127.0.0.1:4001", "/ip4/127.0.0.1", "/ip4/300.0.0.1/tcp/1", "/ip4/127.0.0.1/tcp/70000",
     "/ip4/127.0.0.1/udp/4001/quic-v1", "/dns/localhost/tcp/0", "/ip4/192.0.2.1/tcp/0"],
)  # fmt: skip
async def test_what_cannot_be_listened_on_is_a_network_error(addr: str) -> None:
    with pytest.raises(NetworkError):
        async with open_host(new_identity(), listen=[addr], allow=everyone):
            pytest.fail("it listens")


async def test_three_hundred_connections_one_after_another_leak_nothing() -> None:
    """Canary of a trap: the stock host accepts no 251st inbound connection in its life."""
    psutil = pytest.importorskip("psutil")
    process = psutil.Process()
    async with open_host(new_identity(), listen=LOOPBACK, allow=everyone, handler=echo) as server:

        async def cycles(count: int) -> None:
            async with open_host(new_identity(), allow=everyone) as client:
                for _ in range(count):
                    await client.connect(server.peer_id, server.addrs)
                    stream = await client.open_stream(server.peer_id)
                    assert await round_trip(stream, b"x") == b"x"
                    await client.disconnect(server.peer_id)

        await cycles(3)
        await until(lambda: server.connected() == ())
        tasks = trio.lowlevel.current_statistics().tasks_living
        descriptors = process.num_fds()
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(cycles, 30)
        await until(lambda: server.connected() == ())
        await until(lambda: trio.lowlevel.current_statistics().tasks_living <= tasks)
        await until(lambda: process.num_fds() <= descriptors)
        assert server._links == {}
        assert server._slots._used == {}
        assert server.strangers() == ()


async def test_leaving_the_block_ends_handlers_connections_and_listeners() -> None:
    tasks = trio.lowlevel.current_statistics().tasks_living
    ended: list[str] = []

    async def handler(stream: PeerStream) -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append(stream.peer_id)

    async with open_host(new_identity(), allow=everyone) as client:
        with trio.fail_after(5):
            async with open_host(
                new_identity(), listen=LOOPBACK, allow=everyone, handler=handler
            ) as server:
                await client.connect(server.peer_id, server.addrs)
                streams = [await client.open_stream(server.peer_id) for _ in range(5)]
        assert ended == [client.peer_id] * 5
        for stream in streams:
            with pytest.raises(trio.BrokenResourceError):
                await stream.receive_some()
        with pytest.raises(PeerUnreachableError, match="connection refused"):
            await client.connect(server.peer_id, server.addrs)
    await until(lambda: trio.lowlevel.current_statistics().tasks_living <= tasks)


async def test_what_the_block_raises_comes_out_as_it_is() -> None:
    class OwnError(Exception):
        pass

    error = OwnError("mine")
    with pytest.raises(OwnError) as caught:
        async with server_and_client():
            raise error
    assert caught.value is error
    group = ExceptionGroup("mine too", [ValueError()])
    with pytest.raises(ExceptionGroup) as caught_group:
        async with server_and_client():
            raise group
    assert caught_group.value is group


async def test_an_interrupt_in_a_handler_comes_out_as_an_interrupt() -> None:
    async def interrupted(_: PeerStream) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        async with server_and_client(interrupted) as (server, client):
            await client.open_stream(server.peer_id)
            await trio.sleep_forever()


async def test_cancelling_around_a_host_ends_it_cleanly() -> None:
    tasks = trio.lowlevel.current_statistics().tasks_living
    with trio.move_on_after(0.3) as scope:
        async with server_and_client() as (server, client):
            await client.open_stream(server.peer_id)
            await trio.sleep_forever()
    assert scope.cancelled_caught
    await until(lambda: trio.lowlevel.current_statistics().tasks_living <= tasks)


async def test_the_library_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    program = """
import trio
import trio.testing
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from gptnode.errors import NetworkError
from gptnode.net.host import open_host
from gptnode.net.identity import Identity

async def main():
    ids = [Identity(Ed25519PrivateKey.generate()) for _ in range(3)]
    listed = {ids[1].peer_id}
    listen = ["/ip4/127.0.0.1/tcp/0"]
    async with open_host(ids[0], listen=listen, allow=listed.__contains__) as server:
        for one, expected in ((ids[1], ids[2].peer_id), (ids[2], ids[0].peer_id)):
            async with open_host(one, allow=lambda _: True) as client:
                for addr in (server.addrs[0].partition("/p2p/")[0], "/ip4/127.0.0.1/tcp/1"):
                    try:
                        await client.connect(expected, [addr])
                    except NetworkError:
                        pass
        async with open_host(ids[1], allow=lambda _: True) as client:
            await client.connect(ids[0].peer_id, server.addrs)

trio.run(main)
"""
    environment = {name: value for name, value in os.environ.items() if name != "LIBP2P_DEBUG"}
    done = await trio.run_process(
        [sys.executable, "-c", program], capture_stdout=True, capture_stderr=True, env=environment
    )
    assert done.stdout == b""
    assert done.stderr == b""
