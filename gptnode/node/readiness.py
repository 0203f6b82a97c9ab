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
    metrics.watch(
        lambda: server_readings(keeper, budget, follower.blocks_map, ready=not reasons())
    )
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
    served = dict(keeper.served())
    assigned = assigned_blocks(follower.blocks_map, peer_id)
    for one in assigned:
        held = {block for span in served.get(one.entry.name, ()) for block in span}
        missing = [span for span in one.spans if not held.issuperset(span)]
        if missing:
            spans = ", ".join(str(span) for span in missing)
            reasons.append(f"loading: blocks {spans} of {one.entry.name} are not there yet")
    if server.loading and not reasons:
        reasons.append("loading: the map was edited")
    if not assigned:
        reasons.append("the BlocksMap gives this node no blocks")
    return tuple(reasons)
