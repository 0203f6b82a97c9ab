"""Where in a JSON text the value at a path such as ``routes[3].peers[1]`` stands.

A person edits the text, so an error is shown where it is. Knows JSON; not what a BlocksMap is.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

__all__ = ["Place", "line_and_column", "places", "split_problem"]

TOKEN = re.compile(r'[ \t\r\n]*("(?:[^"\\]|\\.)*"|[\[\]{},:]|[^\s\[\]{},:"]+)')
PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*", re.ASCII)
STEP = r'(?:\.[A-Za-z_][A-Za-z0-9_-]*|\[\d+\]|\["(?:[^"\\]|\\.)*"\])'
PROBLEM = re.compile(rf"([A-Za-z_][A-Za-z0-9_-]*{STEP}*): (.*)", re.DOTALL)
AT_LINE = re.compile(r"line (\d+), column (\d+): (.*)", re.DOTALL)
LAST_STEP = re.compile(rf"{STEP}$")


@dataclass(frozen=True, slots=True)
class Place:
    """A half-open range of characters of the text."""

    start: int
    stop: int


@dataclass(slots=True)
class _Open:
    """An object or list whose end isn't reached yet; ``index`` counts the items of a list."""

    path: str
    start: int
    index: int | None
    key: str | None = None


def places(text: str) -> dict[str, Place]:
    """The place of every value in ``text``, by its path; of the whole by ``""``.

    ``text`` is JSON that a parser has accepted; of anything else, as much as could be made out.
    """
    found: dict[str, Place] = {}
    inside: list[_Open] = []
    at = 0
    while (match := TOKEN.match(text, at)) is not None:
        token, start, at = match[1], match.start(1), match.end()
        if token in ("{", "["):
            inside.append(_Open(_path_here(inside), start, 0 if token == "[" else None))
        elif token in ("}", "]"):
            if inside:
                done = inside.pop()
                found[done.path] = Place(done.start, at)
        elif token == ",":
            if inside and inside[-1].index is not None:
                inside[-1].index += 1
            elif inside:
                inside[-1].key = None
        elif token != ":":
            if inside and inside[-1].index is None and inside[-1].key is None:
                inside[-1].key = _unquoted(token)
            else:
                found[_path_here(inside)] = Place(start, at)
    return found


def line_and_column(text: str, place: int) -> tuple[int, int]:
    """Both from 1."""
    return text.count("\n", 0, place) + 1, place - text.rfind("\n", 0, place)


def split_problem(line: str, text: str) -> tuple[str, int | None, int | None, str]:
    """A line of a ``MapReading`` as JSON path, line, column in ``text``, and what is wrong there.

    The path is empty for what isn't JSON at all; of a value that is missing, line and column are
    those of the object that lacks it.
    """
    at_line = AT_LINE.fullmatch(line)
    if at_line is not None:
        return "", int(at_line[1]), int(at_line[2]), at_line[3]
    at_path = PROBLEM.fullmatch(line)
    if at_path is None:
        return "", None, None, line
    path, problem = at_path[1], at_path[2]
    known = places(text)
    nearest = path
    while nearest and nearest not in known:
        nearest = LAST_STEP.sub("", nearest) if LAST_STEP.search(nearest) else ""
    if nearest not in known:
        return path, None, None, problem
    return path, *line_and_column(text, known[nearest].start), problem


def _path_here(inside: list[_Open]) -> str:
    """The path of the value that begins now."""
    if not inside:
        return ""
    around = inside[-1]
    if around.index is not None:
        return f"{around.path}[{around.index}]"
    key = around.key or ""
    if PLAIN_KEY.fullmatch(key) is None:
        return f"{around.path}[{json.dumps(key, ensure_ascii=False)}]"
    return f"{around.path}.{key}" if around.path else key


def _unquoted(token: str) -> str:
    try:
        return str(json.loads(token))
    except ValueError:
        return token
