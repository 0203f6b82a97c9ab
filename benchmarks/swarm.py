"""`gptnode serve` processes on loopback, and the map that a client needs to use them."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import ServerProcess, server_process
from gptnode.demo.layout import ServerPlace, SwarmLayout, free_ports, lay_out_swarm

__all__ = ["FarSwarm", "Swarm", "far_swarm", "running_swarm"]

PROXY = Path(__file__).resolve().parent / "workers" / "delay_proxy.py"

MODEL = "bench"


@dataclass(frozen=True, slots=True)
class Swarm:
    """Servers that serve; ``where`` is what `gptnode bench` needs to go through them."""

    servers: tuple[ServerProcess, ...]
    where: tuple[str | Path, ...]


@contextmanager
def running_swarm(
    folder: Path,
    n_servers: int,
    threads: int,
    *,
    pinned: bool = False,
    options: Sequence[str] = (),
) -> Iterator[Swarm]:
    """``n_servers`` that share the blocks of the model in ``folder``; ended with the block.

    All may use ``threads`` cores: only one of them computes at a time. ``pinned``: each has a core
    of its own instead, the first one the first. ``options`` are more of `gptnode serve`.

    Raises:
        GptNodeError: one of them didn't get ready.
    """
    with tempfile.TemporaryDirectory(prefix="gptnode-bench-") as name, ExitStack() as stack:
        layout = lay_out_swarm(Path(name), n_servers, MODEL, folder)
        servers = tuple(
            stack.enter_context(
                server_process(
                    [
                        *(("taskset", "--cpu-list", str(core)) if pinned else ()),
                        *_serve(layout.map_path, place, threads),
                        *options,
                    ]
                )
            )
            for core, place in enumerate(layout.servers)
        )
        where = ("--map", layout.map_path, "--identity", layout.client_identity_path)
        yield Swarm(servers, where)


@dataclass(frozen=True, slots=True)
class FarSwarm:
    """Servers that the map names at proxies; ``where`` as in Swarm."""

    where: tuple[str | Path, ...]
    ports: tuple[tuple[int, int], ...]

    @contextmanager
    def wires(self, delay_ms: float) -> Iterator[None]:
        """Within this every link, of a client or between servers, takes so long, one way."""
        pairs = [f"{listen}:{target}" for listen, target in self.ports]
        with server_process([sys.executable, PROXY, str(delay_ms), *pairs]):
            yield


@contextmanager
def far_swarm(folder: Path, n_servers: int, threads: int) -> Iterator[FarSwarm]:
    """As ``running_swarm``, but everybody reaches every server through a proxy, see ``wires``.

    Raises:
        GptNodeError: one of them didn't get ready.
    """
    with tempfile.TemporaryDirectory(prefix="gptnode-bench-") as name, ExitStack() as stack:
        layout = lay_out_swarm(Path(name), n_servers, MODEL, folder)
        ports = _at_proxies(layout)
        for place in layout.servers:
            stack.enter_context(server_process(_serve(layout.map_path, place, threads)))
        where = ("--map", layout.map_path, "--identity", layout.client_identity_path)
        yield FarSwarm(where, ports)


def _at_proxies(layout: SwarmLayout) -> tuple[tuple[int, int], ...]:
    """Have the map name a port for each server at which nobody listens yet: both ports."""
    ports = tuple(
        (proxy, place.port)
        for proxy, place in zip(free_ports(len(layout.servers)), layout.servers, strict=True)
    )
    text = layout.map_path.read_text(encoding="utf-8")
    for proxy, port in ports:
        text = text.replace(f'/tcp/{port}"', f'/tcp/{proxy}"')
    layout.map_path.write_text(text, encoding="utf-8")
    return ports


def _serve(map_path: Path, place: ServerPlace, threads: int) -> list[str | Path]:
    return [
        *(sys.executable, "-m", "gptnode", "serve", "--map", map_path),
        *("--identity", place.identity_path, "--listen", place.addr),
        *("--threads", str(threads), "--log-level", "warning"),
    ]
