"""The status of a running server in a file beside its identity, for the commands of its owner.

A file and not a socket: it can be read and nothing can be sent to it. Only the owner may read it.
Knows JSON, files and processes; what stands in it is `status`'s business. Imports no torch.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import psutil

from gptnode.errors import UsageError
from gptnode.routing.replace_file import replace_file

__all__ = ["StatusFile", "read_status", "status_path"]

MAX_FILE_BYTES = 4 * 2**20
# Processes are told apart by the time they began, which the system rounds.
SAME_START_S = 1.0

Status: TypeAlias = Mapping[str, Any]


def status_path(identity_path: Path) -> Path:
    """Where a server with that identity writes its status."""
    return identity_path.with_name(f"{identity_path.name}.status.json")


class StatusFile:
    """The file of this process's server.

    Resource handling: a context manager; leaving it removes the file, if it is still this
    process's.
    """

    def __init__(self, identity_path: Path) -> None:
        """Nothing is written yet."""
        self._path = status_path(identity_path)
        self._process = {"pid": os.getpid(), "started_s": _started_s(psutil.Process())}
        self._last: Status | None = None

    def __enter__(self) -> StatusFile:
        """Itself."""
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Remove the file; one that can't be removed names a process that has ended."""
        with contextlib.suppress(OSError, ValueError):
            if json.loads(self._path.read_bytes()).get("process") == self._process:
                self._path.unlink()

    def write(self, status: Status) -> None:
        """Write ``status``, if it is news.

        Raises:
            OSError: it can't be written; the next call tries again.
        """
        if status == self._last:
            return
        text = json.dumps({"process": self._process, **status}, ensure_ascii=False, indent=1)
        replace_file(self._path, text.encode(), 0o600)
        self._last = status


def read_status(identity_path: Path) -> Status:
    """What the running server with that identity says about itself.

    Raises:
        UsageError: none runs on this machine, or its file can't be read.
    """
    path = status_path(identity_path)
    none = UsageError(f"no server with the identity {identity_path} runs on this machine")
    try:
        with path.open("rb") as file:
            found = json.loads(file.read(MAX_FILE_BYTES))
        process = psutil.Process(int(found["process"]["pid"]))
        is_same = abs(_started_s(process) - found["process"]["started_s"]) < SAME_START_S
    except (FileNotFoundError, psutil.NoSuchProcess):
        raise none from None
    except (OSError, ValueError, TypeError, KeyError, psutil.Error) as error:
        raise UsageError(f"{path}: can't be read ({type(error).__name__}: {error})") from error
    if not is_same:
        raise none
    return dict(found)


def _started_s(process: psutil.Process) -> float:
    """When ``process`` began, by a clock that nobody moves: on Linux seconds since the system's
    start, to which psutil only adds where the wall clock says that this was."""
    started_s = float(process.create_time())
    return started_s - psutil.boot_time() if psutil.LINUX else started_s
