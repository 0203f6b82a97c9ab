"""Hostile bytes for the protocol, all from one random.Random: right messages and wrong ones.

A generator of frames that are valid, nearly valid, or nonsense. Knows the wire format; knows no
connection.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable

import msgpack

from gptnode.span import Span
from gptnode.wire.codec import encode
from gptnode.wire.frames import encode_frame
from gptnode.wire.messages import (
    Arrived,
    Close,
    Closed,
    Draw,
    ErrorCode,
    Failure,
    Fed,
    Feed,
    Forward,
    Forwarding,
    Message,
    Open,
    Opened,
    Ping,
    Pong,
    Relay,
    Relayed,
    Step,
    Stepped,
    Stranded,
    Trace,
    Truncate,
    Truncated,
    WireTensor,
)

__all__ = ["any_message", "bytes_of", "hostile_frame"]

PREFIX = struct.Struct(">II")
NUMBERS = (0, 1, 2, 7, -1, 255, 65_535, 2**31 - 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1)
TEXTS = ("", "f32", "open", "a" * 128, "a" * 5000, "\x1b[2J", "‮", "\x00", "é" * 40, "stepped")
TAGS = ("open", "opened", "step", "stepped", "truncate", "truncated", "ping", "pong", "close",
        "closed", "failure", "nonsense", "")  # fmt: skip


def bytes_of(message: Message) -> bytes:
    """The frame of a message, whether or not it may be sent now."""
    return b"".join(encode_frame(*encode(message)))


def any_message(rng: random.Random) -> Message:
    """A valid message of any kind; small numbers are likely, so that some fit each other."""
    return _MESSAGES[rng.randrange(len(_MESSAGES))](rng)


def hostile_frame(rng: random.Random) -> bytes:
    """Bytes of about one frame: one in five is valid, the others are wrong in some way."""
    return _FRAMES[rng.randrange(len(_FRAMES))](rng)


# -- valid messages --------------------------------------------------------------------------------


def _tensor(rng: random.Random) -> WireTensor:
    shape = (1, rng.randint(1, 4), rng.choice((1, 4, 32)))
    dtype, item_bytes = rng.choice((("f32", 4), ("bf16", 2), ("f16", 2), ("i32", 4)))
    return WireTensor(dtype, shape, rng.randbytes(shape[1] * shape[2] * item_bytes))


def _span(rng: random.Random) -> Span:
    start = rng.randrange(8)
    return Span(start, start + rng.randint(1, 8))


def _feed_key(rng: random.Random) -> str:
    return "k" * rng.randrange(65)


def _trail(rng: random.Random) -> tuple[Trace, ...]:
    return (Trace(_span(rng), 7, 0.0, 0.5),) * rng.choice((0, 0, 1, 64))


def _draw(rng: random.Random) -> Draw | None:
    """None, or one with or without a guess and ids that were seen."""
    if rng.random() < 0.5:
        return None
    n_seen = rng.choice((0, 0, 1, 40))
    seen = WireTensor("i32", (n_seen,), rng.randbytes(4 * n_seen)) if n_seen else None
    guess = tuple(rng.randrange(2**31) for _ in range(rng.choice((0, 0, 3, 64))))
    return Draw(0.7, 40, 0.9, 0.01, 1.1, rng.getrandbits(63), rng.randrange(64), guess, seen)


_MESSAGES: tuple[Callable[[random.Random], Message], ...] = (
    lambda rng: Open("model", "f" * 32, _span(rng), rng.randint(1, 4096), "f32", _feed_key(rng),
                     rng.random() < 0.5, rng.random() < 0.5),
    lambda rng: Opened("f" * 32, _span(rng), rng.getrandbits(48), 128, 16),
    lambda rng: Step(rng.randrange(64), _tensor(rng), _draw(rng)),
    lambda rng: Stepped(rng.randrange(64), _span(rng), "f" * 32, 7, _tensor(rng), 0.0, 0.5),
    lambda rng: Truncate(rng.randrange(64)),
    lambda rng: Truncated(rng.randrange(64)),
    lambda rng: Forward(rng.randint(1, 8), "peer", "k"),
    lambda rng: Forwarding(rng.choice(("", *TEXTS))),
    lambda rng: Feed("k" + _feed_key(rng)[1:]),
    lambda rng: Fed(16),
    lambda rng: Relay(rng.randint(1, 8), rng.randrange(64), _tensor(rng), _trail(rng), _draw(rng)),
    lambda rng: Relayed(rng.randint(1, 8)),
    lambda rng: Arrived(rng.randint(1, 8), rng.randrange(64), _tensor(rng), _trail(rng)),
    lambda rng: Stranded(rng.randint(1, 8), rng.choice(TEXTS)),
    lambda rng: Ping(rng.randrange(8)),
    lambda rng: Pong(rng.randrange(8)),
    lambda rng: Close(),
    lambda rng: Closed(),
    lambda rng: Failure(rng.choice(list(ErrorCode)), rng.choice(TEXTS), rng.choice((0.0, 2.5))),
)  # fmt: skip


# -- wrong frames ----------------------------------------------------------------------------------


def _valid(rng: random.Random) -> bytes:
    return bytes_of(any_message(rng))


def _flipped(rng: random.Random) -> bytes:
    """Some bits of a valid frame turned, anywhere."""
    data = bytearray(bytes_of(any_message(rng)))
    for _ in range(rng.choice((1, 1, 1, 2, 8))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


def _cut_or_stuffed(rng: random.Random) -> bytes:
    """Bytes taken out of a valid frame or put into it: all that follows is out of step."""
    data = bytearray(bytes_of(any_message(rng)))
    start = rng.randrange(len(data))
    if rng.random() < 0.5:
        del data[start : start + rng.randint(1, 16)]
    else:
        data[start:start] = rng.randbytes(rng.randint(1, 16))
    return bytes(data)


def _wrong_prefix(rng: random.Random) -> bytes:
    """Lengths that lie, up to 4 GiB."""
    data = bytes_of(any_message(rng))
    lengths = [*PREFIX.unpack(data[: PREFIX.size])]
    part = rng.randrange(2)
    lengths[part] = rng.choice((0, 1, lengths[part] + 1, max(0, lengths[part] - 1), 65_536, 65_537,
                                64 << 20, (64 << 20) + 1, 2**31, 2**32 - 1,
                                rng.getrandbits(32)))  # fmt: skip
    return PREFIX.pack(*lengths) + data[PREFIX.size :]


def _value(rng: random.Random, depth: int = 3) -> object:
    """Any value that msgpack knows."""
    kind = rng.randrange(8 if depth else 5)
    if kind == 0:
        return rng.choice(NUMBERS)
    if kind == 1:
        return rng.choice(TEXTS)
    if kind == 2:
        return rng.choice((None, True, False, 0.5, -1.0, float("nan"), float("inf"), 1e300))
    if kind == 3:
        return rng.randbytes(rng.randrange(20))
    if kind == 4:
        return msgpack.ExtType(rng.randrange(128), rng.randbytes(4))
    if kind == 5:
        return {_key(rng): _value(rng, depth - 1) for _ in range(rng.choice((0, 1, 3, 70)))}
    return [_value(rng, depth - 1) for _ in range(rng.choice((0, 1, 2, 5, 70)))]


def _key(rng: random.Random) -> object:
    return rng.choice(
        ("type", "span", "hidden", "dtype", "shape", "position", "nonce", "x", 1, b"type")
    )


def _framed(head: bytes, payload: bytes = b"") -> bytes:
    return PREFIX.pack(len(head), len(payload)) + head + payload


def _random_head(rng: random.Random) -> bytes:
    """A valid frame around a head of any shape, or of no shape at all."""
    payload = rng.randbytes(rng.choice((0, 0, 1, 16)))
    if rng.random() < 0.3:
        return _framed(rng.randbytes(rng.randint(1, 80)), payload)
    return _framed(msgpack.packb(_value(rng)), payload)


def _changed_fields(rng: random.Random) -> bytes:
    """A message with fields taken away, added, or of other values and kinds."""
    head, payload = encode(any_message(rng))
    fields = msgpack.unpackb(head)
    for _ in range(rng.choice((1, 1, 2))):
        keys = list(fields)
        way = rng.randrange(4)
        if way == 0 and keys:
            del fields[rng.choice(keys)]
        elif way == 1 and keys:
            fields[rng.choice(keys)] = _value(rng)
        elif way == 2:
            fields["type"] = rng.choice(TAGS)
        else:
            fields[_key(rng)] = _value(rng)
    return _framed(msgpack.packb(fields), bytes(payload))


def _wrong_tensor(rng: random.Random) -> bytes:
    """A step whose shape, dtype and bytes don't agree."""
    shape: list[object] = [rng.choice((*NUMBERS, 4, 1.5, None)) for _ in range(rng.randrange(6))]
    hidden = {"dtype": rng.choice(("f32", "bf16", "f64", "", 3)), "shape": shape}
    head = {"type": "step", "position": rng.choice(NUMBERS), "hidden": hidden}
    return _framed(msgpack.packb(head), rng.randbytes(rng.choice((0, 1, 4, 64, 4096))))


def _nested(rng: random.Random) -> bytes:
    """Arrays or maps within one another."""
    unit = rng.choice((b"\x91", b"\x81\xa1x", b"\xdc\x00\x01"))
    return _framed(unit * rng.choice((10, 500, 1500, 20_000)) + b"\xc0" * rng.randrange(2))


def _announced(rng: random.Random) -> bytes:
    """msgpack that announces gigabytes inside a small head."""
    start = rng.choice((b"\xdf", b"\xdd", b"\xdb", b"\xc6", b"\xc9"))
    return _framed(
        b"\x81\xa4type" + start + struct.pack(">I", rng.choice((2**32 - 1, 2**31, 70_000)))
    )


def _noise(rng: random.Random) -> bytes:
    return rng.randbytes(rng.randint(1, 200))


_FRAMES: tuple[Callable[[random.Random], bytes], ...] = (
    _valid, _valid, _flipped, _cut_or_stuffed, _wrong_prefix, _random_head, _changed_fields,
    _wrong_tensor, _nested, _announced, _noise,
)  # fmt: skip
