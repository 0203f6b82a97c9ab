from __future__ import annotations

import trio
import trio.testing

from gptnode.errors import GptNodeError
from gptnode.net.pump import READ_BYTES, WRITE_BYTES, Pump

Clock = trio.testing.MockClock


class Ear:
    """Keeps what a pump says."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.flushes = 0
        self.errors: list[GptNodeError] = []
        self.cancellations = 0

    def received(self, data: bytes | bytearray) -> None:
        self.data += data

    def flushed(self) -> None:
        self.flushes += 1

    def failed(self, error: GptNodeError) -> None:
        self.errors.append(error)

    def cancelled(self) -> None:
        self.cancellations += 1


class Recorder(trio.abc.Stream):
    """Takes all, says nothing, and keeps how it was used."""

    def __init__(self) -> None:
        self.written: list[bytes | bytearray | memoryview] = []
        self.asked_bytes: list[int | None] = []
        self.over = trio.Event()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        self.written.append(data)

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        self.asked_bytes.append(max_bytes)
        await self.over.wait()
        return b""

    async def aclose(self) -> None:
        self.over.set()
        await trio.lowlevel.checkpoint()


async def test_small_buffers_are_joined_and_large_ones_cut_without_a_copy(
    autojump_clock: Clock,
) -> None:
    stream, ear = Recorder(), Ear()
    pump = Pump(stream, ear, stuck_after_s=3)
    large = bytes(range(256)) * 1024
    pump.write([b"prefix", large])
    pump.write([b"small"])
    assert pump.queued_bytes == 6 + len(large) + 5
    async with trio.open_nursery() as nursery:
        await nursery.start(pump.run)
        await pump.wait_flushed()
        await pump.aclose()
    assert b"".join(stream.written) == b"prefix" + large + b"small"
    assert [len(piece) for piece in stream.written[:-1]] == [WRITE_BYTES] * 4
    # The first piece was joined with the prefix, the last with what came behind.
    assert all(
        isinstance(piece, memoryview) and piece.obj is large for piece in stream.written[1:-1]
    )
    assert stream.asked_bytes == [READ_BYTES]
    assert ear.flushes == 1
    assert not ear.errors


async def test_finish_writes_what_is_queued_first(autojump_clock: Clock) -> None:
    stream = Recorder()
    pump = Pump(stream, Ear(), stuck_after_s=3)
    pump.write([b"last words"])
    pump.finish()
    await pump.run()
    assert b"".join(stream.written) == b"last words"
    assert not pump.running


async def test_a_cancelled_run_may_say_a_last_word(autojump_clock: Clock) -> None:
    class Polite(Ear):
        def cancelled(self) -> None:
            super().cancelled()
            pump.write([b"farewell"])

    stream, ear = Recorder(), Polite()
    pump = Pump(stream, ear, stuck_after_s=3)
    async with trio.open_nursery() as nursery:
        await nursery.start(pump.run)
        nursery.cancel_scope.cancel()
    assert b"".join(stream.written) == b"farewell"
    assert ear.cancellations == 1
    assert stream.over.is_set()


async def test_aclose_may_be_called_by_many_and_while_cancelled(autojump_clock: Clock) -> None:
    pump = Pump(Recorder(), Ear(), stuck_after_s=3)
    async with trio.open_nursery() as nursery:
        await nursery.start(pump.run)
        for _ in range(3):
            nursery.start_soon(pump.aclose)
        nursery.cancel_scope.cancel()
    await pump.aclose()
    assert not pump.running


async def test_a_close_that_hangs_is_given_up(autojump_clock: Clock) -> None:
    class Hanging(Recorder):
        async def aclose(self) -> None:
            await trio.sleep_forever()

    pump = Pump(Hanging(), Ear(), stuck_after_s=3)
    start_s = trio.current_time()
    async with trio.open_nursery() as nursery:
        await nursery.start(pump.run)
        await pump.aclose()
    assert trio.current_time() - start_s <= 1


async def test_a_write_stuck_at_the_end_asks_for_a_disconnect(autojump_clock: Clock) -> None:
    class Stuck(Recorder):
        async def send_all(self, data: bytes | bytearray | memoryview) -> None:
            await trio.sleep_forever()

    told: list[float] = []

    async def disconnect() -> None:
        told.append(trio.current_time())

    pump = Pump(Stuck(), Ear(), stuck_after_s=3, on_stuck=disconnect)
    start_s = trio.current_time()
    async with trio.open_nursery() as nursery:
        await nursery.start(pump.run)
        pump.write([b"x"])
        await trio.testing.wait_all_tasks_blocked()
        await pump.aclose()
    assert len(told) == 1
    assert trio.current_time() - start_s <= 2
