"""A peer's msgpack, unpacked within limits and read field by field with the exact type that is due.

Whatever doesn't fit is a RemoteProtocolError here, or an error of the message's own checks, which
codec.py turns into one. Knows which kinds of field there are, not which message has which.
"""

from __future__ import annotations

import msgpack

from gptnode.errors import RemoteProtocolError
from gptnode.span import Span
from gptnode.wire.draw import MAX_GUESS, Draw
from gptnode.wire.ring import MAX_TRAIL, Trace
from gptnode.wire.tensor import WireTensor

__all__ = ["MAX_ARRAY_ITEMS", "MAX_MAP_FIELDS", "MAX_TEXT_BYTES", "Fields", "unpack"]

MAX_TEXT_BYTES = 16 * 1024
MAX_MAP_FIELDS = 64
MAX_ARRAY_ITEMS = max(MAX_TRAIL, MAX_GUESS)
ID_BYTES = 4


def _refuse_extension(code: int, data: bytes) -> object:
    raise ValueError(f"msgpack extension {code}")


def unpack(head: bytes) -> object:
    """The msgpack value in ``head``; no extension types, sizes bounded.

    Raises:
        RemoteProtocolError: it isn't one whole value.
    """
    try:
        return msgpack.unpackb(
            head,
            raw=False,
            strict_map_key=True,
            ext_hook=_refuse_extension,
            max_str_len=MAX_TEXT_BYTES,
            max_bin_len=0,
            max_array_len=MAX_ARRAY_ITEMS,
            max_map_len=MAX_MAP_FIELDS,
            max_ext_len=0,
        )
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException):
        # Its own words may quote the peer's bytes, and say nothing that helps.
        raise RemoteProtocolError("the peer sent a message that isn't valid msgpack") from None


class Fields:
    """A decoded map, read field by field with the exact type that is due."""

    def __init__(self, name: str, values: object) -> None:
        """``values`` must be a map; ``name`` is what errors call it."""
        if type(values) is not dict:
            raise RemoteProtocolError(f"the peer sent a {name} that isn't a map of fields")
        self.name = name
        self.values: dict[object, object] = values

    def _value(self, key: str) -> object:
        try:
            return self.values[key]
        except KeyError:
            raise RemoteProtocolError(f"the peer's {self.name} lacks {key}") from None

    def _wrong(self, key: str, due: str) -> RemoteProtocolError:
        return RemoteProtocolError(f"{key} in the peer's {self.name} must be {due}")

    def integer(self, key: str) -> int:
        """An int; a bool is none."""
        value = self._value(key)
        if type(value) is not int:
            raise self._wrong(key, "an integer")
        return value

    def seconds(self, key: str) -> float:
        """A float, or an int made one."""
        value = self._value(key)
        # Packers of other languages may write 0.0 as an integer.
        if type(value) is not float and type(value) is not int:
            raise self._wrong(key, "a number")
        return float(value)

    def number(self, key: str) -> float:
        """A float, or an int that a float holds exactly."""
        value = self._value(key)
        if type(value) is int and abs(value) < 2**53:
            return float(value)
        if type(value) is not float:
            raise self._wrong(key, "a number")
        return value

    def flag(self, key: str) -> bool:
        """A bool."""
        value = self._value(key)
        if type(value) is not bool:
            raise self._wrong(key, "true or false")
        return value

    def text(self, key: str) -> str:
        """A str."""
        value = self._value(key)
        if type(value) is not str:
            raise self._wrong(key, "text")
        return value

    def items(self, key: str) -> list[object]:
        """An array of anything."""
        value = self._value(key)
        if type(value) is not list:
            raise self._wrong(key, "an array")
        return value

    def integers(self, key: str) -> tuple[int, ...]:
        """An array of ints."""
        values = []
        for value in self.items(key):
            if type(value) is not int:
                raise self._wrong(key, "an array of integers")
            values.append(value)
        return tuple(values)

    def texts(self, key: str) -> tuple[str, ...]:
        """An array of texts."""
        values = []
        for value in self.items(key):
            if type(value) is not str:
                raise self._wrong(key, "an array of texts")
            values.append(value)
        return tuple(values)

    def span(self, key: str) -> Span:
        """Two ints; ValueError when they are no span."""
        bounds = self.integers(key)
        if len(bounds) != 2:
            raise self._wrong(key, "two integers")
        return Span(*bounds)

    def tensor(self, key: str, payload: memoryview) -> WireTensor:
        """A map of dtype and shape, for the bytes in ``payload``."""
        fields = Fields(key, self._value(key))
        return WireTensor(fields.text("dtype"), fields.integers("shape"), payload)

    def trail(self, key: str) -> tuple[Trace, ...]:
        """An array of maps, each a hop's trace."""
        hops = (Fields("hop", item) for item in self.items(key))
        return tuple(
            Trace(
                hop.span("span"),
                hop.integer("epoch"),
                hop.seconds("queue_s"),
                hop.seconds("compute_s"),
            )
            for hop in hops
        )

    def draw(self, key: str, payload: memoryview) -> tuple[Draw | None, memoryview]:
        """A map or nil; and what is left of ``payload`` before the ids at its end."""
        value = self._value(key)
        if value is None:
            return None, payload
        fields = Fields(key, value)
        n_seen = fields.integer("seen")
        if not 0 <= n_seen <= len(payload) // ID_BYTES:
            raise fields._wrong("seen", "the number of the ids at the payload's end")
        end = len(payload) - n_seen * ID_BYTES
        seen = WireTensor("i32", (n_seen,), payload[end:]) if n_seen else None
        draw = Draw(
            fields.number("temperature"),
            fields.integer("top_k"),
            fields.number("top_p"),
            fields.number("min_p"),
            fields.number("repetition_penalty"),
            fields.integer("seed"),
            fields.integer("drawn"),
            fields.integers("guess"),
            seen,
        )
        return draw, payload[:end]
