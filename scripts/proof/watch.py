"""Watching an attacked server: its peak while it lasts, and the way back to where it was."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from proof.honest import Caller
from proof.report import Row
from proof.swarm import Reading, Server

__all__ = ["Probes", "Watched", "settled", "watched"]

CONNECT_WITHIN_S = 2.0
SETTLE_S = 20.0
GIVEN_BACK_BYTES = 48 << 20
SAMPLE_S = 0.05
PROBE_EVERY_S = 0.3


@dataclass
class Probes:
    """Seconds that a listed peer took to connect, one after another."""

    took_s: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    async def run(self, caller: Caller) -> None:
        """Until cancelled."""
        while True:
            await self.one(caller)
            await trio.sleep(PROBE_EVERY_S)

    async def one(self, caller: Caller) -> None:
        """One more."""
        try:
            self.took_s.append(await caller.connected_s())
        except Exception as error:
            self.failures.append(f"a listed peer could not connect: {error!r}"[:300])

    def judge(self, row: Row, within_s: float = CONNECT_WITHIN_S) -> None:
        """A listed peer got in each time, soon enough."""
        row.facts["connects"] = len(self.took_s)
        row.facts["slowest connect s"] = max(self.took_s, default=0.0)
        row.failures += self.failures
        row.require(bool(self.took_s), "no listed peer was let in at all")
        slow = [one for one in self.took_s if one > within_s]
        row.require(not slow, f"{len(slow)} connects took more than {within_s:g} s")


@dataclass
class Watched:
    """Memory and descriptors of a server at their highest."""

    before: Reading
    peak_bytes: int
    peak_descriptors: int

    async def run(self, server: Server) -> None:
        """Sample until cancelled."""
        while True:
            reading = server.reading()
            self.peak_bytes = max(self.peak_bytes, reading.rss_bytes)
            self.peak_descriptors = max(self.peak_descriptors, reading.descriptors)
            await trio.sleep(SAMPLE_S)


@asynccontextmanager
async def watched(row: Row, server: Server, *, bound_bytes: int) -> AsyncIterator[None]:
    """An attack; the server must live, come back to its baseline, and have logged no fault."""
    before = server.reading()
    tracebacks = server.tracebacks()
    watch = Watched(before, before.rss_bytes, before.descriptors)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch.run, server)
        yield
        nursery.cancel_scope.cancel()
    row.require(server.alive, f"the server died: {server.log_tail()}")
    if not server.alive:
        return
    after = await settled(server, before)
    row.facts["peak MiB over baseline"] = (watch.peak_bytes - before.rss_bytes) >> 20
    row.facts["kept MiB"] = (after.rss_bytes - before.rss_bytes) >> 20
    row.facts["peak descriptors"] = watch.peak_descriptors
    row.require(
        watch.peak_bytes - before.rss_bytes <= bound_bytes,
        f"memory rose by {(watch.peak_bytes - before.rss_bytes) >> 20} MiB, "
        f"{bound_bytes >> 20} are the bound",
    )
    row.require(
        after.descriptors <= before.descriptors,
        f"{after.descriptors} descriptors are open, {before.descriptors} were before",
    )
    row.require(
        after.threads <= before.threads, f"{after.threads} threads, {before.threads} before"
    )
    row.require(
        after.rss_bytes - before.rss_bytes <= GIVEN_BACK_BYTES,
        f"{(after.rss_bytes - before.rss_bytes) >> 20} MiB were not given back",
    )
    faults = server.tracebacks() - tracebacks
    row.require(faults == 0, f"{faults} tracebacks in the server's log")


async def settled(server: Server, before: Reading) -> Reading:
    """The server's reading once it is back at ``before``, or after SETTLE_S."""
    deadline = time.monotonic() + SETTLE_S
    reading = server.reading()
    while time.monotonic() < deadline:
        reading = server.reading()
        if (
            reading.descriptors <= before.descriptors
            and reading.threads <= before.threads
            and reading.rss_bytes - before.rss_bytes <= GIVEN_BACK_BYTES
        ):
            break
        await trio.sleep(0.2)
    return reading
