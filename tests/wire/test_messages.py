from __future__ import annotations

import array
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptnode.errors import LocalProtocolError
from gptnode.span import Span
from gptnode.wire.checks import MAX_BLOCKS, MAX_INTEGER, MAX_TOKENS, clean_text
from gptnode.wire.messages import (
    Arrived,
    Draw,
    ErrorCode,
    Failure,
    Fed,
    Feed,
    Forward,
    Forwarding,
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
from gptnode.wire.tensor import MAX_TENSOR_BYTES

SPAN = Span(0, 4)
TENSOR = WireTensor("f32", (1, 1, 2), bytes(8))
TRACE = Trace(SPAN, 1, 0.0, 0.5)
IDS = WireTensor("i32", (2,), bytes(8))
DRAW = Draw(0.7, 40, 0.95, 0.1, 1.1, 7, 3, (5, 6), IDS)
GOOD: dict[type, dict[str, Any]] = {
    Open: {
        "model": "tiny",
        "fingerprint": "f",
        "span": SPAN,
        "max_tokens": 9,
        "dtype": "f32",
        "feed_key": "k",
        "embed": True,
        "head": False,
    },
    Opened: {
        "fingerprint": "f",
        "span": SPAN,
        "epoch": 1,
        "max_tokens": 9,
        "max_chunk_tokens": 3,
    },
    Step: {"position": 0, "hidden": TENSOR, "draw": DRAW},
    Draw: {
        "temperature": 0.7,
        "top_k": 40,
        "top_p": 0.95,
        "min_p": 0.1,
        "repetition_penalty": 1.1,
        "seed": 7,
        "drawn": 3,
        "guess": (5, 6),
        "seen": IDS,
    },
    Stepped: {
        "position": 0,
        "span": SPAN,
        "fingerprint": "f",
        "epoch": 1,
        "hidden": TENSOR,
        "queue_s": 0.0,
        "compute_s": 0.5,
    },
    Truncate: {"length": 0},
    Truncated: {"length": 0},
    Ping: {"nonce": 0},
    Pong: {"nonce": 0},
    Failure: {"code": ErrorCode.BUSY, "message": "full", "retry_after_s": 1.0},
    Forward: {"ticket": 1, "peer_id": "peer", "feed_key": "k"},
    Forwarding: {"refusal": "why"},
    Feed: {"feed_key": "k"},
    Fed: {"max_chunk_tokens": 1},
    Relay: {"ticket": 1, "position": 0, "hidden": TENSOR, "trail": (TRACE,), "draw": DRAW},
    Relayed: {"count": 1},
    Arrived: {"ticket": 1, "position": 0, "hidden": TENSOR, "trail": (TRACE,)},
    Stranded: {"ticket": 1, "reason": "why"},
    Trace: {"span": SPAN, "epoch": 1, "queue_s": 0.0, "compute_s": 0.5},
    WireTensor: {"dtype": "f32", "shape": (1, 2), "data": bytes(8)},
}

BAD_INTEGERS = [-1, True, 1.0, "1", None, MAX_INTEGER + 1]
BAD_TOKENS = [-1, True, 2.0, None, MAX_TOKENS + 1]
BAD_NAMES = ["", 1, None, b"x", "x" * 300, "a\x1b[2J", "a\nb", "\u202egnp.exe", "\ud800"]
BAD_SECONDS = [-0.5, float("nan"), float("inf"), 1, True, "1", None, 1e10]
BAD_SPANS = [(0, 4), None, "0-3", Span(0, MAX_BLOCKS + 1), Span(False, 2)]
BAD_TENSORS = [None, bytes(8), (1, 2)]
BAD_FLAGS = [None, 0, 1, "true"]
BAD_DRAWS = [False, TENSOR, (0.7, 40)]
NOT_FINITE = [float("nan"), float("inf"), -float("inf"), 1, True, "1", None]
CASES: list[tuple[type, str, list[Any]]] = [
    (Open, "model", BAD_NAMES),
    (Open, "fingerprint", BAD_NAMES),
    (Open, "span", BAD_SPANS),
    (Open, "max_tokens", [*BAD_TOKENS, 0]),
    (Open, "dtype", ["f64", "", None, 4, "i32", "int2"]),
    (Open, "feed_key", [*BAD_NAMES[1:], "k" * 65]),
    (Open, "embed", BAD_FLAGS),
    (Open, "head", BAD_FLAGS),
    (Opened, "fingerprint", BAD_NAMES),
    (Opened, "span", BAD_SPANS),
    (Opened, "epoch", BAD_INTEGERS),
    (Opened, "max_tokens", [*BAD_TOKENS, 0]),
    (Opened, "max_chunk_tokens", [*BAD_TOKENS, 0]),
    (Step, "position", BAD_TOKENS),
    (Step, "hidden", BAD_TENSORS),
    (Step, "draw", BAD_DRAWS),
    (Relay, "draw", BAD_DRAWS),
    (Draw, "temperature", [*NOT_FINITE, -0.1]),
    (Draw, "top_k", BAD_TOKENS),
    (Draw, "top_p", [*NOT_FINITE, 0.0, -0.1, 1.01]),
    (Draw, "min_p", [*NOT_FINITE, -0.1, 1.01]),
    (Draw, "repetition_penalty", [*NOT_FINITE, 0.0, -1.0]),
    (Draw, "seed", BAD_INTEGERS),
    (Draw, "drawn", BAD_TOKENS),
    (Draw, "guess", [None, [5], ("5",), (True,), (-1,), (MAX_TOKENS + 1,), (1,) * 65]),
    (Draw, "seen", [bytes(8), (1, 2), TENSOR, WireTensor("i32", (1, 2), bytes(8))]),
    (Stepped, "position", BAD_TOKENS),
    (Stepped, "span", BAD_SPANS),
    (Stepped, "fingerprint", BAD_NAMES),
    (Stepped, "epoch", BAD_INTEGERS),
    (Stepped, "hidden", BAD_TENSORS),
    (Stepped, "queue_s", BAD_SECONDS),
    (Stepped, "compute_s", BAD_SECONDS),
    (Truncate, "length", BAD_TOKENS),
    (Truncated, "length", BAD_TOKENS),
    (Ping, "nonce", BAD_INTEGERS),
    (Pong, "nonce", BAD_INTEGERS),
    (Failure, "code", ["busy", None, 3]),
    (Failure, "message", [None, b"full", 1]),
    (Failure, "retry_after_s", BAD_SECONDS),
    (Forward, "ticket", [*BAD_INTEGERS, 0]),
    (Forward, "peer_id", BAD_NAMES),
    (Forward, "feed_key", [*BAD_NAMES, "k" * 65]),
    (Forwarding, "refusal", [None, b"x", 1]),
    (Feed, "feed_key", [*BAD_NAMES, "k" * 65]),
    (Fed, "max_chunk_tokens", [*BAD_TOKENS, 0]),
    *(
        (kind, field, values)
        for kind in (Relay, Arrived)
        for field, values in (
            ("ticket", [*BAD_INTEGERS, 0]),
            ("position", BAD_TOKENS),
            ("hidden", BAD_TENSORS),
            ("trail", [[TRACE], None, (TRACE,) * 65, ("hop",)]),
        )
    ),
    (Relayed, "count", [*BAD_TOKENS, 0]),
    (Stranded, "ticket", [*BAD_INTEGERS, 0]),
    (Stranded, "reason", [None, b"x", 1]),
    (Trace, "span", BAD_SPANS),
    (Trace, "epoch", BAD_INTEGERS),
    (Trace, "queue_s", BAD_SECONDS),
    (Trace, "compute_s", BAD_SECONDS),
    (WireTensor, "dtype", ["f64", "", None, 4, ["f32"], "int8"]),
    (
        WireTensor,
        "shape",
        [(), [1, 2], (1, 1, 1, 1, 2), (0, 2), (-1, -2), (True, 2), (3,), (1.0, 2)],
    ),
    (WireTensor, "data", [bytes(7), bytes(9), b"", None, "x" * 8, bytearray(8), [0] * 8]),
]


@pytest.mark.parametrize("kind", GOOD, ids=lambda kind: kind.__name__)
def test_a_good_message_can_be_made(kind: type) -> None:
    assert kind(**GOOD[kind])


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [(kind, field, value) for kind, field, values in CASES for value in values],
    ids=lambda value: getattr(value, "__name__", None) or ascii(value)[:40],
)
def test_a_bad_field_is_refused(kind: type, field: str, value: Any) -> None:
    with pytest.raises(LocalProtocolError):
        kind(**{**GOOD[kind], field: value})


def test_every_field_of_every_message_has_bad_values_here() -> None:
    assert {(kind, field) for kind, field, _ in CASES} == {
        (kind, field) for kind, fields in GOOD.items() for field in fields
    }


def test_a_session_can_be_told_to_hand_on_no_more() -> None:
    assert Forward(1, "", "").feed_key == ""


def test_64_hops_are_let_in() -> None:
    assert len(Relay(1, 0, TENSOR, (TRACE,) * 64).trail) == 64


def test_a_tensor_above_the_ceiling_is_refused_whatever_its_dimensions_multiply_to() -> None:
    huge = (MAX_TENSOR_BYTES,) * 4
    with pytest.raises(LocalProtocolError, match="bytes"):
        WireTensor("f32", huge, b"")
    with pytest.raises(LocalProtocolError, match="dimension"):
        WireTensor("f32", (2**64, 1), b"")


def test_a_tensor_sees_a_foreign_memoryview_as_its_bytes() -> None:
    floats = array.array("f", [1.0, 2.0])
    tensor = WireTensor("f32", (1, 2), memoryview(floats))
    assert bytes(tensor.data) == floats.tobytes()
    assert len(tensor.data) == 8


def test_a_tensor_keeps_a_plain_memoryview_without_a_copy() -> None:
    buffer = bytearray(8)
    tensor = WireTensor("f32", (1, 2), memoryview(buffer))
    buffer[0] = 9
    assert tensor.data[0] == 9


def test_a_tensor_with_gaps_in_its_memory_is_refused() -> None:
    with pytest.raises(LocalProtocolError, match="contiguous"):
        WireTensor("f32", (1, 2), memoryview(bytes(16))[::2])


def test_a_failure_cannot_carry_what_moves_a_cursor() -> None:
    failure = Failure(ErrorCode.BUSY, "\x1b[2Jfull\r\n up\u202e to\x00 the brim\x9b1m")
    assert failure.message == "[2Jfull up to the brim 1m"


def test_a_failure_is_cut_to_300_characters() -> None:
    assert Failure(ErrorCode.BUSY, "x" * 10_000).message == "x" * 300


@given(st.text(), st.integers(1, 50))
def test_cleaning_twice_changes_nothing(text: str, longest: int) -> None:
    once = clean_text(text, longest=longest)
    assert once.isprintable()
    assert len(once) <= longest
    assert clean_text(once, longest=longest) == once
