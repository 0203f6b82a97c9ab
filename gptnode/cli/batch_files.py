"""The files of a batch: requests, results as they come, and the results in order.

Results are kept beside the output as they come, in ``OUT.partial``, one JSON object a line: the
number of the request's line, a digest of it, and its result. So a batch that was interrupted, by
kill -9 too, goes on where it was, also if requests were added or changed meanwhile. The output
appears when it is complete. Knows no requests, no results and no node.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

from gptnode.errors import UsageError

__all__ = ["BatchInput", "PartialResults", "RequestLine"]

MAX_LINE_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class RequestLine:
    """Where a request stands: its line's number, from 1, and its bytes in the file."""

    number: int
    offset: int
    n_bytes: int
    digest: str


class BatchInput:
    """The requests of a batch; lines of white space are none."""

    def __init__(self, path: Path) -> None:
        """Look through the file once.

        Raises:
            UsageError: it can't be read, or a line is too long.
        """
        self._path = path
        self.lines: list[RequestLine] = []
        offset = 0
        try:
            with path.open("rb") as file:
                for number, data in enumerate(_bounded_lines(file, path), 1):
                    if data.strip():
                        digest = hashlib.sha256(data.strip()).hexdigest()[:32]
                        self.lines.append(RequestLine(number, offset, len(data), digest))
                    offset += len(data)
        except OSError as error:
            raise UsageError(f"{path}: {error.strerror or error}") from error

    def read(self, line: RequestLine) -> bytes:
        """The bytes of ``line``.

        Raises:
            UsageError: they aren't there any more, or are others.
        """
        try:
            with self._path.open("rb") as file:
                file.seek(line.offset)
                data = file.read(line.n_bytes)
        except OSError as error:
            raise UsageError(f"{self._path}: {error.strerror or error}") from error
        if hashlib.sha256(data.strip()).hexdigest()[:32] != line.digest:
            raise UsageError(f"{self._path} was changed while its requests were answered")
        return data


class PartialResults:
    """Results as they come; ``done`` says of which lines.

    *Resource handling*: a context manager that holds the file, and keeps others off it. It stays
    where it is until ``finish``.
    """

    def __init__(
        self,
        out: Path,
        requests: BatchInput,
        keeps: Callable[[dict[str, Any]], bool] = lambda result: True,
    ) -> None:
        """Take up what is there; ``keeps`` says which of the results there stand.

        Raises:
            UsageError: ``out`` is there already, or somebody else writes to it.
        """
        self.out = out
        self.path = out.with_name(f"{out.name}.partial")
        if out.exists():
            raise UsageError(f"{out} is there already: name another file, or remove it")
        self._requests = requests
        self._places: dict[int, tuple[int, int]] = {}  # of the results, by the request's line
        try:
            self._file: IO[bytes] = self.path.open("a+b")
        except OSError as error:
            raise UsageError(f"{self.path}: {error.strerror or error}") from error
        try:
            _lock(self._file, out)
            self._take_up(keeps)
        except BaseException:
            self._file.close()
            raise

    @property
    def done(self) -> frozenset[int]:
        """The lines whose results are there."""
        return frozenset(self._places)

    def add(self, line: RequestLine, result: dict[str, Any]) -> None:
        """Keep the result of ``line``; it is there also if this process is killed next."""
        entry = {"line": line.number, "digest": line.digest, "result": result}
        data = json.dumps(entry, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
        offset = self._file.seek(0, os.SEEK_END)
        self._file.write(data)
        self._file.flush()
        self._places[line.number] = (offset, len(data))

    def count(self, which: Callable[[dict[str, Any]], bool]) -> int:
        """How many results are such ``which``."""
        return sum(which(self._entry(*place)["result"]) for place in self._places.values())

    def finish(self) -> None:
        """Write the output, in the order of the requests, and remove the partial file.

        Raises:
            UsageError: the file can't be written.
        """
        temporary = self.out.with_name(f".{self.out.name}.{os.getpid()}.tmp")
        try:
            with temporary.open("wb") as file:
                for line in self._requests.lines:
                    result = self._entry(*self._places[line.number])["result"]
                    file.write(json.dumps(result, ensure_ascii=False).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.out)
        except OSError as error:
            raise UsageError(f"{self.out}: {error.strerror or error}") from error
        finally:
            temporary.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Close the file."""
        self._file.close()

    def _take_up(self, keeps: Callable[[dict[str, Any]], bool]) -> None:
        """Find the results that count; cut off a line that wasn't written to its end."""
        digests = {line.number: line.digest for line in self._requests.lines}
        self._file.seek(0)
        offset = 0
        for data in self._file:
            try:
                entry = json.loads(data)
                number, digest, result = entry["line"], entry["digest"], entry["result"]
            except (ValueError, TypeError, KeyError):
                if data.endswith(b"\n"):
                    raise UsageError(
                        f"{self.path} isn't what an interrupted batch leaves: remove it"
                    ) from None
                break
            if not data.endswith(b"\n"):
                break
            if digests.get(number) == digest and keeps(result):
                self._places[number] = (offset, len(data))
            else:
                self._places.pop(number, None)
            offset += len(data)
        self._file.truncate(offset)

    def _entry(self, offset: int, n_bytes: int) -> dict[str, Any]:
        self._file.seek(offset)
        entry: dict[str, Any] = json.loads(self._file.read(n_bytes))
        return entry


def _bounded_lines(file: IO[bytes], path: Path) -> Iterator[bytes]:
    while data := file.readline(MAX_LINE_BYTES):
        if len(data) == MAX_LINE_BYTES and not data.endswith(b"\n"):
            raise UsageError(f"{path}: a line is longer than {MAX_LINE_BYTES >> 20} MiB")
        yield data


def _lock(file: IO[bytes], out: Path) -> None:
    """Keep others off, where the system knows how."""
    with contextlib.suppress(ImportError):
        import fcntl

        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UsageError(f"another batch is writing {out} now") from None
