"""Whether a server is ready: all blocks that its map gives it can be opened, and it stays."""

from __future__ import annotations

from functools import partial

from gptnode.net.host import Host
from gptnode.node.block_keeper import BlockKeeper, assigned_blocks
from gptnode.node.block_server import BlockServer
from gptnode.node.budget import KVBudget
from gptnode.node.health_pages import HealthPages
from gptnode.node.map_follower import MapFollower
from gptnode.node.metrics import Metrics
from gptnode.node.readings import network_readings, server_readings

__all__ = ["server_pages", "why_not_ready"]


def server_pages(
    metrics: Metrics,
    host: Host,
    server: BlockServer,
    keeper: BlockKeeper,
    follower: MapFollower,
    budget: KVBudget,
) -> HealthPages:
    """The pages by which machines watch a server; ``metrics`` also reads its state from now on."""
    reasons = partial(why_not_ready, host.peer_id, server, keeper, follower)
    metrics.watch(lambda: network_readings(host))
    metrics.watch(lambda: server_readings(keeper, budget, follower.blocks_map, ready=not reasons()))
    return HealthPages(metrics, reasons)


def why_not_ready(
    peer_id: str, server: BlockServer, keeper: BlockKeeper, follower: MapFollower
) -> tuple[str, ...]:
    """Why this server, ``peer_id``, can't take all sessions that its map sends to it; () if it can.

    An edit of the map that was rejected is no reason: the map before it is served on.
    """
    if server.leaving:
        return ("leaving: sessions are handed over to other peers",)
    reasons = [f"can't serve: {problem}" for problem in keeper.problems]
    assigned = assigned_blocks(follower.blocks_map, peer_id)
    for one in assigned:
        name = one.entry.name
        served = server.models.get(name)
        held = {n for stack in (served.stacks if served is not None else ()) for n in stack.span}
        lacks = [f"blocks {span}" for span in one.spans if not held.issuperset(span)]
        if one.ends.embed and (served is None or served.embedding is None):
            lacks.append("the embedding")
        if one.ends.head and (served is None or served.heads is None):
            lacks.append("the head")
        reasons += [f"loading: {part} of {name}" for part in lacks if not keeper.problems]
    if server.loading and not reasons:
        reasons.append("loading: the map was edited")
    if not assigned:
        reasons.append("the BlocksMap gives this node no blocks")
    return tuple(reasons)
