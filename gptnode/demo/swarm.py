"""A swarm on this machine: real server processes over loopback, gone when the block ends."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from gptnode.demo.bundled import MODEL_NAME, bundled_model_folder
from gptnode.demo.layout import lay_out_swarm
from gptnode.demo.server_process import ServerProcess, start_server

__all__ = ["LocalSwarm", "local_swarm"]

READY_TIMEOUT_S = 90.0
"""Long, because eight servers may start on two slow cores; one that fails is noticed at once."""


@dataclass(frozen=True, slots=True)
class LocalSwarm:
    """A swarm that serves; everything that a client needs to use it."""

    map_path: Path
    client_identity_path: Path
    servers: tuple[ServerProcess, ...]


@asynccontextmanager
async def local_swarm(
    n_peers: int,
    *,
    model_dir: Path | None = None,
    model_name: str = MODEL_NAME,
    report: Callable[[str], None] = lambda line: None,
    ready_timeout_s: float = READY_TIMEOUT_S,
) -> AsyncIterator[LocalSwarm]:
    """``n_peers`` servers that share the blocks of one model, each with its own identity.

    Identities, map and logs lie in a temporary folder. The servers start side by side.

    Args:
        n_peers: from 1 to the number of the model's blocks.
        model_dir: the model's folder; the bundled one if None.
        model_name: what the map calls it.
        report: shows one line of progress.
        ready_timeout_s: how long all servers together may take to get ready.

    Raises:
        UsageError: that many servers make no sense.
        GptNodeError: a server didn't get ready.

    *Resource handling*: servers and folder are gone when the block ends, by whatever error or
    cancellation. If this process is killed, the servers still end by themselves.
    """
    with tempfile.TemporaryDirectory(prefix="gptnode-", ignore_cleanup_errors=True) as name:
        layout = lay_out_swarm(Path(name), n_peers, model_name, model_dir or bundled_model_folder())
        report(f"starting {n_peers} server{'s' if n_peers > 1 else ''} on this machine ...")
        servers: list[ServerProcess] = []
        try:
            for place in layout.servers:
                # One thread each: they share this machine's cores, and threads that wait spin.
                options = ("--threads", "1")
                servers.append(await start_server(place, layout.map_path, options=options))
            deadline = trio.current_time() + ready_timeout_s
            for server in servers:
                await server.wait_ready(max(0.0, deadline - trio.current_time()))
                report(f"{server.place.name} is ready, with blocks {server.place.span}")
            yield LocalSwarm(layout.map_path, layout.client_identity_path, tuple(servers))
        finally:
            await _stop_all(servers)


async def _stop_all(servers: Sequence[ServerProcess]) -> None:
    """Ends all of them side by side, also when cancelled."""
    with trio.CancelScope(shield=True):
        async with trio.open_nursery() as nursery:
            for server in servers:
                nursery.start_soon(server.stop)
