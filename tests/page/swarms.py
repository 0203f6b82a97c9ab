"""A swarm of two server processes and the API before it, for a browser to look at."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from gptnode.net.identity import create_identity

NAMES = ("anna", "ben")
DEADLINE_S = 120.0


@dataclass
class Swarm:
    """anna and ben, who both hold all blocks; anna comes first for the first half, ben for the
    second."""

    folder: Path
    model: dict[str, str]
    halves: tuple[str, str]
    stack: ExitStack
    url: str = ""
    ids: dict[str, str] = field(default_factory=dict)
    addrs: dict[str, str] = field(default_factory=dict)
    processes: dict[str, subprocess.Popen[str]] = field(default_factory=dict)

    @property
    def map_path(self) -> Path:
        return self.folder / "swarm.json"

    def map_text(self, first: Sequence[str], second: Sequence[str]) -> str:
        """With those peers for the halves, as a person would write it."""
        peers = ",\n".join(
            "    " + json.dumps({"name": name, "id": self.ids[name], "addrs": [self.addrs[name]]})
            for name in NAMES
        )
        routes = ",\n".join(
            "    " + json.dumps({"blocks": blocks, "peers": list(names)})
            for blocks, names in zip(self.halves, (first, second), strict=True)
        )
        model = json.dumps(self.model)
        clients = json.dumps([{"name": "api", "id": self.ids["api"]}])
        return (
            f'{{\n  "models": [{model}],\n  "peers": [\n{peers}\n  ],\n'
            f'  "routes": [\n{routes}\n  ],\n  "clients": {clients}\n}}\n'
        )

    def start(self, name: str, *argv: str) -> str:
        """Start a gptnode command with the identity of ``name``; its ready line."""
        log = self.stack.enter_context((self.folder / f"{name}.log").open("a"))
        process = subprocess.Popen(
            [sys.executable, "-m", "gptnode", *argv, "--map", str(self.map_path),
             "--identity", str(self.folder / f"{name}.key"), "--threads", "1"],
            stdout=subprocess.PIPE, stderr=log, text=True,
            env={k: v for k, v in os.environ.items() if not k.startswith("GPTNODE_")},
        )  # fmt: skip
        self.stack.enter_context(process)
        self.stack.callback(process.kill)
        self.processes[name] = process
        return name

    def wait_ready(self, name: str) -> str:
        """Its ready line."""
        stdout = self.processes[name].stdout
        assert stdout is not None
        line = stdout.readline()
        assert line.startswith("ready "), (self.folder / f"{name}.log").read_text()
        return line

    def start_server(self, name: str) -> None:
        self.start(name, "serve")

    def kill(self, name: str) -> None:
        self.processes[name].kill()
        self.processes[name].wait(DEADLINE_S)


@contextmanager
def swarm_of(
    folder: Path, model: dict[str, str], halves: tuple[str, str], *api_options: str
) -> Iterator[Swarm]:
    """All are ready; gone when the block ends."""
    with ExitStack() as stack:
        swarm = Swarm(folder, model, halves, stack)
        for name in (*NAMES, "api"):
            swarm.ids[name] = create_identity(folder / f"{name}.key").peer_id
        with ExitStack() as held:
            sockets = [held.enter_context(socket.socket()) for _ in NAMES]
            for name, each in zip(NAMES, sockets, strict=True):
                each.bind(("127.0.0.1", 0))
                swarm.addrs[name] = f"/ip4/127.0.0.1/tcp/{each.getsockname()[1]}"
        swarm.map_path.write_text(swarm.map_text(("anna", "ben"), ("ben", "anna")))
        for name in NAMES:
            swarm.start_server(name)
        swarm.start("api", "api", "--listen", "127.0.0.1:0", *api_options)
        for name in NAMES:
            swarm.wait_ready(name)
        swarm.url = swarm.wait_ready("api").split()[1].removesuffix("/v1") + "/"
        yield swarm
