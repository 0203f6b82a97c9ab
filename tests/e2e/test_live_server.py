"""Servers that are restarted, and whose map is edited, under clients that use them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from gptnode.demo.bundled import MODEL_NAME, bundled_model_folder
from gptnode.demo.layout import ServerPlace, SwarmLayout, lay_out_swarm

from .conftest import DEADLINE_S, environment, gptnode

QUESTIONS = ("What is a BlocksMap?", "Count from one to twenty.", "Who are you?", "What is a peer?")
GREEDY = ("--temperature", "0", "--max-tokens", "60")

Edit = Callable[[dict[str, Any]], None]


class Servers:
    """The servers of a layout, as processes that can be ended and started again."""

    def __init__(self, layout: SwarmLayout, stack: ExitStack) -> None:
        self.layout = layout
        self._stack = stack
        self._running: dict[str, subprocess.Popen[str]] = {}

    def start(self, place: ServerPlace) -> None:
        process = subprocess.Popen(
            [sys.executable, "-m", "gptnode", "serve", "--map", str(self.layout.map_path),
             "--identity", str(place.identity_path), "--threads", "1"],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment(),
        )  # fmt: skip
        self._stack.enter_context(process)
        self._stack.callback(process.kill)
        self._running[place.name] = process

    def wait_ready(self, place: ServerPlace) -> None:
        stdout = self._running[place.name].stdout
        assert stdout is not None
        assert stdout.readline().startswith("ready ")

    def restart(self, place: ServerPlace) -> None:
        """As a person does who updates a machine: SIGTERM, its end, and up again."""
        self._running[place.name].send_signal(signal.SIGTERM)
        assert self._running[place.name].wait(DEADLINE_S) == 0
        self.start(place)
        self.wait_ready(place)


def edit(layout: SwarmLayout, change: Edit) -> None:
    document = json.loads(layout.map_path.read_text())
    change(document)
    layout.map_path.write_text(json.dumps(document, indent=2))


def all_serve_all(document: dict[str, Any]) -> None:
    names = [peer["name"] for peer in document["peers"]]
    document["models"][0]["dtype"] = "f32"
    document["routes"] = [{"blocks": "0-7", "peers": names}]


@pytest.fixture
def two_replicas(tmp_path: Path) -> Iterator[Servers]:
    """Two servers with all blocks each."""
    layout = lay_out_swarm(tmp_path, 2, MODEL_NAME, bundled_model_folder())
    edit(layout, all_serve_all)
    with ExitStack() as stack:
        servers = Servers(layout, stack)
        for place in layout.servers:
            servers.start(place)
        for place in layout.servers:
            servers.wait_ready(place)
        yield servers


def chat_command(layout: SwarmLayout) -> list[str]:
    who = ("--map", str(layout.map_path), "--identity", str(layout.client_identity_path))
    return [sys.executable, "-m", "gptnode", "chat", *who, *GREEDY, "--lines"]


def test_a_rolling_restart_of_all_servers_drops_nothing_of_a_running_chat(
    two_replicas: Servers,
) -> None:
    layout = two_replicas.layout
    undisturbed = gptnode(*chat_command(layout)[3:], stdin="".join(f"{q}\n" for q in QUESTIONS))
    assert undisturbed.code == 0, undisturbed.err
    with subprocess.Popen(
        [*chat_command(layout), "--verbose"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    ) as chat:
        assert chat.stdin is not None
        assert chat.stdout is not None
        said = ""
        for question, place in zip(QUESTIONS, (*layout.servers, None, None), strict=True):
            chat.stdin.write(question + "\n")
            chat.stdin.flush()
            said += chat.stdout.read(2)  # in the middle of an answer
            if place is not None:
                two_replicas.restart(place)
        chat.stdin.close()
        said += chat.stdout.read()
        errors = chat.stderr.read() if chat.stderr is not None else ""
        assert chat.wait(DEADLINE_S) == 0, errors
    assert said == undisturbed.out
    assert errors.count("shutting down") == 2, errors  # they were asked to leave, and did in order


def test_a_client_that_was_refused_is_shown_accepted_and_gets_in_without_a_restart(
    two_replicas: Servers, tmp_path: Path
) -> None:
    layout = two_replicas.layout
    phone = tmp_path / "phone.key"
    peer_id = json.loads(gptnode("id", "--identity", phone, "--json").out)["peer_id"]
    chat = ["chat", "--map", layout.map_path, "--identity", phone, "--prompt", "Hello.", *GREEDY]

    refused = gptnode(*chat)
    assert refused.code == 7
    assert "refuses this node" in refused.err

    # The chat ends with the first refusal, so it is one of the two who saw it, or both; servers say
    # so twice a second.
    deadline_s, shown = time.monotonic() + DEADLINE_S, [False]
    while not any(shown) and time.monotonic() < deadline_s:
        tables = [gptnode("peers", "--identity", each.identity_path) for each in layout.servers]
        assert all(table.code == 0 for table in tables), tables
        shown = [peer_id in table.out.partition("refused:")[2] for table in tables]
    assert any(shown), tables
    server = layout.servers[shown.index(True)]
    status = json.loads(gptnode("peers", "--identity", server.identity_path, "--json").out)
    assert [one["id"] for one in status["refused"]] == [peer_id]
    assert status["connected"] == []

    accept = ("peers", "accept", peer_id, "--name", "phone", "--identity", server.identity_path)
    accepted = gptnode(*accept)
    assert accepted.code == 0, accepted.err
    done = gptnode(*chat)  # the start of the process takes longer than the edit
    assert done.code == 0, done.err
    assert done.out.strip()


def test_the_status_of_a_server_ends_with_it(two_replicas: Servers) -> None:
    place = two_replicas.layout.servers[0]
    status = place.identity_path.with_name(f"{place.identity_path.name}.status.json")
    assert status.exists()
    assert status.stat().st_mode & 0o777 == 0o600
    process = two_replicas._running[place.name]
    process.send_signal(signal.SIGTERM)
    assert process.wait(DEADLINE_S) == 0
    assert not status.exists()
    gone = gptnode("peers", "--identity", place.identity_path)
    assert gone.code == 2
    assert "no server" in gone.err
