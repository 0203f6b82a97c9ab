"""A `gptnode api` process for tests."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gptnode.demo.layout import ServerPlace, SwarmLayout
from gptnode.demo.swarm import LocalSwarm
from tests.e2e.conftest import DEADLINE_S, environment


@dataclass(frozen=True, slots=True)
class ApiServer:
    """A server that answers."""

    process: subprocess.Popen[str]
    url: str
    """With ``/v1``."""

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(DEADLINE_S)


@contextmanager
def api_server(*options: str | Path, env: dict[str, str] | None = None) -> Iterator[ApiServer]:
    """An API server on a port of its own, gone with the block."""
    command = [sys.executable, "-m", "gptnode", "api", "--listen", "127.0.0.1:0"]
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [*command, *map(str, options)],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=env or environment(),
        )
        try:
            assert process.stdout is not None
            ready = process.stdout.readline().split()
            if not ready:
                errors.seek(0)
                raise AssertionError(errors.read())
            yield ApiServer(process, ready[1])
        finally:
            process.kill()
            process.communicate()


def over(swarm: LocalSwarm | SwarmLayout) -> tuple[str | Path, ...]:
    """The options for that swarm."""
    return ("--map", swarm.map_path, "--identity", swarm.client_identity_path)


def sessions(place: ServerPlace) -> int:
    """How many sessions a block server has lent, as its status says."""
    path = place.identity_path.with_name(f"{place.identity_path.name}.status.json")
    status: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    lent: int = status["lent"]["sessions"]
    return lent


def seconds_until(condition: Callable[[], bool]) -> float:
    """How long it took until ``condition`` held."""
    started_s = time.monotonic()
    while not condition():
        assert time.monotonic() - started_s < DEADLINE_S, "it never did"
        time.sleep(0.02)
    return time.monotonic() - started_s
