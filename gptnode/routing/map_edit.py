"""Adding a client to the text of a BlocksMap, and leaving the rest of the text as it is.

A person wrote the file and will read it again: spaces, line breaks and the order of keys stay, and
the new entry looks like its neighbours. Standard library only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gptnode.errors import MapError
from gptnode.routing.blocks_map import BlocksMap, parse_blocks_map, read_map_text
from gptnode.routing.replace_file import replace_file

__all__ = ["accept_client", "with_client"]

CLIENTS = "clients"
SPACE = re.compile(r"[ \t\r\n]*")
BOM = "\ufeff"


@dataclass(frozen=True, slots=True)
class _Value:
    """Where a value of an object or list stands in the text; ``lead`` is the space before it (in an
    object: before its key)."""

    key: str
    lead: str
    start: int
    end: int


def accept_client(path: Path, peer_id: str, name: str | None = None) -> bool:
    """Add ``peer_id`` to the clients of the map in ``path``; False if the map has it already.

    Raises:
        MapError: the file isn't a map, would not be one with that entry, or can't be written. It is
            as it was then.
    """
    text = read_map_text(path)
    if peer_id in parse_blocks_map(text, source=path).allowed():
        return False
    edited = with_client(text, peer_id, name)
    _check(parse_blocks_map(edited, source=path), peer_id, path)
    try:
        has_mark = path.read_bytes().startswith(BOM.encode())
        mode = path.stat().st_mode & 0o777
        if read_map_text(path) != text:
            raise MapError(f"{path}: was changed at the same moment; try again")
        replace_file(path, ((BOM if has_mark else "") + edited).encode(), mode)
    except OSError as error:
        raise MapError(f"{path}: can't be written ({error.strerror or error})") from error
    return True


def with_client(text: str, peer_id: str, name: str | None = None) -> str:
    """The text of a right map with one more client.

    Raises:
        MapError: ``text`` isn't an object with a list of clients, if with any.
    """
    members = tuple(_members(text, _opening(text, 0, "{"), "}"))
    listed = next((member for member in members if member.key == CLIENTS), None)
    if listed is None or text[listed.start] != "[":
        return _with_list(text, members, listed, _entry(peer_id, name, as_object=True))
    entries = tuple(_members(text, _opening(text, listed.start, "["), "]"))
    if not entries:
        entry = _entry(peer_id, name, as_object=True)
        return f"{text[: listed.start]}[{entry}]{text[listed.end :]}"
    last = entries[-1]
    written = text[last.start : last.end]
    entry = _entry(peer_id, name, as_object=bool(name) or written.startswith("{"))
    if "\n" in written:
        entry = _like(written, last.lead, entry)
    lead = last.lead if len(entries) > 1 or "\n" in last.lead else " "
    return f"{text[: last.end]},{lead}{entry}{text[last.end :]}"


def _with_list(text: str, members: tuple[_Value, ...], null: _Value | None, entry: str) -> str:
    """``text`` with a list of clients where it has none, or null."""
    if null is not None:
        return f"{text[: null.start]}[{entry}]{text[null.end :]}"
    if not members:
        raise MapError("a BlocksMap has models, peers and routes")
    last = members[-1]
    lead = last.lead if "\n" in last.lead else " "
    return f'{text[: last.end]},{lead}"{CLIENTS}": [{entry}]{text[last.end :]}'


def _entry(peer_id: str, name: str | None, *, as_object: bool) -> str:
    if not as_object:
        return json.dumps(peer_id)
    fields = {"name": name, "id": peer_id} if name else {"id": peer_id}
    return json.dumps(fields, ensure_ascii=False)


def _like(written: str, lead: str, entry: str) -> str:
    """``entry`` over several lines, indented as its neighbour ``written``."""
    newline = "\r\n" if "\r\n" in written else "\n"
    outer = lead.rpartition("\n")[2]
    match = re.search(r"\n([ \t]*)\S", written)
    inner = match[1].removeprefix(outer) if match is not None else "  "
    lines = json.dumps(json.loads(entry), ensure_ascii=False, indent=inner or "  ").splitlines()
    return f"{newline}{outer}".join(lines)


def _opening(text: str, start: int, bracket: str) -> int:
    """The place behind the bracket that opens the value at ``start``."""
    start = _space_end(text, start)
    if text[start : start + 1] != bracket:
        raise MapError(f"a {'list' if bracket == '[' else 'JSON object'} was expected")
    return start + 1


def _members(text: str, place: int, closing: str) -> Iterator[_Value]:
    """The values of the object or list whose first member begins at ``place``."""
    decoder = json.JSONDecoder()
    try:
        while True:
            start = _space_end(text, place)
            lead = text[place:start]
            if text[start] == closing:
                return
            key = ""
            if closing == "}":
                key, start = decoder.raw_decode(text, start)
                start = _space_end(text, _space_end(text, start) + 1)  # past the colon
            _, end = decoder.raw_decode(text, start)
            yield _Value(key, lead, start, end)
            place = _space_end(text, end)
            if text[place] == closing:
                return
            place += 1  # past the comma
    except (ValueError, IndexError, RecursionError) as error:
        raise MapError(f"not JSON ({error})") from error


def _space_end(text: str, start: int) -> int:
    match = SPACE.match(text, start)
    return match.end() if match is not None else start


def _check(edited: BlocksMap, peer_id: str, path: Path) -> None:
    """A look at the result: a file of a form that this code misread must not be written."""
    if peer_id not in edited.allowed():
        raise MapError(f"{path}: can't add a client to this file; add it to clients by hand")
