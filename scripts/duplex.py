"""Full duplex at saturation between two processes: every byte is checked, and nothing may stop.

    python scripts/duplex.py                                  # 60 minutes, 4 streams each way
    python scripts/duplex.py --minutes 0.1 --streams 2

Both sides write on every stream as fast as they can and read what the other writes; between them
runs a small echo on a stream of its own, whose slowest round trip says how long a token would wait.
Writers are cancelled now and then, and go on with a new stream. The exit code is 1 if anything
stands still for STALL_S, a byte is wrong, or memory grows.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import psutil
import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

from gptnode.errors import GptNodeError, PeerBusyError  # noqa: E402
from gptnode.net.host import Host, PeerStream, open_host  # noqa: E402
from gptnode.net.identity import Identity  # noqa: E402

STALL_S = 20.0
SAMPLE_S = 1.0
GROWTH_BYTES = 96 << 20
CANCEL_EVERY_S = 3.0
ECHO_BYTES = 8192
BLOCK_BYTES = 1 << 20
READ_BYTES = 256 * 1024


@dataclass
class Tally:
    """What moved so far, and when something last did."""

    read_bytes: int = 0
    written_bytes: int = 0
    echoes: int = 0
    slowest_echo_ms: float = 0.0
    cancelled: int = 0
    slow_opens: int = 0
    idle_s: float = 0.0


def pattern(seed: int) -> bytes:
    """A block of bytes that is nobody else's, of a length that fits no frame or record."""
    return hashlib.shake_256(seed.to_bytes(8, "big")).digest(BLOCK_BYTES - 37)


class Duplex:
    """One process's side: what it writes, what it must read."""

    def __init__(self, tally: Tally) -> None:
        """Counts into ``tally``."""
        self.tally = tally
        self.failure: Exception | None = None
        self.moved_at_s = trio.current_time()
        self.echoed_at_s = self.moved_at_s

    async def write(self, stream: PeerStream, seed: int) -> None:
        """The seed, then its pattern over and over."""
        await stream.send_all(b"D" + seed.to_bytes(8, "big"))
        block = pattern(seed)
        while True:
            await stream.send_all(block)
            self.tally.written_bytes += len(block)

    async def read(self, stream: PeerStream) -> None:
        """Check the other side's pattern until it resets the stream, which is how it ends."""
        start = bytearray()
        while len(start) < 8:
            data = await stream.receive_some(8 - len(start))
            if not data:
                raise EOFError("a stream ended that should go on")
            start += data
        block = pattern(int.from_bytes(start, "big"))
        view = memoryview(block + block)
        at = 0
        while True:
            data = await stream.receive_some(READ_BYTES)
            if not data:
                raise EOFError("a stream ended that should go on")
            if data != view[at : at + len(data)]:
                raise ValueError(f"wrong bytes after {self.tally.read_bytes}")
            at = (at + len(data)) % len(block)
            self.tally.read_bytes += len(data)
            self.moved_at_s = trio.current_time()

    async def both(self, stream: PeerStream, seed: int) -> None:
        """Write and read on a stream of its own until it breaks off."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.write, stream, seed)
                if await stream.receive_some(1) != b"D":
                    raise ValueError("another kind of stream than was opened")
                await self.read(stream)
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    async def serve(self, stream: PeerStream) -> None:
        """A stream that the other side opened: echoed, or written and read as its own are."""
        try:
            if await stream.receive_some(1) == b"E":
                while data := await stream.receive_some(READ_BYTES):
                    await stream.send_all(data)
                return
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.write, stream, int.from_bytes(os.urandom(4), "big"))
                await self.read(stream)
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        except* (ValueError, EOFError) as group:  # the host would only log it
            self.failure = group.exceptions[0]

    async def echo(self, host: Host, peer_id: str) -> None:
        """Small messages there and back, beside all the rest."""
        stream = await host.open_stream(peer_id, timeout_s=STALL_S)
        await stream.send_all(b"E")
        while True:
            message = os.urandom(ECHO_BYTES)
            started = trio.current_time()
            await stream.send_all(message)
            got = bytearray()
            while len(got) < len(message):
                got += await stream.receive_some(READ_BYTES)
            if got != message:
                raise ValueError("an echo came back changed")
            self.echoed_at_s = trio.current_time()
            took_ms = 1000 * (self.echoed_at_s - started)
            self.tally.echoes += 1
            self.tally.slowest_echo_ms = max(self.tally.slowest_echo_ms, took_ms)
            await trio.sleep(0.01)

    async def keep_writing(self, host: Host, peer_id: str, seed: int) -> None:
        """One stream after another; each is given up in the middle of a write."""
        while True:
            try:
                stream = await host.open_stream(peer_id, timeout_s=STALL_S)
            except PeerBusyError:  # not answered in time: a machine with more to do than this
                self.tally.slow_opens += 1
                continue
            with trio.move_on_after(CANCEL_EVERY_S):
                await self.both(stream, seed)
                raise EOFError("the connection or a stream was lost")
            self.tally.cancelled += 1
            await stream.reset()
            seed += 1

    async def watch(self, rss_bytes: list[int]) -> None:
        """End it all with TooSlowError if nothing moves any more; sample the memory."""
        process = psutil.Process()
        while True:
            await trio.sleep(SAMPLE_S)
            if self.failure is not None:
                raise self.failure
            now_s = trio.current_time()
            idle_s = max(now_s - self.moved_at_s, now_s - self.echoed_at_s)
            self.tally.idle_s = max(self.tally.idle_s, idle_s)
            if idle_s > STALL_S:
                raise trio.TooSlowError(f"nothing moved for {idle_s:.0f} s: {self.tally}")
            rss_bytes.append(process.memory_info().rss)


async def side(minutes: float, streams: int, addr: str | None) -> dict[str, object]:
    """Run one side for ``minutes``; the one without ``addr`` listens and prints where."""
    duplex, rss_bytes = Duplex(Tally()), [psutil.Process().memory_info().rss]
    listen = () if addr else ("/ip4/127.0.0.1/tcp/0",)
    peer_id = addr.rpartition("/")[2] if addr else ""
    connected = trio.Event()

    async def handle(stream: PeerStream) -> None:
        nonlocal peer_id
        peer_id = stream.peer_id
        connected.set()
        await duplex.serve(stream)

    identity = Identity(Ed25519PrivateKey.generate())
    started = time.monotonic()
    async with open_host(identity, listen=listen, allow=lambda _: True, handler=handle) as host:
        if addr is not None:
            await host.connect(peer_id, [addr])
        else:
            print(host.addrs[0], flush=True)
            with trio.fail_after(STALL_S):
                await connected.wait()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(duplex.watch, rss_bytes)
                nursery.start_soon(duplex.echo, host, peer_id)
                for number in range(streams):
                    nursery.start_soon(duplex.keep_writing, host, peer_id, 1000 * number)
                await trio.sleep(60 * minutes + (0 if addr else STALL_S))
                nursery.cancel_scope.cancel()
        except* (EOFError, trio.BrokenResourceError, GptNodeError):
            if addr or time.monotonic() - started < 60 * minutes:
                raise  # else the dialler has ended, as it should
        seconds = time.monotonic() - started
    warm = rss_bytes[len(rss_bytes) // 4 :]
    tally = duplex.tally
    return {
        **asdict(tally),
        "seconds": round(seconds, 1),
        "read_mb_per_s": round(tally.read_bytes / seconds / 1e6, 1),
        "written_mb_per_s": round(tally.written_bytes / seconds / 1e6, 1),
        "rss_mb": [round(value / 1e6) for value in (warm[0], warm[-1], max(rss_bytes))],
        "grew": warm[-1] - warm[0] > GROWTH_BYTES,
    }


@click.command()
@click.option("--minutes", type=click.FloatRange(min=0.02), default=60.0, show_default=True)
@click.option("--streams", type=click.IntRange(min=1, max=16), default=4, show_default=True)
@click.option("--dial", hidden=True, help="Address of the other process.")
def main(minutes: float, streams: int, dial: str | None) -> None:
    """Saturate both directions and print what moved, as one JSON object."""
    if dial is not None:
        addr = None if dial == "listen" else dial
        print(json.dumps(trio.run(side, minutes, streams, addr)), flush=True)
        return
    other = both_processes(minutes, streams)
    print(json.dumps(other, indent=1))
    sides = other.values()
    good = all(one.get("echoes") and one["read_bytes"] and not one["grew"] for one in sides)
    sys.exit(0 if good else 1)


def both_processes(minutes: float, streams: int) -> dict[str, dict[str, object]]:
    """The listener in a process, the dialler in another; a hang of either is an error."""
    common = ["--minutes", str(minutes), "--streams", str(streams)]
    program = [sys.executable, str(Path(__file__).resolve())]
    with subprocess.Popen(
        [*program, "--dial", "listen", *common], stdout=subprocess.PIPE, text=True
    ) as listener:
        assert listener.stdout is not None
        addr = listener.stdout.readline().strip()
        with subprocess.Popen(
            [*program, "--dial", addr, *common], stdout=subprocess.PIPE, text=True
        ) as dialler:
            results = {}
            for name, process in (("dialler", dialler), ("listener", listener)):
                try:
                    out, _ = process.communicate(timeout=60 * minutes + 3 * STALL_S)
                except subprocess.TimeoutExpired:
                    out = ""
                finally:
                    process.kill()
                results[name] = json.loads(out) if out.strip() else {"read_bytes": 0}
    return results


if __name__ == "__main__":
    main()
