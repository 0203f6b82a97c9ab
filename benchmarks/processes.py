"""Other processes: run one for its line of JSON, or keep a server while a block runs.

Each side of a measurement is a process of its own that loads, warms up, measures, prints one line
of JSON and ends. So nothing of one side is alive while the other one is measured: no threads that
spin, no memory, no caches but the system's.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import psutil

from gptnode.errors import GptNodeError

__all__ = [
    "Ended",
    "ServerProcess",
    "clean_environment",
    "read_json",
    "run",
    "run_json",
    "server_process",
]

SAMPLE_EVERY_S = 0.05
STOP_TIMEOUT_S = 10.0
ERROR_LINES = 15


class ServerProcess:
    """A process that serves; `server_process` makes it. ``ready_s`` is how long that took."""

    def __init__(self, pid: int, ready_s: float) -> None:
        """Use `server_process`."""
        self.ready_s = ready_s
        self._process = psutil.Process(pid)

    @property
    def cpu_s(self) -> float:
        """Seconds of processor time that it has used so far."""
        times = self._process.cpu_times()
        return float(times.user + times.system)

    @property
    def resident_bytes(self) -> int:
        """Its memory now, pages of mapped files among it."""
        return int(self._process.memory_info().rss)


@contextmanager
def server_process(command: Sequence[str | Path]) -> Iterator[ServerProcess]:
    """Start a process and wait for the line on its standard output that begins with ``ready``.

    It is ended with the block. The time until that line counts from before the start.

    Raises:
        GptNodeError: it ended instead; the end of what it wrote is in the message.
    """
    argv = [str(part) for part in command]
    with tempfile.TemporaryFile() as log:
        started = time.perf_counter()
        process = _start(argv, subprocess.PIPE, log)
        try:
            line = process.stdout.readline() if process.stdout is not None else b""
            ready_s = time.perf_counter() - started
            if not line.startswith(b"ready"):
                _stop(process)
                log.seek(0)
                written = log.read().decode("utf-8", "replace")
                raise GptNodeError(_failed(argv, process.returncode, written))
            yield ServerProcess(process.pid, ready_s)
        finally:
            _stop(process)
            if process.stdout is not None:
                process.stdout.close()


@dataclass(frozen=True, slots=True)
class Ended:
    """A command that succeeded: what it printed, and the most memory of those watched meanwhile."""

    out: str
    peak_bytes: int


def run(command: Sequence[str | Path], *, watched: Sequence[ServerProcess] = ()) -> Ended:
    """Run ``command`` to its end; meanwhile look at the memory of the ``watched`` servers.

    Returns:
        Its output, and the largest resident memory in bytes that one of those watched had (0 if
        none is watched).

    Raises:
        GptNodeError: the command failed; the end of what it wrote is in the message.
    """
    argv = [str(part) for part in command]
    peak = 0
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = _start(argv, out, err)
        try:
            while watched and process.poll() is None:
                peak = max(peak, *(server.resident_bytes for server in watched))
                time.sleep(SAMPLE_EVERY_S)
            process.wait()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        out.seek(0)
        err.seek(0)
        written = out.read().decode("utf-8", "replace")
        errors = err.read().decode("utf-8", "replace")
    if process.returncode:
        raise GptNodeError(_failed(argv, process.returncode, errors))
    return Ended(written, peak)


def run_json(command: Sequence[str | Path]) -> dict[str, Any]:
    """Run ``command`` and read the JSON object that it prints.

    Raises:
        GptNodeError: the command failed, or printed something else.
    """
    return read_json(command, run(command).out)


def read_json(command: Sequence[str | Path], out: str) -> dict[str, Any]:
    """The object that ``command`` printed: on one line after others, or over several lines.

    Raises:
        GptNodeError: there is none.
    """
    try:
        value: dict[str, Any] = json.loads(out[out.index("{") :])
    except ValueError as error:
        argv = " ".join(str(part) for part in command)
        raise GptNodeError(f"{argv} printed no JSON: {out[-200:]!r}") from error
    return value


def clean_environment() -> Mapping[str, str]:
    """This environment without gptnode's own variables, which would set options."""
    return {name: value for name, value in os.environ.items() if not name.startswith("GPTNODE_")}


def _start(argv: Sequence[str], out: IO[bytes] | int, err: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start a process without input.

    Raises:
        GptNodeError: there is no such program.
    """
    try:
        return subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=clean_environment()
        )
    except OSError as error:
        raise GptNodeError(f"can't run {argv[0]}: {error.strerror}") from error


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ask it to end, then kill it; nothing if it has ended."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _failed(argv: Sequence[str], code: int, written: str) -> str:
    tail = "\n  ".join(written.strip().splitlines()[-ERROR_LINES:])
    return f"{' '.join(argv)} ended with exit code {code}:\n  {tail}"
