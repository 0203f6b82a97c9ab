"""What a swarm on this machine looks like on disk: identities, free ports, the BlocksMap.

Starts no processes and imports neither torch nor libp2p.
"""

from __future__ import annotations

import json
import socket
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from gptnode.demo.bundled import count_blocks
from gptnode.errors import UsageError
from gptnode.net.identity import create_identity
from gptnode.span import Span

__all__ = ["ServerPlace", "SwarmLayout", "free_ports", "lay_out_swarm", "split_evenly"]

LOOPBACK = "127.0.0.1"
NAMES = ("anna", "ben", "cora", "dan", "eva", "finn", "gina", "hugo")


@dataclass(frozen=True, slots=True)
class ServerPlace:
    """One server of the swarm before it runs."""

    name: str
    peer_id: str
    identity_path: Path
    port: int
    span: Span

    @property
    def addr(self) -> str:
        """The multiaddr that it listens on."""
        return f"/ip4/{LOOPBACK}/tcp/{self.port}"


@dataclass(frozen=True, slots=True)
class SwarmLayout:
    """A swarm before it runs: files that are written, and who will serve what."""

    map_path: Path
    client_identity_path: Path
    servers: tuple[ServerPlace, ...]


def lay_out_swarm(folder: Path, n_peers: int, model_name: str, model_dir: Path) -> SwarmLayout:
    """Write identities for ``n_peers`` servers and a client, and the BlocksMap that joins them.

    Args:
        folder: where the files go; private to this user.
        n_peers: how many servers share the model's blocks as evenly as they can.
        model_name: what the map calls the model.
        model_dir: the model's files.

    Raises:
        UsageError: fewer than one server, or more than the model has blocks.
        GptNodeError: a file can't be written or the model's config.json can't be read.
    """
    n_blocks = count_blocks(model_dir)
    if not 1 <= n_peers <= n_blocks:
        raise UsageError(
            f"--peers {n_peers}: {model_name} has {n_blocks} blocks to share,"
            f" so there can be 1 to {n_blocks} servers"
        )
    spans = split_evenly(n_blocks, n_peers)
    servers: list[ServerPlace] = []
    for index, (span, port) in enumerate(zip(spans, free_ports(n_peers), strict=True)):
        name = NAMES[index] if index < len(NAMES) else f"server-{index + 1}"
        path = folder / f"{name}.key"
        servers.append(ServerPlace(name, create_identity(path).peer_id, path, port, span))
    client_path = folder / "client.key"
    map_path = folder / "blocksmap.json"
    document = {
        "models": [{"name": model_name, "path": str(model_dir.resolve())}],
        "peers": [
            {"name": server.name, "id": server.peer_id, "addrs": [server.addr]}
            for server in servers
        ],
        "routes": [{"blocks": str(server.span), "peers": [server.name]} for server in servers],
        "clients": [{"name": "client", "id": create_identity(client_path).peer_id}],
    }
    map_path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return SwarmLayout(map_path, client_path, tuple(servers))


def split_evenly(n_blocks: int, n_parts: int) -> tuple[Span, ...]:
    """Contiguous spans over all blocks whose lengths differ by one at most, longer ones first."""
    share, rest = divmod(n_blocks, n_parts)
    stops = [share * (part + 1) + min(rest, part + 1) for part in range(n_parts)]
    starts = [0, *stops[:-1]]
    return tuple(Span(start, stop) for start, stop in zip(starts, stops, strict=True))


def free_ports(count: int) -> tuple[int, ...]:
    """Different loopback ports that nobody listens on at this moment."""
    with ExitStack() as stack:
        # All are held until the last one is found, so that none comes twice.
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((LOOPBACK, 0))
        return tuple(int(each.getsockname()[1]) for each in sockets)
