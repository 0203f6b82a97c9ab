"""Attacks by number: nonsense, idle sockets, connections and sessions opened and closed."""

from __future__ import annotations

import random
import statistics

import trio

from proof.honest import Caller
from proof.hostile import HELLO, malformed, raw_socket
from proof.report import Row
from proof.swarm import Server
from proof.watch import Probes, watched

__all__ = ["idle_connections", "malformed_connections", "many_connections", "many_sessions"]

AT_ONCE = 50
HANDSHAKE_MEMORY_BYTES = 128 << 20
CHURN_MEMORY_BYTES = 48 << 20
AS_FAST = 2.0
NOTHING_S = 0.005  # below that, a ratio of times says nothing


async def malformed_connections(server: Server, caller: Caller, count: int, seed: int) -> Row:
    """``count`` connections of nonsense, 50 at once, while a listed peer comes and goes."""
    row = Row("malformed connections", count)
    probes = Probes()
    limit = trio.CapacityLimiter(AT_ONCE)
    hung_up = 0

    async def one(number: int) -> None:
        nonlocal hung_up
        async with limit:
            ended = await malformed(caller.target.port, random.Random(f"{seed}/{number}"))
            hung_up += ended == "hung up"

    async with watched(row, server, bound_bytes=HANDSHAKE_MEMORY_BYTES):
        async with trio.open_nursery() as probing:
            probing.start_soon(probes.run, caller)
            async with trio.open_nursery() as nursery:
                for number in range(count):
                    nursery.start_soon(one, number)
            probing.cancel_scope.cancel()
        await probes.one(caller)
    row.facts["ended by the server"] = hung_up
    probes.judge(row)
    return row


async def idle_connections(server: Server, caller: Caller, count: int, hold_s: float) -> Row:
    """``count`` sockets that say nothing, or half a word, and stay."""
    row = Row("idle connections", count)
    probes = Probes()
    async with watched(row, server, bound_bytes=HANDSHAKE_MEMORY_BYTES):
        idle: list[trio.SocketStream] = []
        try:
            async with trio.open_nursery() as probing:
                probing.start_soon(probes.run, caller)
                for number in range(count):
                    idle.append(await raw_socket(caller.target.port))
                    if number % 3 == 0:
                        try:
                            await idle[-1].send_all(HELLO[: number % len(HELLO)])
                        except trio.BrokenResourceError:
                            pass
                await trio.sleep(hold_s)
                probing.cancel_scope.cancel()
            await probes.one(caller)
        finally:
            for one in idle:
                one.socket.close()
    probes.judge(row)
    return row


async def many_connections(server: Server, caller: Caller, count: int) -> Row:
    """Connect and disconnect, one after another."""
    row = Row("connections opened and closed", count)
    took_s: list[float] = []
    target = caller.target
    async with watched(row, server, bound_bytes=CHURN_MEMORY_BYTES):
        async with caller.host() as host:
            for _ in range(count):
                begun = trio.current_time()
                await host.connect(target.peer_id, [target.addr], timeout_s=10)
                took_s.append(trio.current_time() - begun)
                await host.disconnect(target.peer_id)
        probes = Probes()
        await probes.one(caller)
        probes.judge(row)
    _judge_speed(row, took_s)
    return row


async def many_sessions(server: Server, caller: Caller, count: int) -> Row:
    """Sessions of one step over one connection; every tenth is broken off instead of closed."""
    row = Row("sessions opened and closed", count)
    took_s: list[float] = []
    async with watched(row, server, bound_bytes=CHURN_MEMORY_BYTES):
        async with caller.host() as host:
            await host.connect(caller.target.peer_id, [caller.target.addr], timeout_s=10)
            for number in range(count):
                if number % 10 == 9:
                    stream = await host.open_stream(caller.target.peer_id)
                    await stream.send_all(b"\0\0\0")
                    await stream.reset()
                else:
                    took_s.append(await caller.served_s(host))
    _judge_speed(row, took_s)
    return row


def _judge_speed(row: Row, took_s: list[float]) -> None:
    """The last tenth is as fast as the first: medians, so that one pause of the machine is none."""
    part = max(1, len(took_s) // 10)
    first, last = statistics.median(took_s[:part]), statistics.median(took_s[-part:])
    row.facts["first tenth ms"] = first * 1e3
    row.facts["last tenth ms"] = last * 1e3
    row.require(
        last <= max(first, NOTHING_S) * AS_FAST,
        f"the last ones took {last * 1e3:.1f} ms, the first {first * 1e3:.1f} ms",
    )
