"""A block server's composition root: puts it together from its parts, and takes it apart."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import structlog
import trio

from gptnode.errors import PeerUnreachableError
from gptnode.net.host import Host, PeerStream, open_host
from gptnode.net.identity import Identity, load_identity, short_peer_id
from gptnode.net.link import StreamSlots
from gptnode.node.allow_list import AllowList
from gptnode.node.block_keeper import BlockKeeper
from gptnode.node.block_server import BlockServer
from gptnode.node.budget import KVBudget
from gptnode.node.compute import ComputeLane, device_wait
from gptnode.node.config import ServeConfig
from gptnode.node.loading import open_device
from gptnode.node.map_follower import MapFollower
from gptnode.node.meter import NO_METER
from gptnode.node.metrics import Metrics
from gptnode.node.metrics_endpoint import serve_pages
from gptnode.node.nursery import background_nursery
from gptnode.node.readiness import server_pages
from gptnode.node.status import report_status
from gptnode.routing.blocks_map import BlocksMap, read_blocks_map
from gptnode.span import Span

__all__ = ["ReadyInfo", "serve", "stream_slots"]

DEFAULT_LISTEN = "/ip4/0.0.0.0/tcp/4001"
# Longest wait for sessions to end; closing the host takes a second more.
DRAIN_S = 3.0
# A stream beyond the sessions is told BUSY, with a reason. One beyond these as well is just reset.
SPARE_STREAMS = 16


@dataclass(frozen=True, slots=True)
class ReadyInfo:
    """What a server serves once it does, and where."""

    peer_id: str
    addrs: tuple[str, ...]
    blocks: tuple[tuple[str, tuple[Span, ...]], ...]


async def serve(
    config: ServeConfig, *, ready: Callable[[ReadyInfo], None], leave: trio.Event | None = None
) -> None:
    """Serve the blocks that the map gives to this identity, as the map's file is edited.

    Peers are answered from the start: with LOADING until the blocks are there.

    Args:
        config: What the command line said.
        ready: Called once, when all blocks are loaded and served.
        leave: When it is set, the server hands its sessions over and returns. Without it, it serves
            until cancelled, which ends sessions where they are.

    Raises:
        GptNodeError: map, identity, model folder or address are wrong.
    """
    blocks_map = read_blocks_map(config.map_path)
    identity = load_identity(config.identity_path)
    allow = AllowList(blocks_map)
    budget = _budget(config)
    slots = stream_slots(budget)
    with ComputeLane(config.threads, wait=device_wait(open_device(config.device))) as lane:
        metrics = Metrics() if config.metrics is not None else None
        meter = metrics if metrics is not None else NO_METER
        server = BlockServer(lane, budget, secrets.randbits(48), meter=meter)
        keeper = BlockKeeper(config, identity.peer_id, lane, server)
        keeper.open_first(blocks_map)
        listen = config.listen or _listen_addrs(blocks_map, identity)
        async with (
            open_host(
                identity, listen=listen, allow=allow.allows, handler=server.handle, slots=slots
            ) as host,
            background_nursery() as nursery,
        ):
            told = False

            def settled() -> None:
                nonlocal told
                if not told:
                    told = True
                    ready(ReadyInfo(identity.peer_id, host.addrs, keeper.served()))

            follower = MapFollower(config.map_path, blocks_map, allow, host, keeper, meter=meter)
            server.dial = partial(_dial, host, follower)
            url = None
            if metrics is not None and config.metrics is not None:
                pages = server_pages(metrics, host, server, keeper, follower, budget)
                url = await nursery.start(serve_pages, config.metrics, pages)
                structlog.get_logger("gptnode.node").info("metrics", url=url)
            await nursery.start(report_status, config, host, server, keeper, follower, budget, url)
            nursery.start_soon(keeper.run, settled)
            nursery.start_soon(follower.run)
            if leave is None:
                await trio.sleep_forever()
            await leave.wait()
            await _drain(server)


async def _dial(host: Host, follower: MapFollower, peer_id: str) -> PeerStream:
    """A stream to a peer, where this node's own map says that it is: clients can't choose that.

    Raises:
        NetworkError: the map doesn't know it, or it can't be reached.
    """
    entry = follower.blocks_map.peer(peer_id)
    if entry is None:
        raise PeerUnreachableError(f"{short_peer_id(peer_id)} is not in this server's BlocksMap")
    await host.connect(peer_id, entry.addrs)
    return await host.open_stream(peer_id)


async def _drain(server: BlockServer) -> None:
    log = structlog.get_logger("gptnode.node")
    log.info("leaving: sessions are handed over")
    with trio.move_on_after(DRAIN_S) as scope:
        await server.drain()
    if scope.cancelled_caught:
        log.warning("some sessions did not end in time and are cut off", after_s=DRAIN_S)


def stream_slots(budget: KVBudget) -> StreamSlots:
    """Streams for all sessions of ``budget``, and as many that feed them: over a ring another
    server may feed all of them, each over a stream of its own."""
    return StreamSlots(
        budget.max_sessions + SPARE_STREAMS, 2 * budget.max_sessions + 4 * SPARE_STREAMS
    )


def _budget(config: ServeConfig) -> KVBudget:
    """The limits, and for one peer half of them unless the configuration says otherwise."""
    return KVBudget(
        config.kv_bytes,
        config.max_sessions,
        max_peer_bytes=config.peer_kv_bytes or config.kv_bytes // 2,
        max_peer_sessions=config.max_peer_sessions or max(1, config.max_sessions // 2),
    )


def _listen_addrs(blocks_map: BlocksMap, identity: Identity) -> tuple[str, ...]:
    """All interfaces, on the port of this node's address in the map."""
    entry = blocks_map.peer(identity.peer_id)
    for addr in entry.addrs if entry is not None else ():
        parts = addr.split("/")
        if "tcp" in parts[:-1]:
            return (f"/ip4/0.0.0.0/tcp/{parts[parts.index('tcp') + 1]}",)
    return (DEFAULT_LISTEN,)
