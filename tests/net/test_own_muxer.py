"""The stream layer with a clock: waiting, cancelling, keeping alive. Over memory, no sleeps."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from gptnode.net.mux_frames import EndCode, Kind, header
from gptnode.net.mux_limits import MuxLimits
from gptnode.net.muxer import Outgoing
from gptnode.net.noise_records import RecordError
from gptnode.net.own_muxer import PING_AFTER_S, PONG_WITHIN_S, OwnMuxer

SMALL = MuxLimits(window_bytes=128 * 1024, quantum_bytes=4096, batch_bytes=16_384)
PIECE = 1 << 20


class MemoryCarrier:
    """Bytes to another one in the same process, at once; ``held`` keeps back what is sent."""

    def __init__(self) -> None:
        self.other: MemoryCarrier | None = None
        self.held = False
        self.forged = False
        self.sent = bytearray()
        self.inbox = bytearray()
        self.closed = False
        self.moved = trio.lowlevel.ParkingLot()
        self._plaintext = None

    async def receive(self) -> bytes:
        await trio.lowlevel.checkpoint()
        while not self.inbox and not self.closed:
            await self.moved.park()
        data = bytes(self.inbox[:65_536])
        del self.inbox[: len(data)]
        if self.forged:
            raise RecordError("a record failed its authentication")
        return data

    def send_from(self, plaintext) -> None:  # type: ignore[no-untyped-def]
        self._plaintext = plaintext

    def send_soon(self) -> None:
        while not self.held and not self.closed:
            data = b"".join(bytes(one) for one in self._plaintext.next_batch())
            if not data:
                break
            self.sent += data
            if self.other is not None:
                self.other.inbox += data
                self.other.moved.unpark_all()

    def release(self) -> None:
        self.held = False
        self.send_soon()

    def close_now(self) -> None:
        for one in (self, self.other):
            if one is not None:
                one.closed = True
                one.moved.unpark_all()


class Node:
    """One side, running."""

    def __init__(self, *, is_initiator: bool, limits: MuxLimits = SMALL) -> None:
        self.carrier = MemoryCarrier()
        self.muxer = OwnMuxer(self.carrier, "id", is_initiator=is_initiator, limits=limits)
        self.ended = trio.Event()

    async def run(self) -> None:
        await self.muxer.run()
        self.ended.set()

    async def receive(self, stream, n_bytes: int) -> bytes:  # type: ignore[no-untyped-def]
        data = b""
        while len(data) < n_bytes:
            some = await self.muxer.take(stream, n_bytes - len(data))
            if some == b"":
                break
            if some is None:
                await self.muxer.wait_readable(stream)
            data += some or b""
        return data


@asynccontextmanager
async def two_nodes(limits: MuxLimits = SMALL) -> AsyncIterator[tuple[Node, Node]]:
    nodes = Node(is_initiator=True, limits=limits), Node(is_initiator=False, limits=limits)
    nodes[0].carrier.other, nodes[1].carrier.other = nodes[1].carrier, nodes[0].carrier
    async with trio.open_nursery() as nursery:
        for node in nodes:
            nursery.start_soon(node.run)
        yield nodes
        nursery.cancel_scope.cancel()


async def opened(nodes: tuple[Node, Node]):  # type: ignore[no-untyped-def]
    ours = await nodes[0].muxer.open()
    return ours, await nodes[1].muxer.accept()


async def test_both_directions_at_once_carry_more_than_their_windows() -> None:
    async with two_nodes() as nodes:
        ours, theirs = await opened(nodes)
        done = []

        async def send(node: Node, stream, byte: bytes) -> None:  # type: ignore[no-untyped-def]
            await node.muxer.send_all(stream, Outgoing(byte * PIECE))
            await node.muxer.finish(stream)

        async def read(node: Node, stream, byte: bytes) -> None:  # type: ignore[no-untyped-def]
            assert await node.receive(stream, 2 * PIECE) == byte * PIECE
            done.append(byte)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, nodes[0], ours, b"a")
            nursery.start_soon(send, nodes[1], theirs, b"b")
            nursery.start_soon(read, nodes[0], ours, b"b")
            nursery.start_soon(read, nodes[1], theirs, b"a")
        assert sorted(done) == [b"a", b"b"]
        assert nodes[0].muxer.streams == nodes[1].muxer.streams == {}


async def test_a_sender_waits_for_the_reader_however_long(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with two_nodes() as nodes:
        ours, theirs = await opened(nodes)
        started = trio.current_time()

        async def read_late() -> None:
            await trio.sleep(1000)
            assert len(await nodes[1].receive(theirs, PIECE)) == PIECE

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read_late)
            await nodes[0].muxer.send_all(ours, Outgoing(bytes(PIECE)))
            assert trio.current_time() - started >= 1000


async def test_a_cancelled_sender_leaves_the_connection_and_its_other_streams_whole() -> None:
    async with two_nodes() as nodes:
        ours, theirs = await opened(nodes)
        other, others = await opened(nodes)
        outgoing = Outgoing(b"x" * PIECE)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(nodes[0].muxer.send_all, ours, outgoing)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert outgoing.begun
        assert outgoing.rest
        await nodes[0].muxer.reset(ours)
        assert await nodes[1].receive(theirs, SMALL.window_bytes) == b"x" * SMALL.window_bytes
        with pytest.raises(trio.BrokenResourceError, match="the peer reset"):
            await nodes[1].receive(theirs, 1)
        await nodes[0].muxer.send_all(other, Outgoing(b"fine"))
        assert await nodes[1].receive(others, 4) == b"fine"


async def test_a_sender_cancelled_before_its_turn_has_sent_nothing() -> None:
    async with two_nodes() as nodes:
        ours, theirs = await opened(nodes)
        await trio.testing.wait_all_tasks_blocked()
        outgoing = Outgoing(b"never")
        nodes[0].carrier.held = True
        async with trio.open_nursery() as nursery:
            nursery.start_soon(nodes[0].muxer.send_all, ours, outgoing)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        nodes[0].carrier.release()
        assert not outgoing.begun
        await nodes[0].muxer.send_all(ours, Outgoing(b"but this"))
        assert await nodes[1].receive(theirs, 8) == b"but this"


async def test_a_large_transfer_does_not_hold_up_a_small_message() -> None:
    async with two_nodes(MuxLimits()) as nodes:
        large, larges = await opened(nodes)
        small, smalls = await opened(nodes)
        await trio.testing.wait_all_tasks_blocked()
        before = len(nodes[0].carrier.sent)
        async with trio.open_nursery() as nursery:
            nodes[0].carrier.held = True
            nursery.start_soon(nodes[0].muxer.send_all, large, Outgoing(bytes(4 << 20)))
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(nodes[0].muxer.send_all, small, Outgoing(b"a token"))
            await trio.testing.wait_all_tasks_blocked()
            nodes[0].carrier.release()
            assert await nodes[1].receive(smalls, 7) == b"a token"
            place = bytes(nodes[0].carrier.sent).index(b"a token") - before
            assert place < 2 * MuxLimits().quantum_bytes
            assert len(await nodes[1].receive(larges, 4 << 20)) == 4 << 20


async def test_half_a_stream_is_closed_while_the_other_half_goes_on() -> None:
    async with two_nodes() as nodes:
        ours, theirs = await opened(nodes)
        await nodes[0].muxer.finish(ours)
        assert await nodes[1].receive(theirs, 1) == b""
        with pytest.raises(trio.BrokenResourceError, match="this side closed"):
            await nodes[0].muxer.send_all(ours, Outgoing(b"x"))
        await nodes[1].muxer.send_all(theirs, Outgoing(b"answer"))
        assert await nodes[0].receive(ours, 6) == b"answer"


async def test_a_reset_wakes_who_reads_and_who_writes() -> None:
    async with two_nodes() as nodes:
        ours, theirs = await opened(nodes)

        async def broken(function, *args) -> None:  # type: ignore[no-untyped-def]
            with pytest.raises(trio.BrokenResourceError, match="the peer reset"):
                await function(*args)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(broken, nodes[0].receive, ours, 1)
            nursery.start_soon(broken, nodes[0].muxer.send_all, ours, Outgoing(bytes(PIECE)))
            await trio.testing.wait_all_tasks_blocked()
            await nodes[1].muxer.reset(theirs)
        await broken(nodes[0].muxer.wait_writable, ours)


async def test_waiting_for_room_ends_when_the_peer_reads() -> None:
    async with two_nodes() as nodes:
        ours, theirs = await opened(nodes)
        await trio.testing.wait_all_tasks_blocked()
        await nodes[0].muxer.send_all(ours, Outgoing(bytes(SMALL.window_bytes)))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(nodes[0].muxer.wait_writable, ours)
            await trio.testing.wait_all_tasks_blocked()
            assert nursery.child_tasks
            await nodes[1].receive(theirs, SMALL.window_bytes)


# -- the end of the connection ---------------------------------------------------------------------


async def test_an_idle_connection_is_kept_alive(autojump_clock: trio.testing.MockClock) -> None:
    async with two_nodes() as nodes:
        ours, theirs = await opened(nodes)
        await trio.sleep(20 * PING_AFTER_S)
        assert nodes[0].carrier.sent.count(header(Kind.PING, 0, 5)) == 1
        await nodes[0].muxer.send_all(ours, Outgoing(b"x"))
        assert await nodes[1].receive(theirs, 1) == b"x"


async def test_a_silent_peer_is_given_up_with_a_reason(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with two_nodes() as nodes:
        ours, _ = await opened(nodes)
        await trio.testing.wait_all_tasks_blocked()
        started = trio.current_time()
        nodes[1].carrier.held = True  # alive to the kernel, and mute
        with pytest.raises(trio.BrokenResourceError, match="silent for 30 s"):
            await nodes[0].receive(ours, 1)
        took = trio.current_time() - started
        assert PING_AFTER_S + PONG_WITHIN_S <= took < PING_AFTER_S + PONG_WITHIN_S + 1
        await nodes[0].ended.wait()
        assert nodes[0].carrier.sent.endswith(header(Kind.GOAWAY, 0, EndCode.SILENT))
        with pytest.raises(trio.BrokenResourceError, match="silent"):
            await nodes[0].muxer.open()


@pytest.mark.parametrize(
    "nonsense",
    [
        b"GET / HTTP/1.1\r\n",
        header(Kind.PONG, 0, 1),
        header(Kind.OPEN, 1, 0) + (header(Kind.DATA, 1, 60_000) + bytes(60_000)) * 3,
        b"".join(header(Kind.OPEN, 1 + 2 * n, 0) for n in range(257)),
    ],
    ids=["garbage", "rules", "window", "streams"],
)
async def test_a_peer_that_breaks_the_rules_is_told_and_cut_off(
    nonsense: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    node = Node(is_initiator=False)
    node.carrier.inbox += nonsense
    await node.run()
    assert node.carrier.sent.endswith(header(Kind.GOAWAY, 0, EndCode.VIOLATION))
    assert "broke the stream layer" in caplog.text
    assert node.muxer.streams == {}


async def test_a_forged_record_ends_the_connection() -> None:
    async with two_nodes() as nodes:
        ours, _ = await opened(nodes)
        nodes[0].carrier.forged = True
        await nodes[1].muxer.open()
        with pytest.raises(trio.BrokenResourceError, match="authentication"):
            await nodes[0].receive(ours, 1)


async def test_a_peer_that_leaves_says_so_and_its_last_words_are_read() -> None:
    async with two_nodes() as nodes:
        ours, theirs = await opened(nodes)
        await nodes[1].muxer.send_all(theirs, Outgoing(b"goodbye"))
        nodes[1].muxer.leave()
        await trio.testing.wait_all_tasks_blocked()
        assert nodes[0].muxer.peer_leaves
        with pytest.raises(trio.BrokenResourceError, match="about to leave"):
            await nodes[0].muxer.open()
        nodes[1].carrier.close_now()
        await nodes[0].ended.wait()
        assert await nodes[0].receive(ours, 7) == b"goodbye"
        with pytest.raises(trio.BrokenResourceError, match="lost"):
            await nodes[0].receive(ours, 1)
        with pytest.raises(trio.EndOfChannel):
            await nodes[0].muxer.accept()


async def test_nothing_is_left_of_waits_that_were_cancelled() -> None:
    async with two_nodes() as nodes:
        ours, theirs = await opened(nodes)
        for function in (nodes[0].muxer.wait_readable, nodes[0].receive):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(function, ours, *([1] if function == nodes[0].receive else []))
                await trio.testing.wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()
        await nodes[1].muxer.send_all(theirs, Outgoing(b"x"))
        assert await nodes[0].receive(ours, 1) == b"x"
        await nodes[0].muxer.reset(ours)
        await nodes[1].muxer.reset(theirs)
        for node in nodes:
            assert len(node.muxer._reading) == len(node.muxer._writing) == 0
