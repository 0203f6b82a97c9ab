"""Attacks by number: nonsense, idle sockets, connections and sessions opened and closed."""

from __future__ import annotations

import random
import statistics
from collections.abc import Iterator
from contextlib import contextmanager

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
AS_FAST = 1.5
LITTLE_CPU_S = 0.2  # the kernel counts in hundredths of a second: less says nothing


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
    target = caller.target
    pace = Pace(server, count)
    async with watched(row, server, bound_bytes=CHURN_MEMORY_BYTES):
        async with caller.host() as host:
            for _ in range(count):
                with pace.one():
                    await host.connect(target.peer_id, [target.addr], timeout_s=10)
                await host.disconnect(target.peer_id)
        probes = Probes()
        await probes.one(caller)
        probes.judge(row)
    pace.judge(row)
    return row


async def many_sessions(server: Server, caller: Caller, count: int) -> Row:
    """Sessions of one step over one connection; every tenth is broken off instead of closed."""
    row = Row("sessions opened and closed", count)
    pace = Pace(server, count)
    async with watched(row, server, bound_bytes=CHURN_MEMORY_BYTES), caller.host() as host:
        await host.connect(caller.target.peer_id, [caller.target.addr], timeout_s=10)
        for number in range(count):
            with pace.one():
                await caller.served_s(host)
            if number % 10 == 9:
                stream = await host.open_stream(caller.target.peer_id)
                await stream.send_all(b"\0\0\0")
                await stream.reset()
    pace.judge(row)
    return row


class Pace:
    """Whether the last ones are served as fast as the first.

    Judged is the server's processor time, which other programs of the machine don't change; the
    time that passed is told.
    """

    def __init__(self, server: Server, count: int) -> None:
        """Of ``count`` in all, the first and last tenth are compared."""
        self._server = server
        self._part = max(1, count // 10)
        self._took_s: list[float] = []
        self._marks = {self._part, count - self._part, count}
        self._cpu_s = [server.cpu_s()]

    @contextmanager
    def one(self) -> Iterator[None]:
        """One more is served in the block."""
        begun = trio.current_time()
        yield
        self._took_s.append(trio.current_time() - begun)
        if len(self._took_s) in self._marks:
            self._cpu_s.append(self._server.cpu_s())

    def judge(self, row: Row) -> None:
        """Figures of both tenths, in milliseconds for each."""
        part = self._part
        cpu = self._cpu_s[1] - self._cpu_s[0], self._cpu_s[-1] - self._cpu_s[-2]
        row.facts["first tenth ms"] = statistics.median(self._took_s[:part]) * 1e3
        row.facts["last tenth ms"] = statistics.median(self._took_s[-part:]) * 1e3
        row.facts["first tenth cpu ms"] = cpu[0] / part * 1e3
        row.facts["last tenth cpu ms"] = cpu[1] / part * 1e3
        row.require(
            cpu[1] <= max(cpu[0], LITTLE_CPU_S) * AS_FAST,
            f"the last {part} took {cpu[1]:.2f} s of the server, the first {cpu[0]:.2f} s",
        )
