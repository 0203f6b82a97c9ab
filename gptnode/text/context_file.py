"""The token context as a CSV file: ids, and in comments of which model they are.

::

    # gptnode context
    # model: demo
    # fingerprint: 5f0e...
    1,15,2077,...

A file that is only ``id,id,...`` loads too. This file knows no tokenizer: an id is a number below
the size of a vocabulary.
"""

from __future__ import annotations

import os
import re
import stat
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from gptnode.errors import ContextFileError

__all__ = ["load_context", "save_context"]

TITLE = "# gptnode context"
IDS_PER_ROW = 24
MAX_FILE_BYTES = 64 * 1024 * 1024
COMMENT = re.compile(r"#\s*(model|fingerprint)\s*:\s*(.*?)\s*")


def save_context(path: Path, ids: Sequence[int], fingerprint: str, model_name: str) -> None:
    """Writes ``ids`` to ``path``; a file that was there is replaced only by a complete new one.

    *Resource handling*: the text goes to a temporary file in the same folder, reaches the disk and
    then takes the name; on any error the temporary file is removed. Only its owner may read a new
    file; one that is replaced keeps its permissions.

    Raises:
        ContextFileError: there are no ids, or the file can't be written, with the reason.
    """
    if not ids:
        raise ContextFileError("there is nothing to save: the context is empty")
    rows = [
        ",".join(map(str, ids[start : start + IDS_PER_ROW]))
        for start in range(0, len(ids), IDS_PER_ROW)
    ]
    comments = [f"# model: {_one_line(model_name)}", f"# fingerprint: {_one_line(fingerprint)}"]
    data = "\n".join([TITLE, *comments, *rows, ""]).encode("utf-8", "replace")
    try:
        # Through a symbolic link the file that it names is replaced, not the link.
        _replace(Path(os.path.realpath(path)), data)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ContextFileError(f"{path} can't be written: {reason}") from error


def load_context(path: Path, vocab_size: int, fingerprint: str | None) -> tuple[int, ...]:
    """The ids in ``path``, all of them below ``vocab_size``.

    Args:
        path: A file of `save_context`, or ids alone, separated by commas and line ends.
        vocab_size: How many ids the vocabulary has.
        fingerprint: Of the model in use; None accepts the context of any model.

    Raises:
        ContextFileError: the file can't be read, is too large, is of another model, or holds
            something else than ids of the vocabulary; then with line and column.
    """
    text = _read(path)
    ids: list[int] = []
    model_name = ""
    for line_no, line in enumerate(text.split("\n"), start=1):
        if not line.lstrip().startswith("#"):
            ids.extend(_row_ids(path, line_no, line, vocab_size))
        elif comment := COMMENT.fullmatch(line.strip()):
            key, value = comment.groups()
            if key == "model":
                model_name = value
            elif fingerprint is not None and value.lower() != fingerprint.lower():
                of_model = f"{model_name!r} " if model_name else ""
                raise ContextFileError(
                    f"{path} is a context of another model: {of_model}with fingerprint "
                    f"{value[:64]!r}, and this one has {fingerprint!r}"
                )
    if not ids:
        raise ContextFileError(f"{path} holds no token ids")
    return tuple(ids)


def _row_ids(path: Path, line_no: int, line: str, vocab_size: int) -> Iterator[int]:
    """The ids of one row; a comma at its end and an empty row are fine."""
    row = line.rstrip()
    if row.endswith(",") and row != ",":
        row = row[:-1]
    if not row:
        return
    column = 1
    for field in row.split(","):
        digits = field.strip()
        where = f"line {line_no}, column {column + len(field) - len(field.lstrip())}"
        if not (digits.isascii() and digits.isdigit()):
            what = f"{digits[:20]!r} is not a token id" if digits else "a token id is missing"
            raise ContextFileError(f"{path}, {where}: {what}")
        # Longer than any vocabulary's ids, and int() refuses numbers of thousands of digits.
        if len(digits) > 18 or int(digits) >= vocab_size:
            raise ContextFileError(
                f"{path}, {where}: {digits[:20]} is not in the vocabulary of {vocab_size} tokens"
            )
        yield int(digits)
        column += len(field) + 1


def _read(path: Path) -> str:
    """The text of the file, bounded."""
    try:
        # A pipe or device would block or never end.
        if not stat.S_ISREG(path.stat().st_mode):
            raise ContextFileError(f"{path} is not a file")
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ContextFileError(f"{path} can't be read: {reason}") from error
    if len(data) > MAX_FILE_BYTES:
        raise ContextFileError(f"{path} has more than {MAX_FILE_BYTES // 2**20} MiB")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ContextFileError(
            f"{path} is not a text file: byte {error.start} is not UTF-8"
        ) from error


def _replace(target: Path, data: bytes) -> None:
    """Puts ``data`` in the place of ``target`` at once."""
    mode = stat.S_IRUSR | stat.S_IWUSR
    if target.exists():
        if not target.is_file():
            raise ValueError("it is not a file")
        mode = stat.S_IMODE(target.stat().st_mode)
    descriptor, name = tempfile.mkstemp(prefix=".gptnode-", dir=target.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _one_line(text: str) -> str:
    """``text`` without line ends and what else would break a comment."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
