from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import trio
import trio.testing

from gptnode.errors import (
    GptNodeError,
    LocalProtocolError,
    MismatchError,
    PeerBusyError,
    PeerRefusedError,
    PeerTimeoutError,
    RemoteProtocolError,
    StreamLostError,
)
from gptnode.net.client_channel import ClientChannel
from gptnode.net.pump import WRITE_BYTES
from gptnode.net.server_channel import ServerChannel
from gptnode.wire.connection import ClientConnection, ServerConnection
from gptnode.wire.limits import Limits
from gptnode.wire.messages import (
    Close,
    Closed,
    ErrorCode,
    Failure,
    Message,
    Open,
    Ping,
    Pong,
    Step,
    Truncate,
    Truncated,
)
from tests.wire.pair import LIMIT_BYTES, OPEN, OPENED, step, stepped

Stream = trio.StapledStream
Clock = trio.testing.MockClock


@dataclass
class Session:
    """Both channels of a session, running."""

    client: ClientChannel
    server: ServerChannel
    nursery: trio.Nursery

    async def open(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._admit)
            assert await self.client.request(OPEN, timeout_s=5) == OPENED
        self.client.raise_limit(LIMIT_BYTES)

    async def _admit(self) -> None:
        assert await self.server.receive() == OPEN
        self.server.raise_limit(LIMIT_BYTES)
        await self.server.send(OPENED)

    async def serve(self, delay_s: float = 0.0) -> None:
        """Answer every request after ``delay_s``, until Close."""
        while True:
            match await self.server.receive():
                case Step(position=position):
                    await trio.sleep(delay_s)
                    await self.server.send(stepped(position))
                case Truncate(length=length):
                    await self.server.send(Truncated(length))
                case Close():
                    return
                case Open():
                    pytest.fail("a second open")


@asynccontextmanager
async def session(*, lockstep: bool = False, opened: bool = True) -> AsyncIterator[Session]:
    make = trio.testing.lockstep_stream_pair if lockstep else trio.testing.memory_stream_pair
    ours, theirs = make()
    async with trio.open_nursery() as nursery:
        both = Session(ClientChannel(ours), ServerChannel(theirs), nursery)
        await nursery.start(both.client.run)
        await nursery.start(both.server.run)
        if opened:
            await both.open()
        yield both
        await both.client.aclose()
        await both.server.aclose()


@dataclass
class RawPeer:
    """The other end of a channel, written byte by byte; ``machine`` makes and reads the bytes."""

    stream: Stream
    machine: ClientConnection | ServerConnection
    heard: list[Message] = field(default_factory=list)

    async def say(self, *messages: Message) -> None:
        for message in messages:
            for buffer in self.machine.send(message):
                await self.stream.send_all(buffer)

    async def hear(self, n: int = 1) -> list[Message]:
        """The next ``n`` messages, Pings left out."""
        while len(self.heard) < n:
            data = await self.stream.receive_some()
            assert data, "the stream ended"
            said = list(self.machine.receive(data))
            self.heard += [message for message in said if not isinstance(message, Ping)]
        said, self.heard = self.heard[:n], self.heard[n:]
        return said

    async def admit(self) -> None:
        assert await self.hear() == [OPEN]
        self.machine.raise_limit(LIMIT_BYTES)
        await self.say(OPENED)

    async def hear_all(self) -> list[Message]:
        """All messages up to the end of the stream."""
        while data := await self.stream.receive_some():
            self.heard += self.machine.receive(data)
        return self.heard


@asynccontextmanager
async def client_of_raw_server(
    *, opened: bool = True, on_stuck: Callable[[], Awaitable[None]] | None = None
) -> AsyncIterator[tuple[ClientChannel, RawPeer]]:
    ours, theirs = trio.testing.memory_stream_pair()
    client = ClientChannel(ours, on_stuck=on_stuck)
    peer = RawPeer(theirs, ServerConnection())
    async with trio.open_nursery() as nursery:
        await nursery.start(client.run)
        if opened:
            async with trio.open_nursery() as opening:
                opening.start_soon(peer.admit)
                await client.request(OPEN, timeout_s=5)
            client.raise_limit(LIMIT_BYTES)
        yield client, peer
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def server_of_raw_client(
    *, opened: bool = True, limits: Limits | None = None
) -> AsyncIterator[tuple[ServerChannel, RawPeer]]:
    ours, theirs = trio.testing.memory_stream_pair()
    server = ServerChannel(ours, limits=limits or Limits())
    peer = RawPeer(theirs, ClientConnection())
    async with trio.open_nursery() as nursery:
        await nursery.start(server.run)
        if opened:
            await peer.say(OPEN)
            assert await server.receive() == OPEN
            server.raise_limit(LIMIT_BYTES)
            await server.send(OPENED)
            assert await peer.hear() == [OPENED]
            peer.machine.raise_limit(LIMIT_BYTES)
        yield server, peer
        nursery.cancel_scope.cancel()


# A session in order


@pytest.mark.parametrize("lockstep", [False, True])
async def test_a_session_opens_steps_truncates_and_closes(
    lockstep: bool, autojump_clock: Clock
) -> None:
    async with session(lockstep=lockstep) as both:
        both.nursery.start_soon(both.serve)
        assert await both.client.request(step(0), timeout_s=5) == stepped(0)
        assert await both.client.request(Truncate(0), timeout_s=5) == Truncated(0)
        await both.client.aclose()
        assert both.client.lost is None
        assert await both.server.receive() == Close()
        assert await both.server.receive() == Close()
        assert both.server.lost is None


async def test_concurrent_requests_are_answered_in_order_and_wait_for_their_turn(
    autojump_clock: Clock,
) -> None:
    async with session() as both:
        done: list[int] = []

        async def ask(position: int) -> None:
            reply = await both.client.request(step(position), timeout_s=1000)
            assert reply.position == position
            done.append(position)

        both.nursery.start_soon(both.serve, 1.0)
        async with trio.open_nursery() as nursery:
            for position in range(20):
                nursery.start_soon(ask, position)
        assert sorted(done) == list(range(20))


async def test_large_tensors_cross_in_pieces_over_a_stream_without_a_buffer(
    autojump_clock: Clock,
) -> None:
    n = 3 * WRITE_BYTES // 4
    ours, theirs = trio.testing.lockstep_stream_pair()
    client, server = ClientChannel(ours), ServerChannel(theirs)
    async with trio.open_nursery() as nursery:
        await nursery.start(client.run)
        await nursery.start(server.run)
        both = Session(client, server, nursery)
        nursery.start_soon(both._admit)
        await client.request(OPEN, timeout_s=5)
        client.raise_limit(4 * n)
        server.raise_limit(4 * n)

        async def answer() -> None:
            assert await server.receive() == step(0, n)
            await server.send(stepped(0, n))

        nursery.start_soon(answer)
        assert await client.request(step(0, n), timeout_s=5) == stepped(0, n)
        await client.aclose()


async def test_the_round_trip_is_known_after_opened(autojump_clock: Clock) -> None:
    async with session() as both:
        assert both.client.round_trip_s is None
        await trio.testing.wait_all_tasks_blocked()
        assert both.client.round_trip_s == pytest.approx(0.0, abs=0.1)


async def test_a_message_out_of_turn_is_a_local_error_and_costs_nothing(
    autojump_clock: Clock,
) -> None:
    async with session(opened=False) as both:
        for _ in range(20):
            with pytest.raises(LocalProtocolError):
                await both.client.request(step(0), timeout_s=5)
        await both.open()
        with pytest.raises(LocalProtocolError):
            await both.server.send(stepped(0))
        assert both.client.lost is both.server.lost is None


async def test_heartbeats_must_be_shorter_than_the_silence_they_prevent(
    autojump_clock: Clock,
) -> None:
    stream, _ = trio.testing.memory_stream_pair()
    for heartbeat_s, silent_after_s in [(3.0, 3.0), (0.0, 3.0)]:
        with pytest.raises(LocalProtocolError):
            ClientChannel(stream, heartbeat_s=heartbeat_s, silent_after_s=silent_after_s)


# Cancellation and deadlines of requests


async def test_after_a_cancelled_request_the_next_one_gets_its_own_reply(
    autojump_clock: Clock,
) -> None:
    async with session() as both:
        both.nursery.start_soon(both.serve, 2.0)
        with trio.move_on_after(1) as scope:
            await both.client.request(step(5), timeout_s=100)
        assert scope.cancelled_caught
        assert await both.client.request(step(6), timeout_s=100) == stepped(6)
        assert await both.client.request(Truncate(5), timeout_s=100) == Truncated(5)
        assert both.client.lost is None


async def test_after_a_timed_out_request_the_next_one_gets_its_own_reply(
    autojump_clock: Clock,
) -> None:
    async with session() as both:
        both.nursery.start_soon(both.serve, 2.0)
        with pytest.raises(PeerTimeoutError, match="no reply to step within 1 s"):
            await both.client.request(step(5), timeout_s=1)
        assert await both.client.request(step(6), timeout_s=100) == stepped(6)


async def test_a_request_that_is_cancelled_in_the_queue_was_never_sent(
    autojump_clock: Clock,
) -> None:
    async with session() as both:
        both.nursery.start_soon(both.serve, 1.0)
        async with trio.open_nursery() as nursery:
            for position in range(8):
                nursery.start_soon(lambda at=position: both.client.request(step(at), timeout_s=99))
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(PeerTimeoutError):
                await both.client.request(Truncate(77), timeout_s=0.5)
        assert await both.client.request(step(9), timeout_s=99) == stepped(9)


async def test_abandoned_requests_do_not_use_up_the_channel(autojump_clock: Clock) -> None:
    async with session() as both:
        both.nursery.start_soon(both.serve, 1.0)
        for position in range(30):
            with trio.move_on_after(0.1):
                await both.client.request(step(position), timeout_s=99)
        assert await both.client.request(step(99), timeout_s=99) == stepped(99)


async def test_a_cancelled_receive_loses_no_request(autojump_clock: Clock) -> None:
    async with server_of_raw_client() as (server, peer):
        with trio.move_on_after(1):
            await server.receive()
        await peer.say(step(0))
        with trio.CancelScope() as scope:
            scope.cancel()
            await server.receive()
        assert await server.receive() == step(0)


# Heartbeats and silence


async def test_a_quiet_session_is_kept_alive_for_hours(autojump_clock: Clock) -> None:
    async with session() as both:
        await trio.sleep(7200)
        both.nursery.start_soon(both.serve)
        assert await both.client.request(step(0), timeout_s=5) == stepped(0)


async def test_pings_are_answered_while_a_step_computes(autojump_clock: Clock) -> None:
    async with session() as both:
        both.nursery.start_soon(both.serve, 600.0)
        assert await both.client.request(step(0), timeout_s=1000) == stepped(0)


async def test_a_peer_that_freezes_is_lost_three_seconds_after_its_last_byte(
    autojump_clock: Clock,
) -> None:
    async with client_of_raw_server() as (client, peer):
        last_said_s = 0.0

        async def pong_for_a_minute() -> None:
            nonlocal last_said_s
            until_s = trio.current_time() + 60
            while trio.current_time() < until_s:
                data = await peer.stream.receive_some()
                for message in peer.machine.receive(data):
                    if isinstance(message, Ping):
                        await peer.say(Pong(message.nonce))
                        last_said_s = trio.current_time()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(pong_for_a_minute)
            with pytest.raises(PeerTimeoutError, match="silent for 3 s"):
                await client.request(step(0), timeout_s=100)
        assert last_said_s > 55
        assert trio.current_time() - last_said_s == pytest.approx(3.0, abs=0.1)
        assert isinstance(client.lost, PeerTimeoutError)
        with pytest.raises(PeerTimeoutError):
            await client.request(step(1), timeout_s=100)


async def test_a_peer_that_is_silent_from_the_first_is_lost_too(autojump_clock: Clock) -> None:
    async with client_of_raw_server(opened=False) as (client, _):
        with pytest.raises(PeerTimeoutError, match="silent"):
            await client.request(OPEN, timeout_s=100)


async def test_all_that_wait_learn_of_the_loss(autojump_clock: Clock) -> None:
    async with client_of_raw_server() as (client, _):
        lost: list[GptNodeError] = []

        async def ask(position: int) -> None:
            with pytest.raises(PeerTimeoutError) as caught:
                await client.request(step(position), timeout_s=100)
            lost.append(caught.value)

        async with trio.open_nursery() as nursery:
            for position in range(20):
                nursery.start_soon(ask, position)
        assert len(lost) == 20
        assert len({id(error) for error in lost}) == 20


async def test_a_slow_reply_counts_as_life_from_its_first_byte(autojump_clock: Clock) -> None:
    async with client_of_raw_server() as (client, peer):

        async def trickle() -> None:
            await peer.hear()
            reply = b"".join(peer.machine.send(stepped(0)))
            for byte in reply:
                await trio.sleep(2.5)
                await peer.stream.send_all(bytes([byte]))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trickle)
            assert await client.request(step(0), timeout_s=10_000) == stepped(0)


class SlowStream(trio.abc.Stream):
    """A link on which every write takes its time, and that keeps the piece sizes."""

    def __init__(self, inner: Stream, seconds_a_write: float) -> None:
        self.inner = inner
        self.seconds_a_write = seconds_a_write
        self.writes_bytes: list[int] = []
        self.cancelled_writes = 0
        self.closed = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self.writes_bytes.append(len(data))
        try:
            await trio.sleep(self.seconds_a_write)
        except trio.Cancelled:
            self.cancelled_writes += 1
            raise
        await self.inner.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self.inner.receive_some(max_bytes)

    async def aclose(self) -> None:
        self.closed = True
        await self.inner.aclose()


@asynccontextmanager
async def session_over_slow_link(
    seconds_a_write: float, limit_bytes: int
) -> AsyncIterator[tuple[Session, SlowStream, list[str]]]:
    """A session whose client, once it is open, writes slowly; and what ``on_stuck`` was told."""
    ours, theirs = trio.testing.memory_stream_pair()
    slow = SlowStream(ours, 0.0)
    stuck: list[str] = []

    async def disconnect() -> None:
        stuck.append("disconnected")

    client, server = ClientChannel(slow, on_stuck=disconnect), ServerChannel(theirs)
    async with trio.open_nursery() as nursery:
        await nursery.start(client.run)
        await nursery.start(server.run)
        both = Session(client, server, nursery)
        await both.open()
        for channel in (client, server):
            channel.raise_limit(limit_bytes)
        await trio.testing.wait_all_tasks_blocked()
        slow.seconds_a_write = seconds_a_write
        slow.writes_bytes.clear()
        yield both, slow, stuck
        nursery.cancel_scope.cancel()


async def test_a_long_upload_over_a_slow_link_is_no_silence(autojump_clock: Clock) -> None:
    n = 10 * WRITE_BYTES // 4
    async with session_over_slow_link(2.0, 4 * n) as (both, slow, stuck):
        both.nursery.start_soon(both.serve)
        assert await both.client.request(step(0, n), timeout_s=100) == stepped(0)
        assert max(slow.writes_bytes) == WRITE_BYTES
        assert not stuck


async def test_a_stuck_write_loses_the_channel_and_asks_for_a_disconnect(
    autojump_clock: Clock,
) -> None:
    async with session_over_slow_link(1e9, LIMIT_BYTES) as (both, slow, stuck):
        start = trio.current_time()
        with pytest.raises(PeerTimeoutError, match="took nothing for 3 s"):
            await both.client.request(step(0), timeout_s=100)
        assert trio.current_time() - start == pytest.approx(3.0, abs=0.1)
        await both.client.aclose()
        assert stuck == ["disconnected"]
        assert slow.closed


async def test_a_request_that_times_out_does_not_cut_off_its_write(autojump_clock: Clock) -> None:
    async with session_over_slow_link(2.0, LIMIT_BYTES) as (both, slow, stuck):
        both.nursery.start_soon(both.serve)
        with pytest.raises(PeerTimeoutError):
            await both.client.request(step(0), timeout_s=1)
        assert await both.client.request(step(1), timeout_s=100) == stepped(1)
        assert slow.cancelled_writes == 0
        assert not stuck


async def test_cancelling_run_lets_the_write_in_hand_end(autojump_clock: Clock) -> None:
    async with session_over_slow_link(0.2, LIMIT_BYTES) as (both, slow, stuck):
        with trio.move_on_after(0.1):
            await both.client.request(step(0), timeout_s=10)
        both.nursery.cancel_scope.cancel()
    assert slow.cancelled_writes == 0
    assert slow.closed
    assert not stuck


async def test_a_server_is_not_held_by_a_client_that_never_opens(autojump_clock: Clock) -> None:
    async with server_of_raw_client(opened=False) as (server, peer), trio.open_nursery() as nursery:

        async def dribble() -> None:
            for byte in b"".join(ClientConnection().send(OPEN)):
                await trio.sleep(5)
                await peer.stream.send_all(bytes([byte]))

        nursery.start_soon(dribble)
        start = trio.current_time()
        with pytest.raises(PeerTimeoutError, match="didn't open"):
            await server.receive()
        assert trio.current_time() - start == pytest.approx(30.0, abs=0.1)
        nursery.cancel_scope.cancel()


async def test_a_server_is_not_held_by_a_client_that_went_silent(autojump_clock: Clock) -> None:
    async with server_of_raw_client() as (server, peer):
        await peer.say(step(0))
        assert await server.receive() == step(0)
        start = trio.current_time()
        with pytest.raises(PeerTimeoutError, match="client is silent for 30 s"):
            await server.receive()
        assert trio.current_time() - start == pytest.approx(30.0, abs=0.1)
        assert await peer.hear_all() == []


async def test_a_client_that_takes_a_long_reply_is_not_silent(autojump_clock: Clock) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    server = ServerChannel(SlowStream(ours, 9.0))
    peer = RawPeer(theirs, ClientConnection())
    n = 10 * WRITE_BYTES // 4
    async with trio.open_nursery() as nursery:
        await nursery.start(server.run)
        await peer.say(OPEN)
        assert await server.receive() == OPEN
        server.raise_limit(4 * n)
        await server.send(OPENED)
        assert await peer.hear() == [OPENED]
        peer.machine.raise_limit(4 * n)
        await peer.say(step(0))
        await server.receive()
        await server.send(stepped(0, n))
        assert await peer.hear() == [stepped(0, n)]
        assert server.lost is None
        nursery.cancel_scope.cancel()


# Loss


@pytest.mark.parametrize(
    ("part", "said"), [(slice(0, 0), "between"), (slice(0, -1), "inside"), (slice(0, 3), "inside")]
)
async def test_eof_without_closed_is_a_loss(part: slice, said: str, autojump_clock: Clock) -> None:
    async with client_of_raw_server() as (client, peer), trio.open_nursery() as nursery:

        async def leave() -> None:
            await peer.hear()
            await peer.stream.send_all(b"".join(peer.machine.send(stepped(0)))[part])
            await peer.stream.aclose()

        nursery.start_soon(leave)
        with pytest.raises(StreamLostError, match=f"ended {said}"):
            await client.request(step(0), timeout_s=100)


async def test_eof_without_close_is_a_loss_for_a_server(autojump_clock: Clock) -> None:
    async with server_of_raw_client() as (server, peer):
        await peer.stream.aclose()
        with pytest.raises(StreamLostError, match="ended between"):
            await server.receive()
        with pytest.raises(StreamLostError):
            await server.send(stepped(0))


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (Failure(ErrorCode.REFUSED, "who are you?"), PeerRefusedError),
        (Failure(ErrorCode.BUSY, "full", 7.0), PeerBusyError),
        (Failure(ErrorCode.MISMATCH, "other weights"), MismatchError),
    ],
)
async def test_a_failure_is_raised_as_its_error(
    failure: Failure, kind: type[Exception], autojump_clock: Clock
) -> None:
    async with session(opened=False) as both:

        async def refuse() -> None:
            await both.server.receive()
            await both.server.fail(
                failure.code, failure.message, retry_after_s=failure.retry_after_s
            )

        both.nursery.start_soon(refuse)
        with pytest.raises(kind, match=failure.message[:5]) as caught:
            await both.client.request(OPEN, timeout_s=5)
        if isinstance(caught.value, PeerBusyError):
            assert caught.value.retry_after_s == 7.0
        assert isinstance(both.client.lost, kind)


async def test_a_failure_before_open_wins_over_the_broken_pipe(autojump_clock: Clock) -> None:
    async with client_of_raw_server(opened=False) as (client, peer):
        await peer.say(Failure(ErrorCode.REFUSED, "not in the map"))
        await peer.stream.aclose()
        with pytest.raises(PeerRefusedError, match="not in the map"):
            await client.request(OPEN, timeout_s=5)


async def test_a_failure_that_is_read_after_a_broken_write_wins(autojump_clock: Clock) -> None:
    class LateReading(BreakingStream):
        async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
            await trio.sleep(0.1)
            return await self.inner.receive_some(max_bytes)

    ours, theirs = trio.testing.memory_stream_pair()
    await RawPeer(theirs, ServerConnection()).say(Failure(ErrorCode.REFUSED, "not in the map"))
    client = ClientChannel(LateReading(ours, at_read=False))
    async with trio.open_nursery() as nursery:
        await nursery.start(client.run)
        with pytest.raises(PeerRefusedError, match="not in the map"):
            await client.request(OPEN, timeout_s=5)


async def test_a_clients_failure_reaches_the_server(autojump_clock: Clock) -> None:
    async with server_of_raw_client() as (server, peer):
        await peer.say(Failure(ErrorCode.BAD_TENSOR, "NaN"))
        with pytest.raises(RemoteProtocolError, match="NaN"):
            await server.receive()


async def test_rubbish_is_told_to_the_peer_and_raised(autojump_clock: Clock) -> None:
    async with server_of_raw_client() as (server, peer):
        await peer.say(step(0))
        await peer.stream.send_all(b"GET / HTTP/1.1\r\n\r\n")
        with pytest.raises(RemoteProtocolError, match="announced"):
            while True:
                await server.receive()
        (told,) = await peer.hear_all()
        assert isinstance(told, Failure)
        assert told.code is ErrorCode.PROTOCOL


async def test_rubbish_from_a_server_is_told_and_raised_too(autojump_clock: Clock) -> None:
    async with client_of_raw_server() as (client, peer):
        await peer.stream.send_all(b"\xff" * 20)
        with pytest.raises(RemoteProtocolError):
            await client.request(step(0), timeout_s=5)
        told = (await peer.hear_all())[-1]
        assert isinstance(told, Failure)
        assert told.code is ErrorCode.PROTOCOL


async def test_a_foreign_error_of_the_stream_is_a_loss_that_keeps_its_cause(
    autojump_clock: Clock,
) -> None:
    ours, _theirs = trio.testing.memory_stream_pair()
    for broken_stream, verb in (
        (BreakingStream(ours, at_read=True), "read from"),
        (BreakingStream(ours, at_read=False), "write to"),
    ):
        client = ClientChannel(broken_stream)
        async with trio.open_nursery() as nursery:
            await nursery.start(client.run)
            with pytest.raises(StreamLostError, match=verb) as caught:
                await client.request(OPEN, timeout_s=100)
            assert isinstance(caught.value.__cause__, ConnectionResetError)


async def test_an_error_of_our_own_from_the_stream_is_kept(autojump_clock: Clock) -> None:
    ours, _theirs = trio.testing.memory_stream_pair()
    client = ClientChannel(BreakingStream(ours, at_read=True, error=PeerTimeoutError("frozen")))
    await client.run()
    with pytest.raises(PeerTimeoutError, match="frozen"):
        await client.request(OPEN, timeout_s=100)


class BreakingStream(trio.abc.Stream):
    """A stream that breaks at its first read or write, and once more when it is closed."""

    def __init__(self, inner: Stream, *, at_read: bool, error: Exception | None = None) -> None:
        self.inner = inner
        self.at_read = at_read
        self.error = error or ConnectionResetError("foreign")

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if not self.at_read:
            raise self.error
        await self.inner.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        if self.at_read:
            raise self.error
        return await self.inner.receive_some(max_bytes)

    async def aclose(self) -> None:
        raise self.error


# The end


async def test_aclose_gives_up_on_a_peer_that_does_not_confirm(autojump_clock: Clock) -> None:
    async with client_of_raw_server() as (client, peer):
        start = trio.current_time()
        await client.aclose()
        assert trio.current_time() - start == pytest.approx(1.0, abs=0.1)
        assert isinstance(client.lost, StreamLostError)
        assert (await peer.hear_all())[-1] == Close()


async def test_aclose_drops_what_waits_and_what_comes_late(autojump_clock: Clock) -> None:
    async with session() as both:
        both.nursery.start_soon(both.serve, 5.0)
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                with pytest.raises(StreamLostError, match="closed"):
                    await both.client.request(step(0), timeout_s=100)

            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            await both.client.aclose()
        assert both.client.lost is None
        with pytest.raises(StreamLostError, match="closed"):
            await both.client.request(step(0), timeout_s=100)


async def test_a_cancelled_aclose_still_says_close(autojump_clock: Clock) -> None:
    async with client_of_raw_server() as (client, peer):
        start = trio.current_time()
        with trio.CancelScope() as scope:
            scope.cancel()
            await client.aclose()
        assert trio.current_time() - start < 0.5
        assert (await peer.hear_all())[-1] == Close()


async def test_cancelling_run_says_close_and_closes_the_stream(autojump_clock: Clock) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    client, server = ClientChannel(ours), ServerChannel(theirs)
    async with trio.open_nursery() as nursery:
        await nursery.start(server.run)
        async with trio.open_nursery() as inner:
            await inner.start(client.run)
            await Session(client, server, nursery).open()
            inner.cancel_scope.cancel()
        assert isinstance(client.lost, StreamLostError)
        assert await server.receive() == Close()


async def test_cancelling_a_servers_run_tells_the_client(autojump_clock: Clock) -> None:
    async with client_of_raw_server(opened=False) as (client, peer):
        server = ServerChannel(peer.stream)
        async with trio.open_nursery() as nursery:
            await nursery.start(server.run)
            nursery.cancel_scope.cancel()
        with pytest.raises(StreamLostError, match="the server ended the session"):
            await client.request(OPEN, timeout_s=5)


async def test_a_server_that_closes_says_that_it_goes_away(autojump_clock: Clock) -> None:
    async with session() as both:
        await both.server.aclose()
        await both.server.aclose()
        with pytest.raises(StreamLostError, match="the server ended the session"):
            await both.client.request(step(0), timeout_s=5)
        with pytest.raises(StreamLostError, match="going_away"):
            await both.server.receive()


async def test_a_channel_that_never_ran_closes_its_stream(autojump_clock: Clock) -> None:
    for kind in (ClientChannel, ServerChannel):
        ours, theirs = trio.testing.memory_stream_pair()
        channel = kind(ours)
        await channel.aclose()
        assert await theirs.receive_some() == b""
        await channel.run()


async def test_replies_after_close_are_dropped(autojump_clock: Clock) -> None:
    async with server_of_raw_client() as (server, peer):
        await peer.say(step(0))
        assert await server.receive() == step(0)
        await peer.say(step(1), Close())
        assert (await peer.hear_all())[-1] == Closed()
        await server.send(stepped(0))
        assert await server.receive() == Close()


# Floods


async def test_a_client_that_asks_too_much_breaks_the_protocol(autojump_clock: Clock) -> None:
    async with server_of_raw_client() as (server, peer):
        peer.machine = ClientConnection(Limits(max_in_flight=1000))
        peer.machine.send(OPEN)
        list(peer.machine.receive(b"".join(opened_bytes())))
        await peer.say(*(Truncate(n) for n in range(9)))
        with pytest.raises(RemoteProtocolError, match="8 requests"):
            while True:
                await server.receive()


def opened_bytes() -> tuple[bytes | memoryview, ...]:
    machine = ServerConnection()
    list(machine.receive(b"".join(ClientConnection().send(OPEN))))
    return machine.send(OPENED)


async def test_a_client_that_pings_and_does_not_read_cannot_fill_memory(
    autojump_clock: Clock,
) -> None:
    ours, theirs = trio.testing.lockstep_stream_pair()
    server = ServerChannel(ours)
    flood = RawPeer(theirs, ClientConnection(Limits(max_pings=100_000)))
    async with trio.open_nursery() as nursery:
        await nursery.start(server.run)
        await flood.say(OPEN)
        await server.receive()
        with pytest.raises(trio.BrokenResourceError):
            for nonce in range(1000):
                await flood.say(Ping(nonce))
                assert server._pump.queued_bytes < 1000
        assert isinstance(server.lost, RemoteProtocolError)
        nursery.cancel_scope.cancel()


async def test_a_server_that_answers_what_nobody_asked_is_lost(autojump_clock: Clock) -> None:
    async with client_of_raw_server() as (client, peer):
        await peer.stream.send_all(b"".join(unasked()))
        await trio.testing.wait_all_tasks_blocked()
        assert isinstance(client.lost, RemoteProtocolError)


def unasked() -> tuple[bytes | memoryview, ...]:
    """A Truncated out of the blue."""
    client, server = ClientConnection(), ServerConnection()
    list(server.receive(b"".join(client.send(OPEN))))
    list(client.receive(b"".join(server.send(OPENED))))
    list(server.receive(b"".join(client.send(Truncate(0)))))
    return server.send(Truncated(0))
