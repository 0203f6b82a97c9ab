"""Wrong files and options: one line that says what to do, an exit code by kind, no traceback."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from gptnode.demo.bundled import MODEL_NAME, bundled_model_folder
from gptnode.demo.layout import SwarmLayout, lay_out_swarm

from .conftest import Done, gptnode


@pytest.fixture
def layout(tmp_path: Path) -> SwarmLayout:
    """One server with all blocks, which doesn't run."""
    return lay_out_swarm(tmp_path, 1, MODEL_NAME, bundled_model_folder())


def assert_one_line(done: Done, code: int, *words: str) -> None:
    """The error as a person gets it."""
    assert done.code == code, done.err
    assert done.out == ""
    errors = [line for line in done.err.splitlines() if line.startswith("gptnode: ")]
    assert len(errors) == 1, done.err
    assert "Traceback" not in done.err
    for word in words:
        assert word in errors[0]


def serve(layout: SwarmLayout, *more: str | Path) -> Done:
    """Tries to serve what can't be served."""
    identity = layout.servers[0].identity_path
    return gptnode("serve", "--map", layout.map_path, "--identity", identity, *more)


def test_a_map_that_is_no_json(layout: SwarmLayout) -> None:
    layout.map_path.write_text("{")
    assert_one_line(serve(layout), 3, "blocksmap.json")


def test_a_map_with_a_gap(layout: SwarmLayout) -> None:
    document = json.loads(layout.map_path.read_text())
    document["routes"][0]["blocks"] = "0-5"
    layout.map_path.write_text(json.dumps(document))
    assert_one_line(serve(layout), 3, "routes")


def test_a_server_that_the_map_does_not_know(layout: SwarmLayout, tmp_path: Path) -> None:
    gptnode("id", "--identity", tmp_path / "other.key")
    done = gptnode("serve", "--map", layout.map_path, "--identity", tmp_path / "other.key")
    assert_one_line(done, 3, "peers")


def test_an_identity_that_does_not_exist(layout: SwarmLayout, tmp_path: Path) -> None:
    missing = tmp_path / "missing.key"
    done = gptnode("serve", "--map", layout.map_path, "--identity", missing)
    assert_one_line(done, 6, str(missing), "gptnode id")
    assert not missing.exists()


def test_weights_that_are_cut_short(layout: SwarmLayout, tmp_path: Path) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(bundled_model_folder(), folder)
    weights = folder / "model.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[: len(data) // 2])
    assert_one_line(serve(layout, "--model-dir", folder), 4, "model.safetensors")


def test_an_address_that_cannot_be_listened_on(layout: SwarmLayout) -> None:
    assert_one_line(serve(layout, "--listen", "/ip4/192.0.2.99/tcp/4001"), 7, "192.0.2.99")


def test_nobody_there(layout: SwarmLayout) -> None:
    done = gptnode(
        *("chat", "--map", layout.map_path, "--identity", layout.client_identity_path),
        *("--prompt", "Hello.", "--wait-s", "0"),
    )
    assert_one_line(done, 7, "connection refused", "gptnode serve")


def test_more_servers_than_blocks() -> None:
    assert_one_line(gptnode("demo", "--peers", "9", "--prompt", "Hello."), 2, "--peers 9")


def test_debug_shows_where_it_happened(layout: SwarmLayout) -> None:
    layout.map_path.write_text("{")
    done = gptnode("map", "check", layout.map_path, "--debug")
    assert done.code == 3
    assert "Traceback (most recent call last)" in done.err
