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

from .conftest import DEADLINE_S, environment, gptnode


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


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> SwarmLayout:
    """One server with all blocks."""
    folder = tmp_path_factory.mktemp("lone")
    return lay_out_swarm(folder, 1, MODEL_NAME, bundled_model_folder())


def serve_args(layout: SwarmLayout) -> list[str]:
    """The command line of its server."""
    (server,) = layout.servers
    identity = ["--identity", str(server.identity_path)]
    return ["serve", "--map", str(layout.map_path), *identity, "--threads", "1"]


@pytest.fixture(scope="module")
def ready_server(layout: SwarmLayout) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """That server, and its ready line."""
    with serving(*serve_args(layout), "--log-format", "json") as process:
        assert process.stdout is not None
        yield process, process.stdout.readline()


def test_the_ready_line_names_peer_blocks_and_addresses(
    ready_server: tuple[subprocess.Popen[str], str], layout: SwarmLayout
) -> None:
    (place,) = layout.servers
    ready = ready_server[1].split()
    assert ready[:3] == ["ready", f"peer={place.peer_id}", f"blocks={MODEL_NAME}:0-7"]
    # On the port that the map has for it, though nobody said --listen.
    assert f"/tcp/{place.port}/p2p/{place.peer_id}" in ready[3]


def test_a_busy_port_is_an_error_that_says_so(
    ready_server: tuple[subprocess.Popen[str], str], layout: SwarmLayout
) -> None:
    busy = gptnode(*serve_args(layout))
    assert busy.code == 7
    assert busy.out == ""
    assert "port is in use" in busy.err.splitlines()[-1]


def test_a_client_that_is_not_in_the_map_is_refused(
    ready_server: tuple[subprocess.Popen[str], str], layout: SwarmLayout, tmp_path: Path
) -> None:
    stranger = tmp_path / "stranger.key"
    peer_id = json.loads(gptnode("id", "--identity", stranger, "--json").out)["peer_id"]
    # The stranger's own map lists it; that of the server doesn't.
    document = json.loads(layout.map_path.read_text())
    document["clients"] = [{"id": peer_id}]
    own_map = tmp_path / "map.json"
    own_map.write_text(json.dumps(document))
    done = gptnode("chat", "--map", own_map, "--identity", stranger, "--prompt", "Hello.")
    assert done.code == 7
    assert done.out == ""
    assert "refuses this node" in done.err
    assert "clients" in done.err
    assert done.err.count("\n") == 1


def test_sigterm_ends_a_server_cleanly_after_all_that(
    ready_server: tuple[subprocess.Popen[str], str], layout: SwarmLayout
) -> None:
    process = ready_server[0]
    hello = ["--prompt", "Hello.", "--max-tokens", "2", "--json"]
    client = ["--identity", str(layout.client_identity_path)]
    gptnode("chat", "--map", layout.map_path, *client, *hello).answer  # noqa: B018
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0
    assert out == ""
    events = [json.loads(line) for line in err.splitlines()]
    assert [event["event"] for event in events][:3] == ["starting", "blocks loaded", "serving"]
    assert events[-1]["event"] == "stopped"
    assert {event["level"] for event in events} == {"info"}


def test_ctrl_c_ends_a_server_cleanly_too(tmp_path: Path) -> None:
    layout = lay_out_swarm(tmp_path, 1, MODEL_NAME, bundled_model_folder())
    with serving(*serve_args(layout)) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("ready ")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=DEADLINE_S)
        assert process.returncode == 0
