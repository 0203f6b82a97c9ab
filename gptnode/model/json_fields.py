"""Typed reading of a JSON object whose errors name the file and the field.

It knows JSON types and ranges; it doesn't know what any field means.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gptnode.errors import ModelFileError

__all__ = ["JsonFields", "parse_json_object", "read_json_object"]


def read_json_object(path: Path) -> Mapping[str, Any]:
    """The object in ``path``.

    Raises:
        ModelFileError: the file can't be read, is not JSON, or holds something else.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ModelFileError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ModelFileError(f"{path}: can't be read as text ({error})") from error
    return parse_json_object(text, str(path))


def parse_json_object(text: str, source: str) -> Mapping[str, Any]:
    """The object in ``text``; ``source`` is what errors call it.

    Raises:
        ModelFileError: the text is not JSON or holds something else than an object.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{source}: not valid JSON ({error})") from error
    if not isinstance(value, dict):
        raise ModelFileError(f"{source}: holds {_kind(value)} instead of an object")
    return value


class JsonFields:
    """The fields of one JSON object, read with a type.

    A field that is absent or null takes its default; without a default it is an error.
    """

    def __init__(self, values: Mapping[str, Any], source: str, prefix: str = "") -> None:
        """``source`` is the file and ``prefix`` the way to the object, ``"rope_scaling."``."""
        self._values = values
        self._source = source
        self._prefix = prefix

    def has(self, name: str) -> bool:
        """Whether the field is there and not null."""
        return self._values.get(name) is not None

    def is_null(self, name: str) -> bool:
        """Whether the field is there and null."""
        return name in self._values and self._values[name] is None

    def where(self, name: str) -> str:
        """``"FILE: field"``, as errors begin."""
        return f"{self._source}: {self._prefix}{name}"

    def raw(self, name: str) -> Any:
        """The value as it stands, None when it is absent."""
        return self._values.get(name)

    def count(self, name: str, default: int | None = None) -> int:
        """A whole number of at least 1."""
        value = self._value(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise self._wrong(name, "a whole number of at least 1", value)
        return value

    def token_id(self, name: str) -> int | None:
        """A whole number of at least 0, or None."""
        value = self._values.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise self._wrong(name, "a token id", value)
        return value

    def token_ids(self, name: str) -> tuple[int, ...]:
        """A token id or a list of them; empty when absent."""
        value = self._values.get(name)
        if value is None:
            return ()
        ids = value if isinstance(value, list) else [value]
        for item in ids:
            if isinstance(item, bool) or not isinstance(item, int) or item < 0:
                raise self._wrong(name, "a token id or a list of them", value)
        return tuple(ids)

    def positive(self, name: str, default: float | None = None) -> float:
        """A finite number above 0."""
        value = self._value(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._wrong(name, "a number above 0", value)
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not (math.isfinite(number) and number > 0):
            raise self._wrong(name, "a number above 0", value)
        return number

    def optional_positive(self, name: str) -> float | None:
        """A finite number above 0, or None when it is absent."""
        return self.positive(name) if self.has(name) else None

    def flag(self, name: str, default: bool) -> bool:
        """true or false."""
        value = self._value(name, default)
        if not isinstance(value, bool):
            raise self._wrong(name, "true or false", value)
        return value

    def text(self, name: str, default: str | None = None) -> str:
        """A string."""
        value = self._value(name, default)
        if not isinstance(value, str):
            raise self._wrong(name, "a string", value)
        return value

    def nested(self, name: str) -> JsonFields | None:
        """An object within this one, or None when it is absent."""
        value = self._values.get(name)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self._wrong(name, "an object", value)
        return JsonFields(value, self._source, f"{self._prefix}{name}.")

    def _value(self, name: str, default: Any) -> Any:
        value = self._values.get(name)
        if value is None:
            value = default
        if value is None:
            raise ModelFileError(f"{self.where(name)} is missing")
        return value

    def _wrong(self, name: str, wanted: str, value: object) -> ModelFileError:
        shown = repr(value) if isinstance(value, int | float | str | None) else _kind(value)
        if len(shown) > 60:
            shown = shown[:57] + "..."
        return ModelFileError(f"{self.where(name)} must be {wanted}, not {shown}")


def _kind(value: object) -> str:
    """What people call a JSON value of this type."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    return "a string" if isinstance(value, str) else "null" if value is None else "a number"
