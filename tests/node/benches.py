"""Maps, and generators over them, for tests of the client's half."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

import trio

from gptnode.model.sampler import Sampler, Sampling
from gptnode.node.allow_list import AllowList
from gptnode.node.block_server import BlockServer
from gptnode.node.commons import Commons
from gptnode.node.compute import ComputeLane
from gptnode.node.ends import Ends, OwnEnds
from gptnode.node.generator import Generator
from gptnode.node.loading import ModelSource
from gptnode.node.meter import NO_METER, Meter
from gptnode.node.swarm import Swarm
from gptnode.routing.blocks_map import BlocksMap, ClientEntry, ModelEntry, PeerEntry, RouteEntry
from gptnode.routing.entries import NO_ENDS, PlacedEnds
from gptnode.span import Span

if TYPE_CHECKING:
    from .conftest import MemoryHost

__all__ = ["PROMPT", "Bench", "MakeServer", "SwarmOf", "make_map"]

MakeServer = Callable[..., BlockServer]
SwarmOf = Callable[..., "Bench"]
PROMPT = [1, 9, 17, 4, 33, 8, 21]


def make_map(
    *routes: tuple[str, tuple[str, ...]],
    clients: tuple[str, ...] = (),
    ends: PlacedEnds = NO_ENDS,
) -> BlocksMap:
    n_blocks = max(Span.parse(blocks).stop for blocks, _ in routes)
    names = {name for _, peers in routes for name in peers}
    return BlocksMap(
        models=(ModelEntry(name="tiny", path=None, dtype="f32", template=None, stop=()),),
        peers=tuple(
            PeerEntry(id=name, addrs=("/ip4/127.0.0.1/tcp/4001",), name=name)
            for name in sorted(names)
        ),
        routes=tuple(
            RouteEntry("tiny", span, peers, ends.within(span, n_blocks))
            for span, peers in ((Span.parse(blocks), peers) for blocks, peers in routes)
        ),
        clients=tuple(ClientEntry(id=name, name=name) for name in clients),
        self_peer_id=None,
        source=None,
    )


class Bench:
    """A generator and what it is made of."""

    def __init__(
        self,
        source: ModelSource,
        lane: ComputeLane,
        nursery: trio.Nursery,
        blocks_map: BlocksMap | None = None,
        host: MemoryHost | None = None,
        *,
        wait_s: float = 0.0,
        verify: float = 0.0,
        rng: Random | None = None,
        rings: bool = False,
        speculate: bool = False,
        meter: Meter = NO_METER,
    ) -> None:
        self.source, self.lane, self.nursery = source, lane, nursery
        self.map, self.host = blocks_map, host
        self.reports: list[str] = []
        self.swarm = Swarm(
            source,
            lane,
            nursery,
            self.reports.append,
            AllowList(blocks_map),
            blocks_map=blocks_map,
            host=host,
            wait_s=wait_s,
            verify=verify,
            rng=rng,
            commons=Commons(source, lane, meter=meter),
        )  # type: ignore[arg-type]
        self.ends = OwnEnds(source, lane)
        self.generator = Generator(
            Ends(self.ends),
            self.swarm,
            max_tokens=1024,
            rings=rings,
            speculate=speculate,
        )

    async def greedy(self, ids: list[int], n: int) -> list[int]:
        return await self.sampled(ids, n, Sampling(temperature=0.0))

    async def sampled(self, ids: list[int], n: int, sampling: Sampling) -> list[int]:
        sampler = Sampler(sampling)
        ids = list(ids)
        for _ in range(n):
            ids.append(await self.generator.next_token(ids, sampler))
        return ids
