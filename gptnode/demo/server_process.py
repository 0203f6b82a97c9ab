"""One `gptnode serve` process: start it, wait until it serves, end it.

The server watches its stdin, whose other end this process holds: when this process dies, even by
kill -9, the server notices and ends too.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import trio

from gptnode.demo.layout import ServerPlace
from gptnode.errors import GptNodeError, PeerTimeoutError

__all__ = ["ServerProcess", "server_environment", "start_server"]

STOP_TIMEOUT_S = 5.0
CHUNK_BYTES = 4096
LOG_TAIL_LINES = 3
LOG_TAIL_BYTES = 8192


class ServerProcess:
    """A server that was started; `start_server` makes it."""

    def __init__(self, place: ServerPlace, process: trio.Process, log_path: Path) -> None:
        """Use `start_server`."""
        self.place = place
        self.process = process
        self.log_path = log_path

    @property
    def pid(self) -> int:
        """The process id, to stop or freeze it in a test."""
        return self.process.pid

    async def wait_ready(self, timeout_s: float) -> str:
        """Waits for its ready line and returns it.

        Raises:
            PeerTimeoutError: it didn't come in time.
            GptNodeError: the process ended instead; the end of its log is in the message.
        """
        line = b""
        with trio.move_on_after(timeout_s) as scope:
            line = await self._first_line()
        if scope.cancelled_caught:
            raise PeerTimeoutError(
                f"the server {self.place.name} didn't get ready within {timeout_s:g} s"
                f" ({self._log_tail()})"
            )
        text = line.decode("utf-8", "replace").strip()
        if not text.startswith("ready "):
            with trio.move_on_after(STOP_TIMEOUT_S):
                await self.process.wait()
            raise GptNodeError(
                f"the server {self.place.name} ended with exit code {self.process.returncode}"
                f" before it served ({self._log_tail()})"
            )
        return text

    async def _first_line(self) -> bytes:
        """The first line of its stdout; b"" or a part of one if it ends before."""
        received = b""
        stdout = self.process.stdout
        while stdout is not None and b"\n" not in received:
            chunk = await stdout.receive_some(CHUNK_BYTES)
            if not chunk:
                break
            received += bytes(chunk)
        return received.partition(b"\n")[0]

    def _log_tail(self) -> str:
        """The last lines of its log in one line."""
        try:
            data = self.log_path.read_bytes()[-LOG_TAIL_BYTES:]
        except OSError as error:
            return f"no log: {error}"
        lines = data.decode("utf-8", "replace").strip().splitlines()[-LOG_TAIL_LINES:]
        return "its log ends with: " + " | ".join(lines) if lines else "its log is empty"

    async def stop(self) -> None:
        """Ends the process: asks first, then kills. Runs to its end even when cancelled."""
        with trio.CancelScope(shield=True):
            if self.process.poll() is None:
                self.process.terminate()
                with trio.move_on_after(STOP_TIMEOUT_S):
                    await self.process.wait()
            if self.process.poll() is None:
                self.process.kill()
            await self.process.wait()
            for pipe in (self.process.stdin, self.process.stdout):
                if pipe is not None:
                    await pipe.aclose()


async def start_server(
    place: ServerPlace, map_path: Path, *, options: Sequence[str] = ()
) -> ServerProcess:
    """Starts a server process that logs into a file beside the map.

    It has a session of its own, so that Ctrl-C in the terminal doesn't reach it before us.
    *Resource handling*: the caller has to `ServerProcess.stop` it.
    """
    log_path = map_path.parent / f"{place.name}.log"
    command = [
        *(sys.executable, "-m", "gptnode", "serve"),
        *("--map", str(map_path)),
        *("--identity", str(place.identity_path)),
        *("--listen", place.addr),
        "--exit-with-stdin",
        *options,
    ]
    with log_path.open("wb") as log:
        process = await trio.lowlevel.open_process(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
            env=server_environment(os.environ),
        )
    return ServerProcess(place, process, log_path)


def server_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """This process's environment without what would set the servers' options."""
    return {name: value for name, value in environment.items() if not name.startswith("GPTNODE_")}
