"""What metrics read when somebody looks: the state of a node as numbers."""

from __future__ import annotations

from collections.abc import Iterator

from gptnode import __version__
from gptnode.net.host import Host
from gptnode.node import metric_catalogue as names
from gptnode.node.block_keeper import BlockKeeper
from gptnode.node.budget import KVBudget
from gptnode.node.metric_catalogue import Reading
from gptnode.node.service import ServiceLoad
from gptnode.routing.blocks_map import BlocksMap

__all__ = ["network_readings", "server_readings", "service_readings"]


def network_readings(host: Host | None) -> Iterator[Reading]:
    """Of any node: who it is and what went over the wire; ``host`` is None where there is none."""
    yield Reading(names.NODE_INFO, 1, (host.peer_id if host is not None else "", __version__))
    if host is None:
        return
    received, sent = host.traffic_bytes()
    yield Reading(names.CONNECTIONS, len(host.links()))
    yield Reading(names.RECEIVED_BYTES, received)
    yield Reading(names.SENT_BYTES, sent)
    yield Reading(names.REFUSED_PEERS, host.refused.total)


def server_readings(
    keeper: BlockKeeper, budget: KVBudget, blocks_map: BlocksMap, *, ready: bool
) -> Iterator[Reading]:
    """Of a block server."""
    yield Reading(names.READY, int(ready))
    for model, spans in keeper.served():
        yield Reading(names.BLOCKS_LOADED, sum(len(span) for span in spans), (model,))
    yield Reading(names.SESSIONS, budget.total.sessions)
    yield Reading(names.SESSIONS_LIMIT, budget.max_sessions)
    yield Reading(names.KV_BYTES, budget.total.n_bytes)
    yield Reading(names.KV_LIMIT_BYTES, budget.max_bytes)
    lent: dict[str, int] = {}
    for peer_id, has in budget.by_peer.items():
        label = _label(blocks_map, peer_id)
        lent[label] = lent.get(label, 0) + has.sessions
    for label, sessions in lent.items():
        yield Reading(names.PEER_SESSIONS, sessions, (label,))


def service_readings(load: ServiceLoad) -> Iterator[Reading]:
    """Of a service."""
    yield Reading(names.SERVICE_ANSWERING, load.answering)
    yield Reading(names.SERVICE_WAITING, load.waiting)
    yield Reading(names.SERVICE_IDLE, load.idle)
    yield Reading(names.SERVICE_KV_BYTES, load.own_kv_bytes)


def _label(blocks_map: BlocksMap, peer_id: str) -> str:
    """What people call a peer or client; one that was just struck off has no name any more."""
    entry = blocks_map.peer(peer_id)
    if entry is not None:
        return entry.label
    labels = [client.label for client in blocks_map.clients if client.id == peer_id]
    return labels[0] if labels else "not in the map"
