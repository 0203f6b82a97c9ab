"""Hostile frames through the sans-io connections of both sides, session after session.

A session is one random.Random(seed, number): it can be run again alone. Whatever comes, a
connection gives messages or the protocol's own errors, holds no more than its limits, and its
memory doesn't grow.
"""

from __future__ import annotations

import random
import re
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import psutil

from gptnode.errors import LocalProtocolError, RemoteProtocolError, StreamLostError
from gptnode.span import Span
from gptnode.wire.codec import decode, encode, tag_of
from gptnode.wire.connection import ClientConnection, ServerConnection
from gptnode.wire.frames import PREFIX_BYTES
from gptnode.wire.limits import DEFAULT_LIMITS
from gptnode.wire.messages import (
    Close,
    Closed,
    ErrorCode,
    Failure,
    Open,
    Opened,
    Ping,
    Pong,
    Step,
)
from gptnode.wire.states import State
from proof.mutations import any_message, bytes_of, hostile_frame

__all__ = ["WireFuzz", "fuzz_wire"]

Side = ClientConnection | ServerConnection

PAYLOAD_BYTES = 8192
FLAT_BYTES = 64 << 20
WARM_UP = 0.05
SAMPLE_EVERY = 5000
FRAMES_A_SESSION = 12
EXPECTED = 0.6  # of the frames, so that sessions get somewhere before they are ended
MAX_KINDS = 500

OPEN = Open("model", "f" * 32, Span(0, 4), max_tokens=128, dtype="f32")
OPENED = Opened("f" * 32, Span(0, 4), epoch=7, max_tokens=128, max_chunk_tokens=16)


@dataclass
class WireFuzz:
    """``errors`` by kind; ``failures`` (should be none) with how to repeat them."""

    seed: int
    frames: int = 0
    sessions: int = 0
    messages: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    warm_bytes: int = 0
    peak_bytes: int = 0

    @property
    def growth_bytes(self) -> int:
        """Resident memory at its highest, less that after the warm-up."""
        return max(0, self.peak_bytes - self.warm_bytes)

    @property
    def passed(self) -> bool:
        """Whether nothing but the protocol's own errors came, in flat memory."""
        return not self.failures and self.growth_bytes <= FLAT_BYTES


def fuzz_wire(
    seed: int, frames: int, *, session: int | None = None, report: Callable[[str], None]
) -> WireFuzz:
    """Feed ``frames`` frames; with ``session`` that one alone, and its bytes are reported."""
    found = WireFuzz(seed)
    if session is not None:
        _run_session(found, session, report)
        return found
    process = psutil.Process()
    next_sample = 0
    while found.frames < frames and len(found.failures) < 10:
        _run_session(found, found.sessions, None)
        found.sessions += 1
        if found.frames >= next_sample:
            next_sample += SAMPLE_EVERY
            resident = process.memory_info().rss
            if found.frames <= max(frames * WARM_UP, SAMPLE_EVERY):
                found.warm_bytes = resident
            found.peak_bytes = max(found.peak_bytes, resident)
            if next_sample % 100_000 == 0:
                report(
                    f"{found.frames:,} frames, {found.growth_bytes >> 10} KiB more than at first"
                )
    return found


def _run_session(found: WireFuzz, number: int, report: Callable[[str], None] | None) -> None:
    rng = random.Random(f"{found.seed}/{number}")
    side = _a_side(rng)
    fed = b""
    try:
        for _ in range(FRAMES_A_SESSION):
            fed = _expected(side, rng) if rng.random() < EXPECTED else hostile_frame(rng)
            found.frames += 1
            if report is not None:
                report(f"{type(side).__name__} {side.state.value}: {fed.hex()}")
            _feed(side, fed, rng, found)
            if side.ended:
                _check_end(side)
                return
            if rng.random() < 0.3:
                _speak(side, rng, found)
        _hang_up(side, found)
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        found.failures.append(
            f"seed {found.seed}, session {number}: {type(error).__name__}: {error} "
            f"({where.filename}:{where.lineno}) after {fed[:60].hex()}"
        )


def _a_side(rng: random.Random) -> Side:
    """A connection in any state in which it listens, with some requests without an answer."""
    client, server = ClientConnection(), ServerConnection()
    side: Side = client if rng.random() < 0.5 else server
    state = rng.randrange(8)
    if state == 0:
        return side
    opening = client.send(OPEN)
    list(server.receive(b"".join(opening)))
    if state == 1:
        return side
    for one in (client, server):
        one.raise_limit(PAYLOAD_BYTES)
    list(client.receive(b"".join(server.send(OPENED))))
    for _ in range(rng.randrange(4)):
        message = any_message(rng)
        if client.can_send(type(message)) and not isinstance(message, Close | Failure):
            list(server.receive(b"".join(client.send(message))))
    if state == 2:
        list(server.receive(b"".join(client.send(Close()))))
    return side


def _expected(side: Side, rng: random.Random) -> bytes:
    """A frame that the side should let in now, where there is one."""
    due = side._due[0] if side._due else None
    for _ in range(8):
        message = any_message(rng)
        kind = type(message)
        if (side.state, kind) not in side._receives or kind in (Close, Closed, Failure):
            continue
        if isinstance(side, ClientConnection):
            if kind is Pong and side._nonces:
                return bytes_of(Pong(side._nonces[0]))
            if kind is not due:
                continue
        return bytes_of(message)
    return bytes_of(any_message(rng))


def _feed(side: Side, data: bytes, rng: random.Random, found: WireFuzz) -> None:
    """Give it the bytes, whole or in pieces; count what it makes of them."""
    pieces = [data]
    if len(data) > 1 and rng.random() < 0.3:
        cut = rng.randrange(1, len(data))
        pieces = [data[:cut], data[cut:]]
    for piece in pieces:
        try:
            for message in side.receive(piece):
                found.messages += 1
                found.errors[f"none: {tag_of(message)} let in"] += 1
                head, payload = encode(message)
                again = decode(head, memoryview(bytearray(payload)))
                if again != message:
                    raise AssertionError(f"read again it is another message: {message}")
        except RemoteProtocolError as error:
            _count(found, error)
            if side.state is not State.BROKEN:
                raise AssertionError(f"a violation left it {side.state}") from error
        _check_limits(side)


def _speak(side: Side, rng: random.Random, found: WireFuzz) -> None:
    """What this node may or may not say in between."""
    message = any_message(rng)
    before = side.state, side.in_flight, side.pings_in_flight
    try:
        side.send(message)
    except LocalProtocolError as error:
        _count(found, error)
        if before != (side.state, side.in_flight, side.pings_in_flight):
            raise AssertionError("a message that wasn't sent changed something") from error


def _hang_up(side: Side, found: WireFuzz) -> None:
    try:
        side.receive_eof()
    except StreamLostError as error:
        _count(found, error)


def _check_limits(side: Side) -> None:
    held = side.buffered_bytes
    most = PREFIX_BYTES + DEFAULT_LIMITS.max_head_bytes + side.max_payload_bytes
    if not side.ended and held > most:
        raise AssertionError(f"{held} bytes are held, {most} at most are due")
    if side.in_flight > DEFAULT_LIMITS.max_in_flight:
        raise AssertionError(f"{side.in_flight} requests in flight")
    if side.pings_in_flight > DEFAULT_LIMITS.max_pings:
        raise AssertionError(f"{side.pings_in_flight} pings in flight")


def _check_end(side: Side) -> None:
    """What ended stays ended, whatever follows; a broken one may say why, once."""
    if side.in_flight or side.pings_in_flight:
        raise AssertionError("something is still due after the end")
    if list(side.receive(bytes_of(Ping(1)))):
        raise AssertionError("a message after the end")
    if side.state is State.BROKEN:
        side.send(Failure(ErrorCode.PROTOCOL, "nonsense"))
    for kind in (Open, Opened, Step, Ping, Close, Failure):
        if side.can_send(kind):
            raise AssertionError(f"{kind.__name__} may be sent after the end")


def _count(found: WireFuzz, error: Exception) -> None:
    kind = re.sub(r"'.*'|\".*\"|\d+", "#", str(error))[:90]
    name = f"{type(error).__name__}: {kind}"
    if name not in found.errors and len(found.errors) >= MAX_KINDS:
        name = f"{type(error).__name__}: other"
    found.errors[name] += 1
