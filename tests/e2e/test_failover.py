"""Servers die, freeze, come back and move while they answer: real processes, real signals."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gptnode.demo.bundled import MODEL_NAME, bundled_model_folder
from tests.node.conftest import write_tiny_model

from .conftest import DEADLINE_S, environment, gptnode

STORY = ["--prompt", "Tell me a story.", "--temperature", "0"]
LONG = ["--prompt", "w1 w2 w3", "--temperature", "0", "--max-tokens", "900"]
IN_FORCE_WITHIN_S = 2.0
NAMES = ("anna", "ben", "cleo")


@dataclass
class Network:
    """A folder with identities and a map of one model, and the servers started from it."""

    folder: Path
    model: dict[str, str]
    halves: tuple[str, str]
    prompt: list[str]
    stack: ExitStack
    addrs: dict[str, str] = field(default_factory=dict)
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

    def write_map(self, first: list[str], second: list[str]) -> None:
        """A map with those peers for the two halves of the blocks, put in place as a whole."""
        routes = zip(self.halves, (first, second), strict=True)
        new = self.map_path.with_suffix(".new")
        new.write_text(
            json.dumps(
                {
                    "models": [self.model],
                    "peers": [
                        {"name": name, "id": self.ids[name], "addrs": [addr]}
                        for name, addr in self.addrs.items()
                    ],
                    "routes": [{"blocks": blocks, "peers": peers} for blocks, peers in routes],
                    "clients": [self.ids["chat"]],
                }
            )
        )
        new.replace(self.map_path)

    def start(self, *names: str) -> None:
        """Start servers and wait until they serve."""
        for name in names:
            server = subprocess.Popen(
                [sys.executable, "-m", "gptnode", "serve", "--map", str(self.map_path),
                 "--identity", str(self.key(name)), "--threads", "1"],
                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment(),
            )  # fmt: skip
            self.stack.enter_context(server)
            self.stack.callback(server.kill)
            self.servers[name] = server
        for name in names:
            stdout = self.servers[name].stdout
            assert stdout is not None
            assert stdout.readline().startswith("ready ")

    def kill(self, name: str) -> None:
        self.servers[name].kill()
        self.servers[name].wait(DEADLINE_S)

    def chat(self, *more: str) -> list[str]:
        return [
            *("chat", "--map", str(self.map_path), "--identity", str(self.key("chat"))),
            *("--threads", "1", *self.prompt, *more),
        ]

    def undisturbed(self) -> str:
        done = gptnode(*self.chat())
        assert done.code == 0, done.err
        return done.out

    def disturbed(self, disturb: Callable[[], None]) -> str:
        """What a chat prints that is disturbed after its first words."""
        with self.stderr.open("w") as stderr:
            chat = subprocess.Popen(
                [sys.executable, "-m", "gptnode", *self.chat("--verbose")],
                stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment(),
            )  # fmt: skip
        with chat:
            assert chat.stdout is not None
            begun = chat.stdout.read(8)
            disturb()
            rest = chat.stdout.read()
            assert chat.wait(DEADLINE_S) == 0, self.said()
        return begun + rest

    def said(self) -> str:
        return self.stderr.read_text()

    def wait_until_said(self, words: str, within_s: float = DEADLINE_S) -> None:
        deadline_s = time.monotonic() + within_s
        while words not in self.said():
            assert time.monotonic() < deadline_s, self.said()
            time.sleep(0.02)


@contextmanager
def free_ports(n: int) -> Iterator[list[int]]:
    """Ports that nothing listens on."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(n)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        ports = [each.getsockname()[1] for each in sockets]
    yield ports


@contextmanager
def network_of(
    folder: Path, model: dict[str, str], halves: tuple[str, str], prompt: list[str]
) -> Iterator[Network]:
    """anna serves the first half; ben and cleo the second. All are ready."""
    with ExitStack() as stack, free_ports(len(NAMES)) as ports:
        network = Network(folder, model, halves, prompt, stack)
        for name in (*NAMES, "chat"):
            done = gptnode("id", "--identity", network.key(name), "--json")
            network.ids[name] = json.loads(done.out)["peer_id"]
        for name, port in zip(NAMES, ports, strict=True):
            network.addrs[name] = f"/ip4/127.0.0.1/tcp/{port}"
        network.write_map(["anna"], ["ben", "cleo"])
        network.start(*NAMES)
        yield network


@pytest.fixture
def bundled(tmp_path: Path) -> Iterator[Network]:
    """Over the bundled model."""
    model = {"name": MODEL_NAME, "path": str(bundled_model_folder()), "dtype": "f32"}
    with network_of(tmp_path, model, ("0-3", "4-7"), STORY) as network:
        yield network


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Network]:
    """Over a random model, which never comes to an end."""
    write_tiny_model(tmp_path / "tiny", n_blocks=4, max_positions=4096)
    model = {"name": "tiny", "path": "tiny", "dtype": "f32"}
    with network_of(tmp_path, model, ("0-1", "2-3"), LONG) as network:
        yield network


@pytest.mark.parametrize("trouble", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "frozen"])
def test_a_replica_takes_over_mid_answer(bundled: Network, trouble: signal.Signals) -> None:
    undisturbed = bundled.undisturbed()
    assert bundled.disturbed(lambda: bundled.servers["ben"].send_signal(trouble)) == undisturbed
    (line,) = [line for line in bundled.said().splitlines() if "ben (blocks 4-7): " in line]
    assert line.endswith("; cleo serves blocks 4-7")


def test_without_a_replica_the_answer_waits_and_goes_on_when_the_server_is_started_again(
    bundled: Network,
) -> None:
    undisturbed = bundled.undisturbed()

    def restart_anna() -> None:
        bundled.kill("anna")
        bundled.wait_until_said("waiting: no live peer for blocks 0-3")
        bundled.start("anna")

    assert bundled.disturbed(restart_anna) == undisturbed
    assert "anna serves blocks 0-3" in bundled.said()


def test_an_edit_of_the_map_moves_the_route_mid_answer(tiny: Network) -> None:
    undisturbed = tiny.undisturbed()

    def edit() -> None:
        tiny.map_path.write_text("{")
        tiny.wait_until_said("the BlocksMap in force stays", IN_FORCE_WITHIN_S)
        tiny.write_map(["anna"], ["cleo", "ben"])
        tiny.wait_until_said("the route is now anna 0-1, cleo 2-3", IN_FORCE_WITHIN_S)
        time.sleep(0.5)  # some hundred tokens
        tiny.kill("ben")  # in use no more: nobody notices

    assert tiny.disturbed(edit) == undisturbed
    assert "ben (blocks 2-3): " not in tiny.said()


def test_without_a_replica_the_missing_peer_is_named_and_no_answer_is_made_up(
    tiny: Network,
) -> None:
    tiny.kill("anna")
    done = gptnode(*tiny.chat("--wait-s", "1"))
    assert done.code == 7
    assert done.out == ""
    assert "anna" in done.err
    assert "Traceback" not in done.err
