"""Small files of a model folder, read with a bound; this file knows nothing of what they say."""

from __future__ import annotations

import json
from pathlib import Path

from gptnode.errors import TextError

__all__ = ["read_json_object", "read_text"]

MAX_FILE_BYTES = 64 * 1024 * 1024


def read_text(path: Path) -> str | None:
    """The UTF-8 text of ``path``; None if there is no such file.

    Raises:
        TextError: it can't be read, is larger than 64 MiB or is not UTF-8.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise TextError(f"{path} can't be read: {reason}") from error
    if len(data) > MAX_FILE_BYTES:
        raise TextError(f"{path} has more than {MAX_FILE_BYTES // 2**20} MiB")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TextError(f"{path} is not UTF-8 at byte {error.start}") from error


def read_json_object(path: Path) -> dict[str, object]:
    """The JSON object in ``path``; empty if there is no such file.

    Raises:
        TextError: it can't be read, or is something else than a JSON object.
    """
    text = read_text(path)
    if text is None:
        return {}
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        where = f" at line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise TextError(f"{path} is not JSON{where}") from error
    if not isinstance(value, dict):
        raise TextError(f"{path} holds a JSON {type(value).__name__} instead of an object")
    return value
