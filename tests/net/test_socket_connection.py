"""The socket below Noise: exact reads, bounds before the handshake, an outbox that never blocks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from libp2p.io.exceptions import ConnectionClosedError

from gptnode.net.socket_connection import (
    HANDSHAKE_RECEIVE_BYTES,
    OUTBOX_LIMIT_BYTES,
    OUTBOX_ROOM_BYTES,
    SocketConnection,
)


@asynccontextmanager
async def connection_and_remote() -> AsyncIterator[tuple[SocketConnection, trio.SocketStream]]:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        remote = await trio.open_tcp_stream(*listener.socket.getsockname())
        connection = SocketConnection(await listener.accept(), is_initiator=False)
        async with remote:
            yield connection, remote
        connection.close_now()


async def test_a_read_is_exact_however_the_bytes_arrive() -> None:
    """Canary of a trap: the library's own reader gives up after 100 partial reads."""
    async with connection_and_remote() as (connection, remote):

        async def trickle() -> None:
            for n in range(250):
                await remote.send_all(bytes([n]))
                await trio.testing.wait_all_tasks_blocked()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trickle)
            assert await connection.read(200) == bytes(range(200))
            assert await connection.read(50) == bytes(range(200, 250))


async def test_a_cancelled_read_loses_nothing() -> None:
    async with connection_and_remote() as (connection, remote):
        await remote.send_all(b"first ")
        with trio.move_on_after(0.05) as scope:
            await connection.read(11)
        assert scope.cancelled_caught
        await remote.send_all(b"half")
        assert await connection.read(10) == b"first half"


async def test_the_end_gives_what_there_was_and_then_raises() -> None:
    async with connection_and_remote() as (connection, remote):
        await remote.send_all(b"abc")
        await remote.aclose()
        assert await connection.read(5) == b"abc"
        with pytest.raises(ConnectionClosedError):
            await connection.read(1)


async def test_a_stranger_cannot_make_us_wait_for_a_huge_message() -> None:
    async with connection_and_remote() as (connection, _):
        with pytest.raises(ConnectionClosedError, match="too large"):
            await connection.read(1 << 40)
        assert connection.is_closed


async def test_a_stranger_gets_a_bounded_number_of_bytes_in() -> None:
    async with connection_and_remote() as (connection, remote):
        await remote.send_all(bytes(HANDSHAKE_RECEIVE_BYTES + 1))
        with pytest.raises(ConnectionClosedError, match="too much"):
            for _ in range(HANDSHAKE_RECEIVE_BYTES + 1):
                await connection.read(1)
        assert connection.is_closed


async def test_writes_never_wait_for_a_peer_that_does_not_read() -> None:
    async with connection_and_remote() as (connection, remote), trio.open_nursery() as nursery:
        connection.start_outbox()
        nursery.start_soon(connection.run_outbox)
        with trio.CancelScope() as scope:
            scope.cancel()  # a write has no checkpoint: it can't be torn
            while connection.has_room:
                await connection.write(bytes(65_535))
        assert not scope.cancelled_caught
        written = connection.unsent_bytes
        assert written >= OUTBOX_ROOM_BYTES
        with trio.move_on_after(0.2):
            await connection.wait_room()
        nursery.start_soon(connection.finish)
        total = 0
        while data := await remote.receive_some():
            total += len(data)
        assert total == written
        assert connection.is_closed


async def test_a_peer_that_never_reads_is_cut_off_at_the_limit() -> None:
    async with connection_and_remote() as (connection, _), trio.open_nursery() as nursery:
        connection.start_outbox()
        nursery.start_soon(connection.run_outbox)
        with pytest.raises(ConnectionClosedError, match="doesn't read"):
            for _ in range(OUTBOX_LIMIT_BYTES // 65_536 + 1):
                await connection.write(bytes(65_536))
        assert connection.is_closed
        with pytest.raises(ConnectionClosedError):
            await connection.write(b"x")


async def test_closing_wakes_whoever_waits() -> None:
    async with connection_and_remote() as (connection, _), trio.open_nursery() as nursery:
        connection.start_outbox()

        async def read() -> None:
            with pytest.raises(ConnectionClosedError):
                await connection.read(1)

        await connection.write(bytes(OUTBOX_ROOM_BYTES))
        nursery.start_soon(read)
        nursery.start_soon(connection.wait_room)
        nursery.start_soon(connection.wait_read_done)
        nursery.start_soon(connection.finish)
        await trio.testing.wait_all_tasks_blocked()
        connection.close_now()
        with trio.fail_after(5):
            await trio.testing.wait_all_tasks_blocked()


class Numbers:
    """A source of many batches, and of something urgent."""

    def __init__(self, batches: int) -> None:
        self.left = batches
        self.urgent = b""
        self.taken: list[bytes] = []

    @property
    def has_more(self) -> bool:
        return bool(self.left or self.urgent)

    def next_batch(self) -> memoryview:
        batch = self.urgent
        self.urgent = b""
        if self.left:
            self.left -= 1
            batch += bytes([self.left % 256]) * 100_000
        self.taken.append(batch)
        return memoryview(batch)


async def test_a_source_is_sent_from_at_once_and_without_a_task() -> None:
    async with connection_and_remote() as (connection, remote):
        source = Numbers(0)
        connection.start_outbox(source)
        source.urgent = b"now"
        connection.send_soon()  # run_outbox isn't running
        assert await remote.receive_some() == b"now"


async def test_a_source_is_asked_only_for_what_the_line_takes() -> None:
    """So what becomes urgent later still goes before what waits."""
    async with connection_and_remote() as (connection, remote), trio.open_nursery() as nursery:
        source = Numbers(400)
        connection.start_outbox(source)
        nursery.start_soon(connection.run_outbox)
        connection.send_soon()
        with trio.move_on_after(0.5):
            await trio.sleep_forever()
        waiting = source.left
        assert waiting > 200  # 40 MB: the kernel's buffers are smaller
        source.urgent = b"urgent"
        connection.send_soon()
        assert source.left == waiting
        received = bytearray()
        nursery.start_soon(connection.finish)
        while data := await remote.receive_some(1 << 20):
            received += data
        assert received == b"".join(source.taken)
        assert bytes(received).index(b"urgent") <= (400 - waiting) * 100_000


async def test_bytes_that_were_read_before_are_received_first() -> None:
    async with connection_and_remote() as (connection, remote):
        await remote.send_all(b"before and after")
        assert await connection.read(7) == b"before "
        connection.start_outbox()
        room = bytearray(4)
        assert await connection.receive_into(memoryview(room)) == 4
        assert room == b"and "
        await remote.aclose()
        room = bytearray(100)
        received = b""
        while count := await connection.receive_into(memoryview(room)):
            received += room[:count]
        assert received == b"after"


async def test_closing_wakes_who_receives() -> None:
    async with connection_and_remote() as (connection, _), trio.open_nursery() as nursery:
        connection.start_outbox()
        counts: list[int] = []

        async def receive() -> None:
            counts.append(await connection.receive_into(memoryview(bytearray(10))))

        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        connection.close_now()
        await trio.testing.wait_all_tasks_blocked()
        assert counts == [0]
