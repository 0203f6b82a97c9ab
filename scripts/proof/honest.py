"""A peer that keeps the rules: connects, opens a session, takes a step, leaves; and its times.

Used to see whether an attacked server still serves those whom it should.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from gptnode.demo.bundled import MODEL_NAME, bundled_model_folder
from gptnode.net.client_channel import ClientChannel
from gptnode.net.host import Host, open_host
from gptnode.net.identity import Identity
from gptnode.node.loading import folder_paths, open_device, open_model
from gptnode.span import Span
from gptnode.wire.limits import chunk_bytes
from gptnode.wire.messages import Open, Opened, Step, WireTensor

__all__ = ["Caller", "Target", "find_target"]

PROBE_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Target:
    """The server, and what one must know to open a session there."""

    peer_id: str
    addr: str
    open: Open
    d_model: int

    @property
    def port(self) -> int:
        """Of its address."""
        return int(self.addr.rpartition("/")[2])

    def step(self, position: int = 0, n_tokens: int = 1) -> Step:
        """A step of zeros."""
        data = bytes(n_tokens * self.d_model * 4)
        return Step(position, WireTensor("f32", (1, n_tokens, self.d_model), data))


def find_target(peer_id: str, addr: str) -> Target:
    """A server of all blocks of the bundled model in f32."""
    source = open_model(MODEL_NAME, folder_paths(bundled_model_folder()), "f32", open_device("cpu"))
    opening = Open(MODEL_NAME, source.key.fingerprint, Span(0, source.config.n_blocks), 64, "f32")
    return Target(peer_id, addr, opening, source.config.d_model)


class Caller:
    """One listed client of the target."""

    def __init__(self, identity: Identity, target: Target) -> None:
        """Dials nothing yet."""
        self.identity = identity
        self.target = target

    @asynccontextmanager
    async def host(self) -> AsyncIterator[Host]:
        """A host that isn't connected yet."""
        async with open_host(self.identity, allow=lambda _: True) as host:
            yield host

    @asynccontextmanager
    async def session(self, host: Host) -> AsyncIterator[tuple[ClientChannel, Opened]]:
        """A session that was opened; closed in order at the end of the block."""
        stream = await host.open_stream(self.target.peer_id)
        channel = ClientChannel(stream)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(channel.run)
            opened = await channel.request(self.target.open, timeout_s=10)
            channel.raise_limit(chunk_bytes(opened.max_chunk_tokens, self.target.d_model, "f32"))
            yield channel, opened
            await channel.aclose()

    async def served_s(self, host: Host) -> float:
        """Seconds for a session of one step over a live connection."""
        begun = trio.current_time()
        async with self.session(host) as (channel, _):
            await channel.request(self.target.step(), timeout_s=10)
        return trio.current_time() - begun

    async def connected_s(self) -> float:
        """Seconds to connect from nothing; then the session has to work too."""
        begun = trio.current_time()
        with trio.fail_after(PROBE_TIMEOUT_S):
            async with self.host() as host:
                await host.connect(self.target.peer_id, [self.target.addr], timeout_s=20)
                took_s = trio.current_time() - begun
                await self.served_s(host)
        return took_s
