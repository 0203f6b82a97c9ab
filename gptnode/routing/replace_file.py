"""Files that appear whole or not at all, whatever happens in between. Standard library only."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

__all__ = ["replace_file"]


def replace_file(path: Path, data: bytes, mode: int) -> None:
    """Put a file with ``data`` in the place of ``path``, whether there is one or not.

    It is written beside, with ``mode`` from its first byte, synced and renamed: readers see the old
    content or the new one. A link is followed; owner and group stay where the system allows it.

    Raises:
        OSError: it can't be written; then ``path`` is as it was and nothing is left beside it.
    """
    path = path.resolve()
    beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}.new")
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), mode)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.chmod(mode)  # the umask took something away
        with contextlib.suppress(OSError, AttributeError):
            before = path.stat()
            os.chown(beside, before.st_uid, before.st_gid)
        beside.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise
