"""`gptnode serve` as a process: the ready line, its end, and who is let in."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gptnode.demo.bundled import MODEL_NAME, bundled_model_folder
from gptnode.demo.layout import SwarmLayout, lay_out_swarm
from gptnode.demo.swarm import LocalSwarm

from .conftest import DEADLINE_S, environment, gptnode, over


@pytest.fixture
def layout(tmp_path: Path) -> SwarmLayout:
    """One server with all blocks, which doesn't run."""
    return lay_out_swarm(tmp_path, 1, MODEL_NAME, bundled_model_folder())


def serve_args(layout: SwarmLayout) -> list[str]:
    """The command line of its server."""
    (server,) = layout.servers
    identity = ["--identity", str(server.identity_path)]
    return ["serve", "--map", str(layout.map_path), *identity, "--threads", "1"]


@contextmanager
def serving(*argv: str) -> Iterator[subprocess.Popen[str]]:
    """A server process; killed if the test doesn't end it."""
    with subprocess.Popen(
        [sys.executable, "-m", "gptnode", *argv],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda each: each.name)
def test_a_server_says_that_it_is_ready_and_a_signal_ends_it_cleanly(
    number: signal.Signals, layout: SwarmLayout
) -> None:
    (place,) = layout.servers
    with serving(*serve_args(layout), "--log-format", "json") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        ready = process.stdout.readline().split()
        assert ready[:3] == ["ready", f"peer={place.peer_id}", f"blocks={MODEL_NAME}:0-7"]
        # On the port that the map has for it, though nobody said --listen.
        assert f"/tcp/{place.port}/p2p/{place.peer_id}" in ready[3]
        if number is signal.SIGTERM:
            busy = gptnode(*serve_args(layout), "--listen", place.addr)
            assert busy.code == 7
            assert "port is in use" in busy.err
            assert busy.err.splitlines()[-1].startswith("gptnode: error: ")
        process.send_signal(number)
        out, err = process.communicate(timeout=DEADLINE_S)
        assert process.returncode == 0
        assert out == ""
        events = [json.loads(line) for line in err.splitlines()]
        assert events[-1]["event"] == "stopped"
        assert "ERROR" not in err.upper()


def test_a_client_that_is_not_in_the_map_is_refused(
    two_servers: LocalSwarm, tmp_path: Path
) -> None:
    stranger = tmp_path / "stranger.key"
    peer_id = json.loads(gptnode("id", "--identity", stranger, "--json").out)["peer_id"]
    # The stranger's own map lists it; that of the servers doesn't.
    document = json.loads(two_servers.map_path.read_text())
    document["clients"] = [{"id": peer_id}]
    own_map = tmp_path / "map.json"
    own_map.write_text(json.dumps(document))
    done = gptnode("chat", "--map", own_map, "--identity", stranger, "--prompt", "Hello.")
    assert done.code == 7
    assert done.out == ""
    assert "refuses this node" in done.err
    assert "clients" in done.err
    assert done.err.count("\n") == 1
    # And the swarm still serves those that it knows.
    hello = ("--prompt", "Hello.", "--max-tokens", "2", "--json")
    assert gptnode(*over(two_servers), *hello).code == 0
