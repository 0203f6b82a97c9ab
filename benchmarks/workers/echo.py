"""echo.py: how long a message takes to another process and back, as one line of JSON.

Each side has a server process of its own. One client is connected to all of them and takes them in
turn, block by block, so that what drifts for one drifts for all. A server reads a whole message,
then sends it back, as a node does with a step.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Protocol

import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from libp2p import new_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_new_x25519_key_pair
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX
from libp2p.stream_muxer.yamux.yamux import Yamux
from multiaddr import Multiaddr

from gptnode.net import handshake
from gptnode.net.host import PROTOCOL, open_host
from gptnode.net.identity import Identity

READ_BYTES = 256 * 1024
STOCK_WRITE_BYTES = 65_507  # a larger write becomes two of its records
WARM_UP_S = 0.3
LOOPBACK = "/ip4/127.0.0.1/tcp/0"


class Echoing(Protocol):
    """What every side can do."""

    async def send_all(self, data: bytes | memoryview) -> None:
        """Send it."""

    async def receive_some(self, max_bytes: int) -> bytes | bytearray:
        """What is there."""


class StockStream:
    """A stream of py-libp2p in the words of trio."""

    def __init__(self, stream: object) -> None:
        """Of a host that ``new_host`` made."""
        self._stream = stream

    async def send_all(self, data: bytes | memoryview) -> None:
        """In the pieces that suit it best."""
        for at in range(0, len(data), STOCK_WRITE_BYTES):
            await self._stream.write(bytes(data[at : at + STOCK_WRITE_BYTES]))  # type: ignore[attr-defined]

    async def receive_some(self, max_bytes: int) -> bytes:
        """Its read."""
        return bytes(await self._stream.read(max_bytes))  # type: ignore[attr-defined]


async def read_message(stream: Echoing, n_bytes: int) -> bytearray:
    """One whole message."""
    message = bytearray()
    while len(message) < n_bytes:
        data = await stream.receive_some(READ_BYTES)
        if not data:
            raise EOFError
        message += data
    return message


async def echo(stream: Echoing) -> None:
    """Messages with their length before them, for as long as they come."""
    try:
        while True:
            start = await read_message(stream, 8)
            n_bytes = int.from_bytes(start[:8], "big")
            message = start[8:]
            if len(message) < n_bytes:
                message += await read_message(stream, n_bytes - len(message))
            await stream.send_all(memoryview(message))
    except (EOFError, trio.BrokenResourceError, trio.ClosedResourceError):
        return


# -- the sides -------------------------------------------------------------------------------------


def everyone(_: str) -> bool:
    """All peers are let in."""
    return True


async def serve_raw() -> None:
    """trio's sockets and nothing else."""
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    print("ready", listener.socket.getsockname()[1], flush=True)
    await trio.serve_listeners(echo, [listener])


@asynccontextmanager
async def connect_raw(port: str) -> AsyncIterator[Echoing]:
    """Its client."""
    async with await trio.open_tcp_stream("127.0.0.1", int(port)) as stream:
        yield stream


async def serve_node() -> None:
    """A host of gptnode."""
    identity = Identity(Ed25519PrivateKey.generate())
    async with open_host(identity, listen=[LOOPBACK], allow=everyone, handler=echo) as host:
        print("ready", host.addrs[0], flush=True)
        await trio.sleep_forever()


@asynccontextmanager
async def connect_node(addr: str) -> AsyncIterator[Echoing]:
    """Its client."""
    peer_id = addr.rpartition("/")[2]
    async with open_host(Identity(Ed25519PrivateKey.generate()), allow=everyone) as host:
        await host.connect(peer_id, [addr])
        async with await host.open_stream(peer_id) as stream:
            yield stream


def only_yamux() -> None:
    """As with a peer that isn't a gptnode."""
    handshake.MUXERS = (str(YAMUX),)


async def serve_yamux() -> None:
    """A host of gptnode that doesn't know its own muxer."""
    only_yamux()
    await serve_node()


async def serve_stock() -> None:
    """py-libp2p as it comes."""
    host = _stock_host()

    async def handle(stream: object) -> None:
        await echo(StockStream(stream))

    host.set_stream_handler(PROTOCOL, handle)
    async with host.run(listen_addrs=[Multiaddr(LOOPBACK)]):
        print("ready", host.get_addrs()[0], flush=True)
        await trio.sleep_forever()


@asynccontextmanager
async def connect_stock(addr: str) -> AsyncIterator[Echoing]:
    """Its client."""
    host = _stock_host()
    async with host.run(listen_addrs=[]):
        await host.connect(info_from_p2p_addr(Multiaddr(addr)))
        peer_id = ID.from_base58(addr.rpartition("/")[2])
        yield StockStream(await host.new_stream(peer_id, [PROTOCOL]))


def _stock_host():  # type: ignore[no-untyped-def]
    pair = create_new_key_pair()
    noise = NoiseTransport(pair, create_new_x25519_key_pair().private_key)
    return new_host(key_pair=pair, sec_opt={NOISE: noise}, muxer_opt={YAMUX: Yamux})


SERVERS: dict[str, Callable[[], Awaitable[None]]] = {
    "raw": serve_raw,
    "gptnode": serve_node,
    "yamux": serve_yamux,
    "stock": serve_stock,
}
CLIENTS = {
    "raw": connect_raw,
    "gptnode": connect_node,
    "yamux": connect_node,
    "stock": connect_stock,
}


# -- measuring -------------------------------------------------------------------------------------


async def round_trip_ms(stream: Echoing, message: bytes) -> float:
    """One message there and back."""
    n_bytes = len(message) - 8
    start = time.perf_counter()
    await stream.send_all(message)
    await read_message(stream, n_bytes)
    return 1000 * (time.perf_counter() - start)


async def measure(sides: list[str], n_bytes: int, blocks: int, block_s: float) -> dict[str, float]:
    """For each side the median round trip in ms; of each block, then of the blocks."""
    message = n_bytes.to_bytes(8, "big") + bytes(n_bytes)
    medians: dict[str, list[float]] = {side: [] for side in sides}
    async with AsyncExitStack() as stack:
        streams: dict[str, Echoing] = {}
        for side in sides:
            process, address = _start(side)
            stack.callback(_end, process)
            if side == "yamux":
                only_yamux()
            streams[side] = await stack.enter_async_context(CLIENTS[side](address))
        for stream in streams.values():
            await _block(stream, message, WARM_UP_S)
        for _ in range(blocks):
            for side, stream in streams.items():
                medians[side].append(await _block(stream, message, block_s))
    return {side: statistics.median(each) for side, each in medians.items()}


async def _block(stream: Echoing, message: bytes, block_s: float) -> float:
    times_ms = []
    end = time.perf_counter() + block_s
    while time.perf_counter() < end or len(times_ms) < 3:
        times_ms.append(await round_trip_ms(stream, message))
    return statistics.median(times_ms)


def _start(side: str) -> tuple[subprocess.Popen[str], str]:
    process = subprocess.Popen(
        [sys.executable, __file__, "--serve", side], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, process.stdout.readline().split()[1]


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


def main() -> None:
    """Serve or measure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--serve", choices=SERVERS)
    parser.add_argument("--sides", default=",".join(SERVERS))
    parser.add_argument("--bytes", type=int, default=8192)
    parser.add_argument("--blocks", type=int, default=9)
    parser.add_argument("--block-s", type=float, default=0.25)
    options = parser.parse_args()
    if options.serve:
        trio.run(SERVERS[options.serve])
        return
    sides = options.sides.split(",")
    print(json.dumps(trio.run(measure, sides, options.bytes, options.blocks, options.block_s)))


if __name__ == "__main__":
    main()
