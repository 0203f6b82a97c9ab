"""`gptnode serve` processes on loopback, and the map that a client needs to use them."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import ServerProcess, server_process
from gptnode.demo.layout import ServerPlace, lay_out_swarm

__all__ = ["Swarm", "running_swarm"]

MODEL = "bench"


@dataclass(frozen=True, slots=True)
class Swarm:
    """Servers that serve; ``where`` is what `gptnode bench` needs to go through them."""

    servers: tuple[ServerProcess, ...]
    where: tuple[str | Path, ...]


@contextmanager
def running_swarm(folder: Path, n_servers: int, threads: int) -> Iterator[Swarm]:
    """``n_servers`` that share the blocks of the model in ``folder``; ended with the block.

    All may use ``threads`` cores: only one of them computes at a time.

    Raises:
        GptNodeError: one of them didn't get ready.
    """
    with tempfile.TemporaryDirectory(prefix="gptnode-bench-") as name, ExitStack() as stack:
        layout = lay_out_swarm(Path(name), n_servers, MODEL, folder)
        servers = tuple(
            stack.enter_context(server_process(_serve(layout.map_path, place, threads)))
            for place in layout.servers
        )
        where = ("--map", layout.map_path, "--identity", layout.client_identity_path)
        yield Swarm(servers, where)


def _serve(map_path: Path, place: ServerPlace, threads: int) -> list[str | Path]:
    return [
        *(sys.executable, "-m", "gptnode", "serve", "--map", map_path),
        *("--identity", place.identity_path, "--listen", place.addr),
        *("--threads", str(threads), "--log-level", "warning"),
    ]
