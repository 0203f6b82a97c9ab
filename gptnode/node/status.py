"""What a server tells its owner about itself: who is connected, at the door, and turned away."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import structlog
import trio

from gptnode.net.host import Host
from gptnode.node.block_keeper import BlockKeeper
from gptnode.node.block_server import BlockServer
from gptnode.node.budget import KVBudget, Lent
from gptnode.node.config import ServeConfig
from gptnode.node.map_follower import MapFollower
from gptnode.node.status_file import StatusFile
from gptnode.routing.blocks_map import BlocksMap

__all__ = ["report_status"]

INTERVAL_S = 0.5


async def report_status(
    config: ServeConfig,
    host: Host,
    server: BlockServer,
    keeper: BlockKeeper,
    follower: MapFollower,
    budget: KVBudget,
    metrics_url: str | None,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Keep the status file current until cancelled; a server whose folder can't be written to
    serves all the same. It has started when the file is there for the first time."""
    log = structlog.get_logger("gptnode.node")
    started = failed = False
    with StatusFile(config.identity_path) as file:
        while True:
            status = {
                "peer_id": host.peer_id,
                "map": str(config.map_path.resolve()),
                "metrics": metrics_url,
                **_serving(server, keeper, follower),
                "lent": {"sessions": budget.total.sessions, "kv_bytes": budget.total.n_bytes},
                "limits": {"sessions": budget.max_sessions, "kv_bytes": budget.max_bytes},
                "connected": _connected(host, follower.blocks_map, budget),
                "pending": [
                    {"addr": one.addr, "since": _time(one.since_s)} for one in host.strangers()
                ],
                "refused": _refused(host),
            }
            try:
                await trio.to_thread.run_sync(file.write, status)  # it waits for the disk
            except OSError as error:
                if not failed:
                    log.warning("`gptnode peers` won't see this server", reason=str(error))
                failed = True
            if not started:
                started = True
                task_status.started()
            await trio.sleep(INTERVAL_S)


def _serving(server: BlockServer, keeper: BlockKeeper, follower: MapFollower) -> dict[str, Any]:
    state = "leaving" if server.leaving else "loading" if server.loading else "serving"
    problems = ([follower.problem] if follower.problem else []) + list(keeper.problems)
    blocks = {name: [str(span) for span in spans] for name, spans in keeper.served()}
    return {"state": state, "blocks": blocks, "problems": problems}


def _connected(host: Host, blocks_map: BlocksMap, budget: KVBudget) -> list[dict[str, Any]]:
    """One entry for each connection; what a peer has borrowed stands at each of its own."""
    lent = budget.by_peer
    return [
        {
            "id": link.peer_id,
            "name": _name(blocks_map, link.peer_id),
            "role": "client" if blocks_map.peer(link.peer_id) is None else "peer",
            "addr": link.addr,
            "since": _time(link.since_s),
            "sessions": lent.get(link.peer_id, Lent()).sessions,
            "kv_bytes": lent.get(link.peer_id, Lent()).n_bytes,
        }
        for link in host.links()
    ]


def _refused(host: Host) -> list[dict[str, Any]]:
    return [
        {
            "id": one.peer_id,
            "addr": one.addr,
            "count": one.count,
            "first": _time(one.first_s),
            "last": _time(one.last_s),
        }
        for one in host.refused.latest_first()
    ]


def _name(blocks_map: BlocksMap, peer_id: str) -> str:
    names = {one.id: one.name for one in blocks_map.clients}
    names |= {one.id: one.name for one in blocks_map.peers}
    return names.get(peer_id, "")


def _time(seconds: float) -> str:
    """ISO 8601 in UTC, to the second."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
