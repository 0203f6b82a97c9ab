"""A swarm of real processes that doesn't come up, or ends: nothing is left behind."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import trio

from gptnode.demo.server_process import server_environment
from gptnode.demo.swarm import local_swarm
from gptnode.errors import GptNodeError, PeerTimeoutError, UsageError

pytestmark = pytest.mark.e2e


def servers_of_ours() -> set[int]:
    """The process ids of all servers that this process has started."""
    children = psutil.Process().children()
    return {child.pid for child in children if "serve" in child.cmdline()}


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """After each test: its servers don't run any more, and its temporary folder is gone."""
    before = servers_of_ours()  # other tests share a swarm
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    yield
    assert list(scratch.iterdir()) == []
    assert servers_of_ours() == before


@pytest.fixture
def no_model(tmp_path: Path) -> Path:
    """A model folder with a config and no weights: servers end soon, with an error."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"num_hidden_layers": 8}))
    return folder


async def test_a_server_that_ends_early_is_an_error_with_the_end_of_its_log(no_model: Path) -> None:
    with pytest.raises(GptNodeError, match="exit code 4") as failure:
        async with local_swarm(1, model_dir=no_model):
            pytest.fail("it can't have come up")
    assert "gptnode: error: " in failure.value.detail
    assert "\n" not in failure.value.detail


async def test_a_server_that_takes_too_long_is_an_error(no_model: Path) -> None:
    with pytest.raises(PeerTimeoutError, match="anna"):
        async with local_swarm(2, model_dir=no_model, ready_timeout_s=0.0):
            pytest.fail("it can't have come up")


@pytest.mark.parametrize("n_peers", [0, 9])
async def test_a_number_of_servers_that_makes_no_sense_starts_none(
    n_peers: int, no_model: Path
) -> None:
    said: list[str] = []
    with pytest.raises(UsageError):
        async with local_swarm(n_peers, model_dir=no_model, report=said.append):
            pytest.fail("it can't have come up")
    assert said == []


async def test_cancelling_the_start_ends_the_servers(no_model: Path) -> None:
    with trio.CancelScope() as scope:
        async with local_swarm(2, model_dir=no_model, report=lambda line: scope.cancel()):
            pytest.fail("it can't have come up")
    assert scope.cancelled_caught


async def test_the_whole_life_of_a_swarm() -> None:
    said: list[str] = []
    with pytest.raises(ZeroDivisionError):
        async with local_swarm(2, report=said.append) as swarm:
            assert len(swarm.servers) == 2
            assert all(psutil.pid_exists(server.pid) for server in swarm.servers)
            # Sessions of their own: Ctrl-C in the terminal must not reach them.
            assert all(os.getsid(server.pid) == server.pid for server in swarm.servers)
            raise ZeroDivisionError
    assert said[0].startswith("starting 2 servers")
    assert said[1:] == ["anna is ready, with blocks 0-3", "ben is ready, with blocks 4-7"]
    assert not any(psutil.pid_exists(server.pid) for server in swarm.servers)


async def test_servers_are_not_configured_by_the_users_environment() -> None:
    kept = server_environment({"GPTNODE_MODEL_DIR": "/x", "GPTNODE_DEBUG": "1", "PATH": "/bin"})
    assert kept == {"PATH": "/bin"}
