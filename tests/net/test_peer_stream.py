"""Streams between two hosts over loopback: bytes, ends, cancellation, and what is left behind."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import trio
import trio.testing

from gptnode.net.host import PeerStream, open_host
from tests.net.hosts import (
    LOOPBACK,
    echo,
    everyone,
    new_identity,
    read_all,
    read_exactly,
    round_trip,
    server_and_client,
    until,
)

pytestmark = pytest.mark.usefixtures("each_muxer")


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
    process = await trio.lowlevel.open_process(
        [sys.executable, "-c", KILLED_SERVER], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        addr = (await process.stdout.receive_some(1000)).decode().strip()
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
        await process.wait()
        await process.stdout.aclose()


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
        await stream.send_all(bytes(8 << 20))
        assert trio.current_time() - started > 5  # else nothing had to wait
        await stream.aclose()
        await until(lambda: received == [8 << 20])


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


async def test_what_arrives_is_handed_over_in_order_whoever_takes_it() -> None:
    """At once over the own stream layer, by reading over Yamux: together it is all."""
    sent = [os.urandom(n) for n in (1, 5_000, 200_000, 3, 70_000)]
    begun, go_on = trio.Event(), trio.Event()

    async def handler(stream: PeerStream) -> None:
        await stream.send_all(sent[0])
        await stream.send_all(sent[1])
        begun.set()
        await go_on.wait()
        for data in sent[2:]:
            await stream.send_all(data)
        await stream.aclose()

    async with server_and_client(handler) as (server, client):
        stream = await client.open_stream(server.peer_id)
        await begun.wait()
        await trio.sleep(0.05)  # some is here before anybody wants it
        received = bytearray()
        stream.deliver_to(received.extend)
        go_on.set()
        while data := await stream.receive_some():
            received += data
        assert received == b"".join(sent)
        await stream.aclose()


async def test_what_can_be_sent_at_once_is_and_the_rest_is_told() -> None:
    async with server_and_client() as (server, client):
        stream = await client.open_stream(server.peer_id)
        data = os.urandom(3 << 20)
        rest = stream.send_now(memoryview(data))
        assert bytes(rest) == data[len(data) - len(rest) :]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, rest)
            assert await read_exactly(stream, len(data)) == data
        await stream.aclose()
        assert bytes(stream.send_now(memoryview(b"late"))) == b"late"
