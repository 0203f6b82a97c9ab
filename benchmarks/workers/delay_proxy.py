"""A proxy for TCP connections that holds back every byte for a while, both ways: a longer wire.

    python benchmarks/workers/delay_proxy.py DELAY_MS LISTEN:TARGET [LISTEN:TARGET ...]

Ports of this machine; the delay is that of one way. Says `ready` once it listens, and lives until
it is ended. No bandwidth is taken away, nothing is lost or reordered.
"""

from __future__ import annotations

import math
import sys
from functools import partial

import trio

CHUNK_BYTES = 1 << 20
AHEAD_CHUNKS = 4096


async def carry(delay_s: float, source: trio.SocketStream, sink: trio.SocketStream) -> None:
    """One direction of one connection, to its end."""
    send, receive = trio.open_memory_channel[tuple[float, bytes]](AHEAD_CHUNKS)

    async def deliver() -> None:
        async for due_s, data in receive:
            await trio.sleep_until(due_s)
            await sink.send_all(data)
        await sink.send_eof()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(deliver)
        async with send:
            while data := bytes(await source.receive_some(CHUNK_BYTES)):
                await send.send((trio.current_time() + delay_s, data))


async def connect(delay_s: float, target: int, here: trio.SocketStream) -> None:
    """Both directions; a broken end breaks the other."""
    try:
        async with here, await trio.open_tcp_stream("127.0.0.1", target) as there:
            for stream in (here, there):
                stream.setsockopt(trio.socket.IPPROTO_TCP, trio.socket.TCP_NODELAY, 1)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(carry, delay_s, here, there)
                nursery.start_soon(carry, delay_s, there, here)
    except* (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
        pass


async def main() -> None:
    """Until it is ended."""
    delay_s = float(sys.argv[1]) / 1000
    if not 0 <= delay_s < math.inf:
        raise ValueError(f"{sys.argv[1]} is no delay")
    async with trio.open_nursery() as nursery:
        for pair in sys.argv[2:]:
            listen, target = map(int, pair.split(":"))
            serve = partial(trio.serve_tcp, partial(connect, delay_s, target), listen)
            await nursery.start(partial(serve, host="127.0.0.1"))
        print("ready", flush=True)


if __name__ == "__main__":
    trio.run(main)
