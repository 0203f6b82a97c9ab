"""The token of an API server: read from its file or the environment, or made."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from gptnode.errors import UsageError

__all__ = ["create_token", "read_token"]

MAX_FILE_BYTES = 4096


def read_token(path: Path) -> str:
    """The token in ``path``, which nobody but its owner may read.

    Raises:
        UsageError: it can't be read, is open to others, or holds something else than one word.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(MAX_FILE_BYTES).decode("ascii").strip()
    except FileNotFoundError as error:
        raise UsageError(f"{path} is missing; --create-token makes it") from error
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} can't be read as a token: {error}") from error
    if os.name == "posix" and mode & 0o077:
        raise UsageError(f"others may read {path}: chmod 600 {path}")
    if not text or not text.isprintable() or len(text.split()) != 1:
        raise UsageError(f"{path} holds no token: one word of printable characters")
    return text


def create_token(path: Path) -> str:
    """A new token in ``path`` for its owner alone, or the one that is there already.

    Raises:
        UsageError: the file can't be written, or what is there is no token.
    """
    token = secrets.token_urlsafe(32)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return read_token(path)
    except OSError as error:
        raise UsageError(f"{path} can't be written: {error.strerror}") from error
    with os.fdopen(handle, "w", encoding="ascii") as file:
        file.write(f"{token}\n")
    return token
