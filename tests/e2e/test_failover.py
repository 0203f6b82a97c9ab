"""A server dies while it answers: real processes, a real SIGKILL."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.node.conftest import write_tiny_model

from .conftest import DEADLINE_S, environment, gptnode

PROMPT = ["--prompt", "w1 w2 w3", "--temperature", "0", "--max-tokens", "160"]


@dataclass
class Network:
    """A folder with a model, identities and a map, and the servers that were started from it."""

    folder: Path
    ids: dict[str, str] = field(default_factory=dict)
    servers: dict[str, subprocess.Popen[str]] = field(default_factory=dict)

    @property
    def map_path(self) -> Path:
        return self.folder / "swarm.json"

    @property
    def stderr(self) -> Path:
        return self.folder / "stderr.txt"

    def key(self, name: str) -> Path:
        return self.folder / f"{name}.key"

    def write_map(self, addrs: dict[str, str], routes: dict[str, list[str]]) -> None:
        self.map_path.write_text(
            json.dumps(
                {
                    "models": [{"name": "tiny", "path": "tiny", "dtype": "f32"}],
                    "peers": [
                        {"name": name, "id": self.ids[name], "addrs": [addr]}
                        for name, addr in addrs.items()
                    ],
                    "routes": [
                        {"blocks": blocks, "peers": peers} for blocks, peers in routes.items()
                    ],
                    "clients": [self.ids["chat"]],
                }
            )
        )

    def start(self, name: str, stack: ExitStack) -> None:
        server = subprocess.Popen(
            [sys.executable, "-m", "gptnode", "serve", "--map", str(self.map_path),
             "--identity", str(self.key(name)), "--threads", "1"],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment(),
        )  # fmt: skip
        stack.enter_context(server)
        stack.callback(server.kill)
        self.servers[name] = server

    def wait_until_ready(self) -> None:
        for server in self.servers.values():
            assert server.stdout is not None
            assert server.stdout.readline().startswith("ready ")

    def chat(self) -> list[str]:
        return ["chat", "--map", str(self.map_path), "--identity", str(self.key("chat")), *PROMPT]


@contextmanager
def free_ports(n: int) -> Iterator[list[int]]:
    """Ports that nothing listens on."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(n)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        ports = [each.getsockname()[1] for each in sockets]
    yield ports


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    """anna serves the first half, ben the second, cleo the second too."""
    network = Network(tmp_path)
    write_tiny_model(tmp_path / "tiny", n_blocks=4)
    for name in ("anna", "ben", "cleo", "chat"):
        done = gptnode("id", "--identity", network.key(name), "--json")
        network.ids[name] = json.loads(done.out)["peer_id"]
    with ExitStack() as stack, free_ports(3) as ports:
        names = ("anna", "ben", "cleo")
        addrs = {
            name: f"/ip4/127.0.0.1/tcp/{port}" for name, port in zip(names, ports, strict=True)
        }
        network.write_map(addrs, {"0-1": ["anna"], "2-3": ["ben", "cleo"]})
        for name in names:
            network.start(name, stack)
        network.wait_until_ready()
        yield network


@pytest.mark.parametrize("trouble", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "frozen"])
def test_a_replica_takes_over_mid_answer(network: Network, trouble: signal.Signals) -> None:
    undisturbed = gptnode(*network.chat())
    assert undisturbed.code == 0, undisturbed.err
    with network.stderr.open("w") as stderr:
        chat = subprocess.Popen(
            [sys.executable, "-m", "gptnode", *network.chat(), "--verbose"],
            stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment(),
        )  # fmt: skip
    with chat:
        assert chat.stdout is not None
        begun = chat.stdout.read(8)
        network.servers["ben"].send_signal(trouble)
        rest = chat.stdout.read()
        assert chat.wait(DEADLINE_S) == 0
    said = network.stderr.read_text()
    assert begun + rest == undisturbed.out
    assert "ben (blocks 2-3): " in said
    assert "cleo serves blocks 2-3" in said


def test_without_a_replica_the_missing_peer_is_named_and_no_answer_is_made_up(
    network: Network,
) -> None:
    network.servers["anna"].kill()
    network.servers["anna"].wait()
    done = gptnode(*network.chat())
    assert done.code == 7
    assert done.out == ""
    assert "anna" in done.err
    assert "Traceback" not in done.err
