"""A server whose weights were tampered with, found by a chat that verifies: real processes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.node.conftest import write_tiny_model
from tests.tampered import tampered_copy

from .conftest import environment, gptnode
from .test_failover import Network, network_of

ASK = ["--prompt", "w1 w2 w3", "--temperature", "0", "--max-tokens", "60"]


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Network]:
    """anna serves the first half of a random model, ben and cleo the second."""
    write_tiny_model(tmp_path / "tiny", n_blocks=4)
    model = {"name": "tiny", "path": "tiny", "dtype": "f32"}
    with network_of(tmp_path, model, ("0-1", "2-3"), ASK) as network:
        yield network


def restart_with(network: Network, name: str, folder: Path) -> None:
    """The server ``name`` again, with the model of ``folder``."""
    network.kill(name)
    server = subprocess.Popen(
        [sys.executable, "-m", "gptnode", "serve", "--map", str(network.map_path),
         "--identity", str(network.key(name)), "--model-dir", str(folder), "--threads", "1"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment(),
    )  # fmt: skip
    network.stack.enter_context(server)
    network.stack.callback(server.kill)
    network.servers[name] = server
    assert server.stdout is not None
    assert server.stdout.readline().startswith("ready ")


def test_a_server_with_other_weights_under_the_same_fingerprint_is_named_and_left(
    tiny: Network, tmp_path: Path
) -> None:
    honest = tiny.undisturbed()
    model, tampered = tmp_path / "tiny", tmp_path / "tampered"
    tampered_copy(model, tampered, "model.layers.3.mlp.down_proj.weight")
    assert gptnode("fingerprint", tampered).out == gptnode("fingerprint", model).out != ""
    restart_with(tiny, "ben", tampered)
    assert tiny.undisturbed() != honest  # nobody looks, and nobody finds out
    verified = gptnode(*tiny.chat("--verify", "1", "--verbose"))
    assert verified.code == 0, verified.err
    assert verified.out == honest
    (line,) = [line for line in verified.err.splitlines() if "gave wrong answers" in line]
    assert "ben (blocks 2-3) gave wrong answers, say this node's own weights" in line
    assert "; it is not used any more: compare the model files there" in line
    assert line.endswith("; cleo serves blocks 2-3")
