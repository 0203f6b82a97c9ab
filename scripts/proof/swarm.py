"""Real `gptnode serve` processes on loopback, to be killed, frozen, attacked and started again.

Lays out identities and a BlocksMap in a folder. Knows processes and files; knows no protocol.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gptnode.demo.bundled import MODEL_NAME, bundled_model_folder, count_blocks
from gptnode.demo.layout import free_ports
from gptnode.net.identity import create_identity

__all__ = ["Place", "Reading", "Server", "Swarm", "environment"]

ROOT = Path(__file__).resolve().parents[2]
READY_S = 90.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where a server runs: its address, and what its command begins with."""

    host: str = "127.0.0.1"
    prefix: tuple[str, ...] = ()


HERE = Place()


@dataclass(frozen=True, slots=True)
class Reading:
    """What the kernel says about a process: resident memory, open descriptors, threads."""

    rss_bytes: int
    descriptors: int
    threads: int


class Server:
    """One place in the swarm; its process may be started, killed and started again."""

    def __init__(
        self,
        name: str,
        blocks: str,
        port: int,
        folder: Path,
        options: Sequence[str],
        *,
        place: Place = HERE,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        """Makes its identity; starts nothing. ``variables`` are added to its environment."""
        self.name = name
        self.blocks = blocks
        self.port = port
        self.key_path = folder / f"{name}.key"
        self.log_path = folder / f"{name}.log"
        self.peer_id = create_identity(self.key_path).peer_id
        self._map_path = folder / "blocksmap.json"
        self._options = tuple(options)
        self._place = place
        self._variables = dict(variables or {})
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def addr(self) -> str:
        """Where it listens."""
        return f"/ip4/{self._place.host}/tcp/{self.port}"

    @property
    def pid(self) -> int:
        """Of the process that was started last."""
        if self._process is None:
            raise RuntimeError(f"{self.name} was never started")
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process runs (or is frozen)."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it; `wait_ready` says when it serves. It ends when this process does."""
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *self._place.prefix,
                    *(sys.executable, "-m", "gptnode", "serve"),
                    *("--map", str(self._map_path), "--identity", str(self.key_path)),
                    *("--listen", self.addr, "--threads", "1", "--exit-with-stdin"),
                    *self._options,
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment() | self._variables,
                start_new_session=True,
            )

    def wait_ready(self, timeout_s: float = READY_S) -> None:
        """Wait for its ready line, or RuntimeError with the end of its log."""
        process = self._process
        if process is None or process.stdout is None:
            raise RuntimeError(f"{self.name} was never started")
        said = b""
        if select.select([process.stdout], [], [], timeout_s)[0]:
            said = process.stdout.readline()
        if not said.startswith(b"ready "):
            raise RuntimeError(f"{self.name} didn't get ready: {self.log_tail()}")

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal; nothing where it is gone."""
        if self._process is not None:
            self._process.send_signal(number)

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    with suppress(BrokenPipeError):
                        pipe.close()

    def terminate(self, timeout_s: float = 15.0) -> int:
        """SIGTERM; its exit code, or RuntimeError."""
        process = self._process
        if process is None:
            raise RuntimeError(f"{self.name} was never started")
        process.terminate()
        code = process.wait(timeout_s)
        self.kill()
        return code

    def reading(self) -> Reading:
        """From /proc."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
        return Reading(
            int(fields["VmRSS"].split()[0]) * 1024,
            sum(1 for _ in Path(f"/proc/{self.pid}/fd").iterdir()),
            int(fields["Threads"]),
        )

    def cpu_s(self) -> float:
        """Processor time that it has taken since it was started."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def log_tail(self) -> str:
        """The last lines of its log."""
        return " | ".join(self.log_path.read_text(errors="replace").splitlines()[-3:])

    def tracebacks(self) -> int:
        """How many tracebacks its log has: each one is a fault of ours."""
        return self.log_path.read_text(errors="replace").count("Traceback (most recent")


class Swarm:
    """Servers with the bundled model, their map, and identities of clients; a context manager."""

    def __init__(
        self,
        folder: Path,
        servers: Mapping[str, str],
        *,
        clients: Sequence[str] = ("client",),
        dtype: str = "f32",
        ends: bool = False,
        options: Sequence[str] = (),
        places: Mapping[str, Place] | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        """``servers``: name -> blocks ("0-3"), replicas in order. Nothing is started yet.

        ``ends``: those with the first and the last block have embedding and head, too.
        ``places`` are those that aren't here, ``variables`` go to all servers' environments.
        """
        self.folder = folder
        ports = free_ports(len(servers))
        self.servers = {
            name: Server(
                name,
                blocks,
                port,
                folder,
                options,
                place=(places or {}).get(name, HERE),
                variables=variables,
            )
            for (name, blocks), port in zip(servers.items(), ports, strict=True)
        }
        self.keys = {name: folder / f"{name}.key" for name in clients}
        self.client_ids = {name: create_identity(path).peer_id for name, path in self.keys.items()}
        self.dtype = dtype
        self.ends = ends
        self.write_map()

    @property
    def map_path(self) -> Path:
        """The BlocksMap that all share."""
        return self.folder / "blocksmap.json"

    def document(self) -> dict[str, Any]:
        """The map, as it is at first."""
        routes: dict[str, list[str]] = {}
        for server in self.servers.values():
            routes.setdefault(server.blocks, []).append(server.name)
        model = {"name": MODEL_NAME, "path": str(bundled_model_folder().resolve())}
        return {
            "models": [{**model, "dtype": self.dtype}],
            "peers": [
                {"name": server.name, "id": server.peer_id, "addrs": [server.addr]}
                for server in self.servers.values()
            ],
            "routes": [
                {"blocks": blocks, "peers": peers, **self._ends_of(blocks)}
                for blocks, peers in routes.items()
            ],
            "clients": [{"name": name, "id": id_} for name, id_ in self.client_ids.items()],
        }

    def _ends_of(self, blocks: str) -> dict[str, bool]:
        first, _, last = blocks.partition("-")
        n_blocks = count_blocks(bundled_model_folder())
        found = {"embed": first == "0", "head": int(last or first) == n_blocks - 1}
        return {name: True for name, has in found.items() if self.ends and has}

    def write_map(self) -> None:
        """Put the map there, whole or not at all."""
        beside = self.folder / "blocksmap.new"
        beside.write_text(json.dumps(self.document(), indent=2))
        beside.replace(self.map_path)

    def __enter__(self) -> Swarm:
        """Start all servers and wait until they serve."""
        try:
            for server in self.servers.values():
                server.start()
            for server in self.servers.values():
                server.wait_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Kill all that is left."""
        for server in self.servers.values():
            if server.alive:
                server.signal(signal.SIGCONT)
                server.kill()

    def tracebacks(self) -> int:
        """In the logs of all servers."""
        return sum(server.tracebacks() for server in self.servers.values())


def environment() -> dict[str, str]:
    """This environment without gptnode's own variables; one thread a process, and this gptnode."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GPTNODE_")}
    return {**kept, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
