"""Hosts over real loopback sockets, in one trio run: what they give, refuse, survive and give back."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from libp2p import new_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_new_x25519_key_pair
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.security.insecure.transport import PLAINTEXT_PROTOCOL_ID, InsecureTransport
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX
from libp2p.stream_muxer.yamux.yamux import Yamux
from multiaddr import Multiaddr

from gptnode.errors import (
    NetworkError,
    PeerBusyError,
    PeerRefusedError,
    PeerTimeoutError,
    PeerUnreachableError,
)
from gptnode.net import host as host_module
from gptnode.net.host import PROTOCOL, Host, PeerStream, open_host
from gptnode.net.identity import Identity

LOOPBACK = ("/ip4/127.0.0.1/tcp/0",)


def new_identity() -> Identity:
    return Identity(Ed25519PrivateKey.generate())


def everyone(_: str) -> bool:
    return True


async def echo(stream: PeerStream) -> None:
    while data := await stream.receive_some():
        await stream.send_all(data)


async def read_exactly(stream: PeerStream, n_bytes: int) -> bytes:
    parts = []
    while n_bytes:
        data = await stream.receive_some(n_bytes)
        if not data:
            raise EOFError
        parts.append(data)
        n_bytes -= len(data)
    return b"".join(parts)


async def read_all(stream: PeerStream) -> bytes:
    parts = []
    while data := await stream.receive_some():
        parts.append(data)
    return b"".join(parts)


async def round_trip(stream: PeerStream, data: bytes) -> bytes:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.send_all, data)
        return await read_exactly(stream, len(data))


@asynccontextmanager
async def server_and_client(handler=echo) -> AsyncIterator[tuple[Host, Host]]:  # type: ignore[no-untyped-def]
    """A listening host and one that is connected to it."""
    server_id, client_id = new_identity(), new_identity()
    async with (
        open_host(
            server_id, listen=LOOPBACK, allow={client_id.peer_id}.__contains__, handler=handler
        ) as server,
        open_host(client_id, allow={server_id.peer_id}.__contains__) as client,
    ):
        await client.connect(server.peer_id, server.addrs)
        yield server, client


async def until(condition) -> None:  # type: ignore[no-untyped-def]
    with trio.fail_after(10):
        while not condition():
            await trio.sleep(0.005)


# -- streams ---------------------------------------------------------------------------------------


async def test_a_mebibyte_is_echoed_in_both_directions() -> None:
    async with server_and_client() as (server, client):
        data = os.urandom(1 << 20)
        async with await client.open_stream(server.peer_id) as stream:
            assert stream.peer_id == server.peer_id
            for _ in range(3):
                assert await round_trip(stream, data) == data


async def test_either_side_of_a_connection_opens_streams() -> None:
    server_id, client_id = new_identity(), new_identity()
    async with (
        open_host(server_id, listen=LOOPBACK, allow=everyone, handler=echo) as server,
        open_host(client_id, allow=everyone, handler=echo) as client,
    ):
        await client.connect(server.peer_id, server.addrs)
        await until(lambda: server.connected() == (client.peer_id,))
        assert client.connected() == (server.peer_id,)
        async with await server.open_stream(client.peer_id) as stream:
            assert await round_trip(stream, b"hello") == b"hello"


async def test_the_handler_knows_who_opened_the_stream() -> None:
    seen: list[str] = []

    async def handler(stream: PeerStream) -> None:
        seen.append(stream.peer_id)

    async with server_and_client(handler) as (server, client):
        stream = await client.open_stream(server.peer_id)
        assert await stream.receive_some() == b""
        assert seen == [client.peer_id]


async def test_twenty_streams_run_at_once_without_mixing() -> None:
    async with server_and_client() as (server, client):

        async def one(seed: int) -> None:
            data = bytes([seed]) * (200_000 + seed)
            async with await client.open_stream(server.peer_id) as stream:
                for _ in range(3):
                    assert await round_trip(stream, data) == data

        async with trio.open_nursery() as nursery:
            for seed in range(20):
                nursery.start_soon(one, seed)


async def test_both_directions_saturated_by_several_streams_do_not_deadlock() -> None:
    """Canary of a trap: stock Yamux stops for ever in this (pings are answered inline)."""
    total = 4 << 20

    async def sink_and_source(stream: PeerStream) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, bytes(total))
            assert len(await read_exactly(stream, total)) == total

    async with server_and_client(sink_and_source) as (server, client):

        async def one() -> None:
            async with await client.open_stream(server.peer_id) as stream:
                await sink_and_source(stream)

        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for _ in range(4):
                    nursery.start_soon(one)


async def test_the_end_arrives_after_all_bytes() -> None:
    async def answer(stream: PeerStream) -> None:
        await stream.send_all(bytes(300_000))

    async with server_and_client(answer) as (server, client):
        stream = await client.open_stream(server.peer_id)
        assert len(await read_all(stream)) == 300_000
        assert await stream.receive_some() == b""


async def test_the_last_words_of_a_peer_that_leaves_are_still_read() -> None:
    """Canary of a trap: stock Yamux drops unread bytes when the connection ends."""
    server_id, client_id = new_identity(), new_identity()
    async with open_host(client_id, allow=everyone) as client:
        said = trio.Event()

        async def speak(stream: PeerStream) -> None:
            await stream.send_all(b"going away")
            await stream.aclose()
            said.set()

        async with open_host(server_id, listen=LOOPBACK, allow=everyone, handler=speak) as server:
            await client.connect(server.peer_id, server.addrs)
            stream = await client.open_stream(server.peer_id)
            await said.wait()
        await until(lambda: client.connected() == ())
        assert await read_all(stream) == b"going away"


async def test_a_connection_lost_in_the_middle_is_an_error_not_an_end() -> None:
    async def say_half(stream: PeerStream) -> None:
        await stream.send_all(b"half")
        await trio.sleep_forever()

    async with server_and_client(say_half) as (server, client):
        stream = await client.open_stream(server.peer_id)
        assert await read_exactly(stream, 4) == b"half"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.disconnect, client.peer_id)
            with pytest.raises(trio.BrokenResourceError), trio.fail_after(5):
                await stream.receive_some()
        with pytest.raises(trio.BrokenResourceError):
            await stream.send_all(b"anyone?")
        await stream.aclose()


KILLED_SERVER = """
import sys, trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from gptnode.net.host import open_host
from gptnode.net.identity import Identity

async def handler(stream):
    await stream.send_all(b"alive")
    await trio.sleep_forever()

async def main():
    async with open_host(Identity(Ed25519PrivateKey.generate()), listen=["/ip4/127.0.0.1/tcp/0"],
                         allow=lambda _: True, handler=handler) as host:
        print(host.addrs[0], flush=True)
        await trio.sleep_forever()

trio.run(main)
"""


async def test_a_killed_peer_is_an_error_in_the_middle_of_a_read() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED_SERVER], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        addr = (await trio.to_thread.run_sync(process.stdout.readline)).strip()
        peer_id = addr.rpartition("/")[2]
        async with open_host(new_identity(), allow=everyone) as client:
            await client.connect(peer_id, [addr])
            stream = await client.open_stream(peer_id)
            assert await read_exactly(stream, 5) == b"alive"
            process.kill()
            with pytest.raises(trio.BrokenResourceError), trio.fail_after(5):
                await stream.receive_some()
            await until(lambda: client.connected() == ())
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


async def test_a_cancelled_receive_takes_nothing() -> None:
    async with server_and_client() as (server, client):
        stream = await client.open_stream(server.peer_id)
        got = bytearray()
        data = os.urandom(400_000)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, data)
            step = 0
            while len(got) < len(data):
                step += 1
                with trio.CancelScope() as scope:
                    if step % 2:
                        scope.cancel()
                    got += await stream.receive_some(1000)
        assert bytes(got) == data


async def test_a_cancelled_send_resets_its_stream_and_spares_the_others() -> None:
    """Canary of a trap: with the stock stack the whole connection is dead after this."""
    results: list[str] = []

    async def stall_then_read(stream: PeerStream) -> None:
        first = await read_exactly(stream, 1)
        if first == b"e":
            await echo(stream)
            return
        await trio.sleep(0.2)
        try:
            await read_all(stream)
            results.append("end")
        except trio.BrokenResourceError:
            results.append("broken")

    async with server_and_client(stall_then_read) as (server, client):
        other = await client.open_stream(server.peer_id)
        await other.send_all(b"e")
        stream = await client.open_stream(server.peer_id)
        await stream.send_all(b"s")
        with trio.move_on_after(0.1) as scope:
            await stream.send_all(bytes(50 << 20))
        assert scope.cancelled_caught
        with pytest.raises(trio.ClosedResourceError):
            await stream.send_all(b"more")
        await until(lambda: results == ["broken"])
        assert await round_trip(other, b"still here") == b"still here"
        assert client.connected() == (server.peer_id,)


async def test_a_send_waits_longer_than_five_seconds_for_a_slow_reader() -> None:
    """Canary of a trap: the stock stream gives up after 5 s of a closed window."""

    received: list[int] = []

    async def slow(stream: PeerStream) -> None:
        await trio.sleep(5.5)
        received.append(len(await read_all(stream)))

    async with server_and_client(slow) as (server, client):
        stream = await client.open_stream(server.peer_id)
        started = trio.current_time()
        await stream.send_all(bytes(1 << 20))
        assert trio.current_time() - started > 5  # else nothing had to wait
        await stream.aclose()
        await until(lambda: received == [1 << 20])


async def test_closing_wakes_a_task_that_receives() -> None:
    async with server_and_client() as (server, client):
        stream = await client.open_stream(server.peer_id)

        async def receive() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await stream.receive_some()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            await trio.testing.wait_all_tasks_blocked()
            await stream.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await stream.receive_some()
        with pytest.raises(trio.ClosedResourceError):
            await stream.send_all(b"x")
        await stream.aclose()


async def test_a_forceful_close_and_a_reset_are_seen_as_broken() -> None:
    ends: list[str] = []

    async def handler(stream: PeerStream) -> None:
        try:
            await read_all(stream)
            ends.append("end")
        except trio.BrokenResourceError:
            ends.append("broken")

    async with server_and_client(handler) as (server, client):
        for _ in range(2):
            stream = await client.open_stream(server.peer_id)
            await stream.send_all(b"x")
            await trio.aclose_forcefully(stream)
        stream = await client.open_stream(server.peer_id)
        await stream.reset()
        stream = await client.open_stream(server.peer_id)
        await stream.aclose()
        await until(lambda: len(ends) == 4)
        assert sorted(ends) == ["broken", "broken", "broken", "end"]


async def test_two_tasks_in_one_direction_are_refused() -> None:
    async with server_and_client() as (server, client):
        stream = await client.open_stream(server.peer_id)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.receive_some)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await stream.receive_some()
            nursery.cancel_scope.cancel()


# -- handlers --------------------------------------------------------------------------------------


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


def muxed_streams(host: Host) -> int:
    return sum(len(link._muxer.streams) for links in host._links.values() for link in links)


# -- who gets in -----------------------------------------------------------------------------------


async def test_an_unlisted_dialer_is_refused_and_reaches_no_handler() -> None:
    handled: list[str] = []

    async def handler(stream: PeerStream) -> None:
        handled.append(stream.peer_id)

    asked: list[str] = []

    def nobody(peer_id: str) -> bool:
        asked.append(peer_id)
        return False

    stranger = new_identity()
    async with (
        open_host(new_identity(), listen=LOOPBACK, allow=nobody, handler=handler) as server,
        open_host(stranger, allow=everyone) as client,
    ):
        with pytest.raises(PeerRefusedError, match="refuses this node"):
            await client.connect(server.peer_id, server.addrs)
        assert asked == [stranger.peer_id]
        assert client.connected() == server.connected() == ()
        assert handled == []


async def test_a_peer_off_the_own_list_is_not_dialled() -> None:
    async with (
        open_host(new_identity(), listen=LOOPBACK, allow=everyone, handler=echo) as server,
        open_host(new_identity(), allow=lambda _: False) as client,
    ):
        with pytest.raises(PeerRefusedError, match="own BlocksMap"):
            await client.connect(server.peer_id, server.addrs)
        assert server.connected() == ()


async def test_a_peer_struck_off_the_list_loses_its_connection_at_its_next_stream() -> None:
    allowed = {(client_id := new_identity()).peer_id}
    async with (
        open_host(
            new_identity(), listen=LOOPBACK, allow=allowed.__contains__, handler=echo
        ) as server,
        open_host(client_id, allow=everyone) as client,
    ):
        await client.connect(server.peer_id, server.addrs)
        stream = await client.open_stream(server.peer_id)
        allowed.clear()
        with pytest.raises(NetworkError):
            await client.open_stream(server.peer_id)
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()
        with pytest.raises(PeerRefusedError):
            await client.connect(server.peer_id, server.addrs)


async def test_disconnect_cuts_streams_and_their_handlers() -> None:
    cancelled = trio.Event()

    async def handler(stream: PeerStream) -> None:
        try:
            await trio.sleep_forever()
        finally:
            cancelled.set()

    async with server_and_client(handler) as (server, client):
        stream = await client.open_stream(server.peer_id)
        await until(lambda: server.connected() == (client.peer_id,))
        await server.disconnect(client.peer_id)
        assert server.connected() == ()
        assert cancelled.is_set()
        with pytest.raises(trio.BrokenResourceError), trio.fail_after(5):
            await stream.receive_some()
        await client.connect(server.peer_id, server.addrs)
        await client.open_stream(server.peer_id)


def stock_host(*, sec_opt: dict) -> object:  # type: ignore[type-arg]
    key_pair = create_new_key_pair()
    return new_host(
        key_pair=key_pair,
        sec_opt={name: make(key_pair) for name, make in sec_opt.items()},
        muxer_opt={YAMUX: Yamux},
        negotiate_timeout=3,
    )


def stock_noise(key_pair: object) -> NoiseTransport:
    return NoiseTransport(key_pair, create_new_x25519_key_pair().private_key)


async def test_a_plaintext_dialer_gets_nowhere() -> None:
    handled: list[str] = []

    async def handler(stream: PeerStream) -> None:
        handled.append(stream.peer_id)

    stock = stock_host(sec_opt={PLAINTEXT_PROTOCOL_ID: InsecureTransport})
    async with open_host(
        new_identity(), listen=LOOPBACK, allow=everyone, handler=handler
    ) as server:
        async with stock.run(listen_addrs=[]):
            with pytest.raises(Exception, match="unable to connect"), trio.fail_after(20):
                await stock.connect(info_from_p2p_addr(Multiaddr(server.addrs[0])))
        assert server.connected() == ()
        assert handled == []


async def test_a_stock_libp2p_host_dials_us_and_talks() -> None:
    stock = stock_host(sec_opt={NOISE: stock_noise})
    stock_id = stock.get_id().to_base58()
    async with (
        open_host(
            new_identity(), listen=LOOPBACK, allow={stock_id}.__contains__, handler=echo
        ) as server,
        stock.run(listen_addrs=[]),
    ):
        await stock.connect(info_from_p2p_addr(Multiaddr(server.addrs[0])))
        stream = await stock.new_stream(ID.from_base58(server.peer_id), [PROTOCOL])
        data = os.urandom(1 << 20)
        got = bytearray()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.write, data)
            while len(got) < len(data):
                got += await stream.read(65536)
        assert bytes(got) == data
        assert server.connected() == (stock_id,)
        await stream.close()
        await stock.close()  # leaving its block alone leaks the socket


async def test_we_dial_a_stock_libp2p_host_and_talk() -> None:
    stock = stock_host(sec_opt={NOISE: stock_noise})

    async def stock_echo(stream: object) -> None:
        while True:
            try:
                data = await stream.read(65536)  # type: ignore[attr-defined]
            except Exception:
                await stream.reset()  # type: ignore[attr-defined]
                return
            await stream.write(data)  # type: ignore[attr-defined]

    stock.set_stream_handler(PROTOCOL, stock_echo)
    async with (
        stock.run(listen_addrs=[Multiaddr(LOOPBACK[0])]),
        open_host(new_identity(), allow=everyone) as client,
    ):
        peer_id = stock.get_id().to_base58()
        await client.connect(peer_id, [str(one) for one in stock.get_addrs()])
        async with await client.open_stream(peer_id) as stream:
            data = os.urandom(200_000)
            assert await round_trip(stream, data) == data


async def test_a_stranger_that_announces_gigabytes_is_cut_off() -> None:
    async with server_and_client() as (server, client):
        port = int(server.addrs[0].split("/")[4])
        for nonsense in (
            b"\xff" * 9 + b"\x01",
            b"\x80\x80\x80\x80\x04",
            bytes(100_000),
            b"GET / HTTP/1.0\r\n\r\n",
        ):
            async with await trio.open_tcp_stream("127.0.0.1", port) as raw:
                with trio.fail_after(5):
                    try:
                        await raw.send_all(nonsense)
                        while await raw.receive_some():
                            pass
                    except trio.BrokenResourceError:
                        pass
        async with await client.open_stream(server.peer_id) as stream:
            assert await round_trip(stream, b"x") == b"x"


async def test_idle_strangers_do_not_keep_a_listed_peer_out() -> None:
    async with server_and_client() as (server, client):
        await client.disconnect(server.peer_id)
        port = int(server.addrs[0].split("/")[4])
        idle = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(300)]
        await client.connect(server.peer_id, server.addrs, timeout_s=2.0)
        assert len(server._handshakes) <= host_module.MAX_HANDSHAKES
        for one in idle:
            await one.aclose()


# -- dialling --------------------------------------------------------------------------------------


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


# -- listening -------------------------------------------------------------------------------------


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
        async with open_host(
            new_identity(), listen=["/ip6/::1/tcp/0"], allow=everyone, handler=echo
        ) as server:
            async with open_host(new_identity(), allow=everyone) as client:
                await client.connect(server.peer_id, server.addrs)
                async with await client.open_stream(server.peer_id) as stream:
                    assert await round_trip(stream, b"six") == b"six"
    except NetworkError as error:
        pytest.skip(f"no IPv6 here: {error.detail}")


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


# -- the life of a host ----------------------------------------------------------------------------


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
        assert server._handshakes == {}


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
    async with open_host(ids[0], listen=["/ip4/127.0.0.1/tcp/0"], allow={ids[1].peer_id}.__contains__) as server:
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
