"""A listed peer that floods: one stream, one connection, past its window, without reading."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from gptnode.net.host import Host, PeerStream
from gptnode.wire.messages import Ping
from proof.honest import Caller
from proof.mutations import bytes_of
from proof.report import Row
from proof.swarm import Server
from proof.watch import Probes, watched

__all__ = ["floods"]

# 32 streams with a window of 4 MiB each may be unread on a connection, and are joined once more.
FLOOD_MEMORY_BYTES = 320 << 20
PIECE = bytes(1 << 20)

Flood = Callable[[Host, Caller, float], Awaitable[str]]


async def floods(server: Server, flooder: Caller, honest: Caller, seconds: float) -> list[Row]:
    """Each flood for ``seconds`` or until the server ends it; another peer comes and goes."""
    rows = []
    for name, flood in FLOODS.items():
        row = Row(f"flood: {name}", 1)
        probes = Probes()
        async with watched(row, server, bound_bytes=FLOOD_MEMORY_BYTES):
            async with trio.open_nursery() as probing:
                probing.start_soon(probes.run, honest)
                async with flooder.host() as host:
                    target = flooder.target
                    await host.connect(target.peer_id, [target.addr], timeout_s=10)
                    row.facts["ended"] = await flood(host, flooder, seconds)
                probing.cancel_scope.cancel()
            await probes.one(honest)
        probes.judge(row)
        rows.append(row)
    return rows


async def _pour(stream: PeerStream, data: bytes, seconds: float) -> str:
    """Write without end."""
    sent = 0
    with trio.move_on_after(seconds):
        try:
            while True:
                await stream.send_all(data)
                sent += len(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return f"by the server after {sent >> 20} MiB"
    return f"by the clock after {sent >> 20} MiB"


async def nonsense(host: Host, caller: Caller, seconds: float) -> str:
    """Zeros on a stream that was agreed on."""
    return await _pour(await host.open_stream(caller.target.peer_id), PIECE, seconds)


async def past_its_window(host: Host, caller: Caller, seconds: float) -> str:
    """A session that is open, and writes whatever the server granted."""
    stream = await host.open_stream(caller.target.peer_id)
    await stream.send_all(bytes_of(caller.target.open))
    await stream.receive_some()
    stream._muxed.send_window = 1 << 40
    return await _pour(stream, bytes_of(caller.target.step(0, 16)) * 50, seconds)


async def steps_unread(host: Host, caller: Caller, seconds: float) -> str:
    """Right steps, more than may be in flight, and no reply is read."""
    stream = await host.open_stream(caller.target.peer_id)
    await stream.send_all(bytes_of(caller.target.open))
    await stream.receive_some()
    return await _pour(stream, bytes_of(caller.target.step(0, 32)), seconds)


async def pings_unread(host: Host, caller: Caller, seconds: float) -> str:
    """Pings, and no Pong is read."""
    stream = await host.open_stream(caller.target.peer_id)
    await stream.send_all(bytes_of(caller.target.open))
    await stream.receive_some()
    return await _pour(stream, bytes_of(Ping(7)) * 1000, seconds)


async def streams(host: Host, caller: Caller, seconds: float) -> str:
    """Streams without end on one connection, each with a word of an unknown protocol."""
    opened = failed = 0
    link = host._live_link(caller.target.peer_id)
    with trio.move_on_after(seconds):
        while link is not None and link.is_live:
            try:
                stream = await link.open_stream()
                opened += 1
                await stream.send_all(b"\x13/multistream/1.0.0\n")
                await stream.reset() if opened % 2 else await stream.aclose()
            except trio.BrokenResourceError:
                failed += 1
                await trio.sleep(0.001)
    live = link is not None and link.is_live
    return f"by the {'clock' if live else 'server'} after {opened} streams, {failed} failed"


FLOODS: dict[str, Flood] = {
    "nonsense on one stream": nonsense,
    "one stream past its window": past_its_window,
    "steps on one stream, unread": steps_unread,
    "pings on one stream, unread": pings_unread,
    "streams on one connection": streams,
}
