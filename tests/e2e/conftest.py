"""Real processes: a swarm that several tests share, and a way to run commands."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio

from gptnode.demo.swarm import LocalSwarm, local_swarm

DEADLINE_S = 120.0
"""Far beyond what anything here takes, also on a busy machine."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here starts processes."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.e2e)


@dataclass(frozen=True, slots=True)
class Done:
    """A command that ended."""

    code: int
    out: str
    err: str

    @property
    def answer(self) -> dict[str, Any]:
        """The JSON that a chat with --json printed."""
        assert self.code == 0, self.err
        found = json.loads(self.out)
        assert isinstance(found, dict)
        return found


def environment(**changes: str) -> dict[str, str]:
    """This environment without gptnode's own variables."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GPTNODE_")}
    return {**kept, **changes}


def gptnode(*argv: str | Path, stdin: str = "", env: Mapping[str, str] | None = None) -> Done:
    """Runs a gptnode command without a terminal, to its end."""
    done = subprocess.run(
        [sys.executable, "-m", "gptnode", *map(str, argv)],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        env=dict(env) if env is not None else environment(),
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def over(swarm: LocalSwarm) -> list[str]:
    """The beginning of a chat over that swarm."""
    return [
        *("chat", "--map", str(swarm.map_path)),
        *("--identity", str(swarm.client_identity_path)),
    ]


class BackgroundSwarm:
    """A `local_swarm` that lives in a thread, so that tests without trio can share it."""

    def __init__(self, n_peers: int) -> None:
        self._n_peers = n_peers
        self._started: queue.Queue[LocalSwarm | BaseException] = queue.Queue()
        self._token: trio.lowlevel.TrioToken | None = None
        self._stop: trio.Event | None = None
        self._thread = threading.Thread(target=self._run, name=f"swarm of {n_peers}")

    def __enter__(self) -> LocalSwarm:
        self._thread.start()
        started = self._started.get(timeout=DEADLINE_S)
        if isinstance(started, BaseException):
            self._thread.join()
            raise started
        return started

    def __exit__(self, *exc_info: object) -> None:
        assert self._token is not None
        assert self._stop is not None
        self._token.run_sync_soon(self._stop.set)
        self._thread.join(timeout=DEADLINE_S)

    def _run(self) -> None:
        trio.run(self._serve)

    async def _serve(self) -> None:
        self._token, self._stop = trio.lowlevel.current_trio_token(), trio.Event()
        try:
            async with local_swarm(self._n_peers) as swarm:
                self._started.put(swarm)
                await self._stop.wait()
        except BaseException as error:
            self._started.put(error)


@pytest.fixture(scope="session")
def two_servers() -> Iterator[LocalSwarm]:
    """The swarm of `gptnode demo`; tests leave it as they find it."""
    with BackgroundSwarm(2) as swarm:
        yield swarm
