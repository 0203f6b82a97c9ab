"""What py-libp2p does by itself, and gptnode.net works around.

Each test shows a trap as it is in the version that is installed. One that fails after an upgrade
says that the trap has changed: look at what works around it, which the test names, and perhaps drop
that.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from libp2p import new_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.io.exceptions import IncompleteReadError
from libp2p.io.trio import TrioTCPStream
from libp2p.io.utils import read_exactly
from libp2p.network.config import ConnectionConfig
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.security.insecure.transport import PLAINTEXT_PROTOCOL_ID, InsecureTransport
from libp2p.stream_muxer.exceptions import MuxedStreamError, MuxedStreamReset
from libp2p.stream_muxer.yamux.yamux import (
    DEFAULT_WINDOW_SIZE,
    FLAG_SYN,
    TYPE_DATA,
    TYPE_PING,
    TYPE_WINDOW_UPDATE,
    YAMUX_HEADER_FORMAT,
    Yamux,
)
from multiaddr import Multiaddr

from gptnode.errors import NetworkError
from gptnode.net.host import PROTOCOL, open_host
from tests.net.hosts import LOOPBACK, everyone, new_identity, until

Clock = trio.testing.MockClock


class Wire:
    """The encrypted connection below a muxer: it reads what is said here."""

    is_initiator = False

    def __init__(self) -> None:
        self.written = bytearray()
        self.takes = trio.Event()  # until it is set, a write waits
        self.takes.set()
        self._said = bytearray()
        self._news = trio.Event()
        self._over = False

    def say(self, data: bytes) -> None:
        self._said += data
        self._news.set()

    def end(self) -> None:
        self._over = True
        self._news.set()

    async def read(self, n: int | None = None) -> bytes:
        while not self._said and not self._over:
            self._news = trio.Event()
            await self._news.wait()
        data = bytes(self._said[:n])
        del self._said[:n]
        return data

    async def write(self, data: bytes) -> None:
        await self.takes.wait()
        self.written += data

    async def close(self) -> None:
        self.end()


def frame(kind: int, flags: int, stream_id: int, length: int, data: bytes = b"") -> bytes:
    return struct.pack(YAMUX_HEADER_FORMAT, 0, kind, flags, stream_id, length) + data


@asynccontextmanager
async def stock_muxer() -> AsyncIterator[tuple[Yamux, Wire]]:
    """A muxer that runs, over a wire; the peer has opened stream 1."""
    wire = Wire()
    muxer = Yamux(wire, ID(b"x" * 34), is_initiator=False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(muxer.start)
        await muxer.event_started.wait()
        wire.say(frame(TYPE_WINDOW_UPDATE, FLAG_SYN, 1, 0))
        await muxer.accept_stream()
        yield muxer, wire
        nursery.cancel_scope.cancel()


async def test_new_host_lets_a_plaintext_dialer_in() -> None:
    """gptnode.net.handshake offers Noise and nothing else."""
    victim, key_pair = new_host(), create_new_key_pair()
    dialer = new_host(
        key_pair=key_pair, sec_opt={PLAINTEXT_PROTOCOL_ID: InsecureTransport(key_pair)}
    )
    async with victim.run(listen_addrs=[Multiaddr(LOOPBACK[0])]), dialer.run(listen_addrs=[]):
        with trio.fail_after(20):
            await dialer.connect(info_from_p2p_addr(Multiaddr(str(victim.get_addrs()[0]))))
        await until(lambda: dialer.get_id() in victim.get_connected_peers())
        await dialer.close()
        await victim.close()


async def test_connections_that_ended_keep_their_slots() -> None:
    """gptnode.net.host accepts connections itself, each in a task that ends with it."""
    slots = 2
    stock = new_host(connection_config=few_connections(slots))
    async with (
        stock.run(listen_addrs=[Multiaddr(LOOPBACK[0])]),
        open_host(new_identity(), allow=everyone) as client,
    ):
        peer_id = stock.get_id().to_base58()
        addrs = [str(one) for one in stock.get_addrs()]
        for _ in range(slots):
            await client.connect(peer_id, addrs)
            await client.disconnect(peer_id)
            await until(lambda: not stock.get_connected_peers())
        with pytest.raises(NetworkError):
            await client.connect(peer_id, addrs)
        await stock.close()


async def test_idle_sockets_fill_the_slots() -> None:
    """gptnode.net.host lets the oldest stranger give way."""
    slots = 2
    stock = new_host(connection_config=few_connections(slots))
    async with (
        stock.run(listen_addrs=[Multiaddr(LOOPBACK[0])]),
        open_host(new_identity(), allow=everyone) as client,
    ):
        addrs = [str(one) for one in stock.get_addrs()]
        port = int(addrs[0].split("/")[4])
        idle = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(slots)]
        with pytest.raises(NetworkError):
            await client.connect(stock.get_id().to_base58(), addrs)
        for one in idle:
            await one.aclose()
        await stock.close()


async def test_a_handler_that_raises_ends_the_host() -> None:
    """gptnode.net.link catches what handlers raise."""
    stock = new_host()

    async def failing(stream: object) -> None:
        raise ZeroDivisionError

    stock.set_stream_handler(PROTOCOL, failing)
    with trio.fail_after(20):
        with pytest.RaisesGroup(ZeroDivisionError, flatten_subgroups=True):
            async with (
                open_host(new_identity(), allow=everyone) as client,
                stock.run(listen_addrs=[Multiaddr(LOOPBACK[0])]),
            ):
                peer_id = stock.get_id().to_base58()
                await client.connect(peer_id, [str(one) for one in stock.get_addrs()])
                stream = await client.open_stream(peer_id)
                await stream.send_all(b"x")
                await trio.sleep_forever()
    await stock.close()


async def test_an_answer_to_a_ping_holds_up_all_reading(autojump_clock: Clock) -> None:
    """With both directions full, both sides wait for ever. Writes go into an outbox at
    gptnode.net, so that answering never waits."""
    async with stock_muxer() as (muxer, wire):
        wire.takes = trio.Event()
        wire.say(frame(TYPE_PING, FLAG_SYN, 0, 7) + frame(TYPE_DATA, 0, 1, 1, b"x"))
        await trio.sleep(100)
        assert not muxer.stream_buffers[1]
        wire.takes.set()
        await trio.sleep(0.1)
        assert muxer.stream_buffers[1] == b"x"


async def test_a_cancelled_write_leaves_half_a_record_and_a_connection_that_seems_well() -> None:
    """gptnode.net.socket_connection writes records whole or not at all."""
    ours, theirs = socket.socketpair()
    stream = TrioTCPStream(trio.SocketStream(trio.socket.from_stdlib_socket(ours)))
    reader = trio.SocketStream(trio.socket.from_stdlib_socket(theirs))
    record = bytes(16 << 20)
    with trio.move_on_after(0.1) as scope:
        await stream.write(record)
    assert scope.cancelled_caught
    received = 0
    async with reader:
        with trio.move_on_after(0.1):
            while True:
                received += len(await reader.receive_some())
        assert 0 < received < len(record)
        await stream.write(b"the next record")
        assert await reader.receive_some() == b"the next record"
    await stream.close()


async def test_a_window_that_is_overrun_is_buffered_all_the_same(autojump_clock: Clock) -> None:
    """gptnode.net.muxer bounds what a connection buffers."""
    piece = bytes(64 * 1024)
    async with stock_muxer() as (muxer, wire):
        for _ in range(64):
            wire.say(frame(TYPE_DATA, 0, 1, len(piece), piece))
        await trio.sleep(0.1)
        assert len(muxer.stream_buffers[1]) == 64 * len(piece) > 10 * DEFAULT_WINDOW_SIZE
        assert not muxer.event_shutting_down.is_set()


async def test_a_peer_may_open_any_number_of_streams(autojump_clock: Clock) -> None:
    """gptnode.net.link has slots for streams."""
    async with stock_muxer() as (muxer, wire):
        for number in range(1, 1001):
            wire.say(frame(TYPE_WINDOW_UPDATE, FLAG_SYN, 2 * number + 1, 0))
        for _ in range(1000):
            await muxer.accept_stream()
        assert len(muxer.streams) == 1001


async def test_one_stream_too_many_waits_for_ever(autojump_clock: Clock) -> None:
    """gptnode.net.muxer refuses before that."""
    async with stock_muxer() as (muxer, _):
        for _ in range(256):
            await muxer.open_stream()
        with trio.move_on_after(100_000) as scope:
            await muxer.open_stream()
        assert scope.cancelled_caught


async def test_a_write_gives_up_on_a_slow_reader_after_five_seconds(autojump_clock: Clock) -> None:
    """gptnode.net.muxer waits for room as long as it takes."""
    async with stock_muxer() as (muxer, _):
        stream = await muxer.open_stream()
        begun = trio.current_time()
        with pytest.raises(MuxedStreamError, match="5 seconds"):
            await stream.write(bytes(DEFAULT_WINDOW_SIZE + 1))
        assert 4 < trio.current_time() - begun < 7


async def test_bytes_that_came_before_the_end_of_a_connection_are_lost(
    autojump_clock: Clock,
) -> None:
    """gptnode.net.muxer keeps them: a peer's last word is often why it leaves."""
    async with stock_muxer() as (muxer, wire):
        stream = muxer.streams[1]
        wire.say(frame(TYPE_DATA, 0, 1, 5, b"going"))
        await trio.sleep(0.1)
        assert muxer.stream_buffers[1] == b"going"
        wire.end()
        await muxer.event_shutting_down.wait()
        await trio.sleep(0.1)
        with pytest.raises(MuxedStreamReset):
            await stream.read(5)


async def test_an_exact_read_gives_up_after_a_hundred_pieces() -> None:
    """gptnode.net.socket_connection hands out exactly what is asked for."""

    class ByteByByte:
        async def read(self, n: int | None = None) -> bytes:
            return b"x"

    with pytest.raises(IncompleteReadError):
        await read_exactly(ByteByByte(), 200)


async def test_ipv6_peers_have_no_address() -> None:
    """gptnode.net.socket_connection asks the socket."""
    try:
        (listener,) = await trio.open_tcp_listeners(0, host="::1")
    except OSError:
        pytest.skip("no IPv6 here")
    async with listener:
        stream = await trio.open_tcp_stream("::1", listener.socket.getsockname()[1])
        async with await listener.accept():
            stock = TrioTCPStream(stream)
            assert stock.get_remote_address() is None
            await stock.close()


def test_nothing_looks_after_a_connection_unless_it_is_asked_to() -> None:
    """gptnode.net.client_channel has a heartbeat of its own."""
    assert ConnectionConfig().enable_health_monitoring is False


async def test_a_peer_that_could_not_be_dialled_once_is_left_alone() -> None:
    """For a minute. gptnode.net.dialing dials by itself."""
    stock, identity = new_host(), new_identity()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    addr = f"/ip4/127.0.0.1/tcp/{port}"
    info = info_from_p2p_addr(Multiaddr(f"{addr}/p2p/{identity.peer_id}"))
    async with stock.run(listen_addrs=[]):
        with pytest.raises(Exception, match="unable to connect"):
            await stock.connect(info)
        async with open_host(identity, listen=[addr], allow=everyone) as server:
            with pytest.raises(Exception, match="recently failed"):
                await stock.connect(info)
            assert server.connected() == ()
            stock.get_network().unblock_peer(info.peer_id)
            await stock.connect(info)
        await stock.close()


def few_connections(slots: int) -> ConnectionConfig:
    return ConnectionConfig(
        max_connections=slots, min_connections=0, low_watermark=0, high_watermark=slots
    )
