"""JSON values that know where they stand: `routes[3].peers[1]`.

Stricter than Python's own reader: no NaN, no key twice in an object, no number without end. Knows
JSON types, and how to say what is wrong and what is right; it doesn't know what a BlocksMap is.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from gptnode.errors import MapError

__all__ = ["JsonNode", "JsonObject", "Problems", "parse_json", "quoted", "suggestion"]

JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"
Read = TypeVar("Read")

PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*", re.ASCII)
MAX_QUOTED_CHARS = 70
MAX_LISTED = 8
MAX_COMPARED = 1000
MAX_PROBLEMS = 50
"""Who made more mistakes made one of them many times; looking on would only take time."""


def quoted(value: object) -> str:
    """A value of the file in one printable line, cut where it is long."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    try:
        text = json.dumps(value, ensure_ascii=False)
    except ValueError:  # an integer of thousands of digits
        return "a number without end"
    text = "".join(char if char.isprintable() else f"\\u{ord(char):04x}" for char in text)
    return text if len(text) <= MAX_QUOTED_CHARS else f"{text[: MAX_QUOTED_CHARS - 4]}...{text[-1]}"


def suggestion(word: str, known: Sequence[str]) -> str:
    """``; did you mean "ben"?``, or all that is known where nothing is near; begins with ``;``."""
    folded = {name.casefold(): name for name in reversed(known[:MAX_COMPARED])}
    word = word[:MAX_QUOTED_CHARS].casefold()
    near = difflib.get_close_matches(word, folded, n=1) or [
        name
        for name in folded
        if len(name) > 1 and len(word) > 1 and (name in word or word in name)
    ]
    if near:
        return f"; did you mean {quoted(folded[near[0]])}?"
    if not known:
        return ""
    listed = [quoted(name) for name in known[:MAX_LISTED]]
    listed += ["..."] * (len(known) > MAX_LISTED)
    return f"; there {'is' if len(known) == 1 else 'are'} {', '.join(listed)}"


class Problems:
    """What was found wrong so far, in the order of the file."""

    def __init__(self) -> None:
        """Nothing yet."""
        self._lines: list[str] = []

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._lines)

    @property
    def lines(self) -> tuple[str, ...]:
        """One line each."""
        return tuple(self._lines)

    def extend(self, lines: Iterable[str]) -> None:
        """Add some."""
        self._lines.extend(lines)

    @contextmanager
    def collected(self) -> Iterator[None]:
        """Takes the MapError of its block and goes on after it."""
        try:
            yield
        except MapError as error:
            self._lines.append(error.detail)

    def each(
        self, nodes: Iterable[JsonNode], read: Callable[[JsonNode], Read]
    ) -> tuple[tuple[JsonNode, Read], ...]:
        """What ``read`` makes of each node, beside the node; those that it rejects are left out.

        It gives up after `MAX_PROBLEMS`.
        """
        found: list[tuple[JsonNode, Read]] = []
        for node in nodes:
            if len(self._lines) >= MAX_PROBLEMS:
                break
            with self.collected():
                found.append((node, read(node)))
        return tuple(found)


@dataclass(frozen=True, slots=True)
class JsonNode:
    """A value and the way to it; all methods raise MapError with that path."""

    value: JsonValue
    path: str = ""

    def error(self, problem: str) -> MapError:
        """``problem`` with the path in front."""
        return MapError(f"{self.path or 'the file'}: {problem}")

    def wrong(self, wanted: str) -> MapError:
        """What it must be and what it is."""
        return self.error(f"must be {wanted}, not {quoted(self.value)}")

    def object(self, what: str, known: Sequence[str] | None = None) -> JsonObject:
        """An object; any key but the ``known`` ones is an error."""
        if not isinstance(self.value, dict):
            raise self.wrong(f"an object: {what}")
        for key in self.value:
            if known is not None and key not in known:
                raise MapError(f"{self._key_path(key)}: unknown key{suggestion(key, known)}")
        return JsonObject(self, self.value)

    def key(self, key: str, value: JsonValue) -> JsonNode:
        """The value under a key of this object."""
        return JsonNode(value, self._key_path(key))

    def items(self, example: str, *, empty: bool = False) -> tuple[JsonNode, ...]:
        """The items of a list that has some, unless it may be ``empty``."""
        if not isinstance(self.value, list):
            raise self.wrong(f"a list such as {example}")
        if not (self.value or empty):
            raise self.error(f"must not be empty; write for example {example}")
        return tuple(JsonNode(item, f"{self.path}[{i}]") for i, item in enumerate(self.value))

    def text(self, example: str) -> str:
        """A string that isn't empty and that UTF-8 can encode."""
        if not isinstance(self.value, str):
            raise self.wrong(f"a string such as {example}")
        if not self.value:
            raise self.error(f"must not be empty; write for example {example}")
        if any("\ud800" <= char <= "\udfff" for char in self.value):
            raise self.error(f"has half a character in {quoted(self.value)}")
        return self.value

    def line(self, example: str) -> str:
        """Text without line breaks, controls, or blanks at its ends."""
        text = self.text(example)
        if text != text.strip() or not text.isprintable():
            raise self.error(
                f"must have no blanks at its ends and no control characters: {quoted(text)}"
            )
        return text

    def count(self, wanted: str) -> int:
        """A whole number of at least 0."""
        if isinstance(self.value, bool) or not isinstance(self.value, int) or self.value < 0:
            raise self.wrong(wanted)
        return self.value

    def flag(self) -> bool:
        """True or false."""
        if not isinstance(self.value, bool):
            raise self.wrong("true or false")
        return self.value

    def _key_path(self, key: str) -> str:
        if not PLAIN_KEY.fullmatch(key):
            return f"{self.path}[{quoted(key)}]"
        return f"{self.path}.{key}" if self.path else key


@dataclass(frozen=True, slots=True)
class JsonObject:
    """An object, and the node that it is."""

    node: JsonNode
    values: dict[str, JsonValue]

    def required(self, key: str, example: str) -> JsonNode:
        """The value under ``key``; an error that shows the ``example`` where there is none."""
        found = self.optional(key)
        if found is None:
            missing = self.node.key(key, None)
            raise missing.error(f"missing; write for example {quoted(key)}: {example}")
        return found

    def optional(self, key: str) -> JsonNode | None:
        """The value under ``key``; null is as good as nothing."""
        value = self.values.get(key)
        return None if value is None else self.node.key(key, value)


class _Object(dict[str, JsonValue]):
    """An object that remembers a key that it had twice: its path is not known while parsing."""

    repeated: str | None = None


def parse_json(text: str) -> JsonNode:
    """The value in ``text``.

    Raises:
        MapError: it is no JSON (names line and column), an object has a key twice, a number isn't
            finite.
    """
    try:
        value = json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        raise MapError(_syntax_problem(error)) from error
    except RecursionError:
        raise MapError("the file: nested far deeper than any BlocksMap") from None
    except ValueError:
        raise MapError("the file: holds a number of thousands of digits") from None
    root = JsonNode(value)
    _check_strictness(root)
    return root


def _object(pairs: list[tuple[str, JsonValue]]) -> _Object:
    """An object from its keys and values."""
    found = _Object(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                found.repeated = key
                break
            seen.add(key)
    return found


def _check_strictness(root: JsonNode) -> None:
    """Reject what Python reads but JSON doesn't say, or says only once."""
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if isinstance(node.value, _Object):
            if node.value.repeated is not None:
                twice = node.key(node.value.repeated, None)
                raise twice.error("stands twice in this object; remove one of the two")
            waiting.extend(node.key(key, value) for key, value in node.value.items())
        elif isinstance(node.value, list):
            waiting.extend(node.items("[]", empty=True))
        elif isinstance(node.value, float) and not math.isfinite(node.value):
            raise node.error("NaN and infinity are no JSON numbers")


def _syntax_problem(error: json.JSONDecodeError) -> str:
    """Where it is, and what the parser says or, better, what people do most often."""
    before, after = error.doc[: error.pos].rstrip(), error.doc[error.pos :]
    problem, place = error.msg[:1].lower() + error.msg[1:], error.pos
    comma = len(before) - 1 if before.endswith(",") else error.pos  # Python 3.13 stops at it
    closing = error.doc[comma + 1 :].lstrip()[:1]
    if not error.doc.strip():
        problem = "the file is empty"
    elif error.doc[comma : comma + 1] == "," and closing in ("}", "]"):
        problem, place = f"remove the comma before {closing}", comma
    elif after.startswith(("//", "/*", "#")):
        problem = "JSON has no comments"
    elif after.startswith("'"):
        problem = 'strings stand in double quotes: "'
    line = error.doc.count("\n", 0, place) + 1
    column = place - error.doc.rfind("\n", 0, place)
    return f"line {line}, column {column}: not valid JSON: {problem}"
