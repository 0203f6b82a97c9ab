from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptnode.errors import RemoteProtocolError
from gptnode.wire.codec import decode, encode, tag_of
from gptnode.wire.messages import (
    Close,
    Draw,
    ErrorCode,
    Failure,
    Message,
    Open,
    Opened,
    Ping,
    Relay,
    Step,
    Stepped,
    Truncate,
    WireTensor,
)
from tests.wire.pair import OPEN, OPENED, SPAN, step, stepped, tensor
from tests.wire.strategies import messages

NOTHING = memoryview(b"")
SAMPLES: list[Message] = [
    OPEN,
    OPENED,
    step(),
    Step(3, tensor(), Draw(0.7, 40, 0.95, 0.1, 1.1, 7, 3, (5, 6), None)),
    stepped(),
    Truncate(3),
    Ping(1),
    Failure(ErrorCode.BUSY, "full", 2.0),
]


def fields_of(message: Message) -> tuple[dict[str, Any], memoryview]:
    head, payload = encode(message)
    return msgpack.unpackb(head), memoryview(payload)


def decode_fields(fields: Any, payload: memoryview = NOTHING) -> Message:
    return decode(msgpack.packb(fields), payload)


@given(messages)
def test_every_message_round_trips(message: Message) -> None:
    head, payload = encode(message)
    assert decode(head, memoryview(payload)) == message


@given(st.binary(max_size=300), st.binary(max_size=16))
def test_arbitrary_heads_are_messages_or_remote_errors(head: bytes, payload: bytes) -> None:
    try:
        message = decode(head, memoryview(payload))
    except RemoteProtocolError:
        return
    assert tag_of(message)


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=8)
    | st.sampled_from(["f32", "bf16", "busy", [0, 4], [1, 1, 1]]),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=6,
)


@given(st.sampled_from(SAMPLES), st.data())
def test_any_field_with_any_value_is_a_message_or_a_remote_error(
    sample: Message, data: st.DataObject
) -> None:
    fields, payload = fields_of(sample)
    fields[data.draw(st.sampled_from(sorted(fields)))] = data.draw(values)
    try:
        message = decode_fields(fields, payload)
    except RemoteProtocolError:
        return
    # What was let in may be sent again.
    head, tail = encode(message)
    assert decode(head, memoryview(tail)) == message


@pytest.mark.parametrize("sample", SAMPLES, ids=tag_of)
def test_a_missing_field_is_an_error_that_names_it(sample: Message) -> None:
    fields, payload = fields_of(sample)
    for key in fields:
        rest = {name: value for name, value in fields.items() if name != key}
        with pytest.raises(RemoteProtocolError, match=f"lacks {key}"):
            decode_fields(rest, payload)


@pytest.mark.parametrize("sample", [*SAMPLES, Close()], ids=tag_of)
def test_fields_of_a_newer_peer_are_passed_over(sample: Message) -> None:
    fields, payload = fields_of(sample)
    assert decode_fields({**fields, "compressed": {"with": [1, "zstd"]}}, payload) == sample


def test_fields_of_a_newer_peer_are_passed_over_inside_tensors_and_hops() -> None:
    fields, payload = fields_of(step())
    fields["hidden"]["scales"] = "row"
    assert decode_fields(fields, payload) == step()


def test_an_unknown_failure_code_still_ends_a_session() -> None:
    failure = decode_fields(
        {"type": "failure", "code": "out_of_coffee", "message": "!", "retry_after_s": 0.0}
    )
    assert failure == Failure(ErrorCode.INTERNAL, "!")


def test_whole_seconds_may_be_integers() -> None:
    fields, payload = fields_of(stepped())
    message = decode_fields({**fields, "queue_s": 2}, payload)
    assert isinstance(message, Stepped)
    assert type(message.queue_s) is float


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"position": True}, "position .* an integer"),
        ({"position": 1.0}, "position .* an integer"),
        ({"position": -1}, "position must lie between"),
        ({"position": 2**31}, "position must lie between"),
        ({"hidden": [1, 2]}, "hidden that isn't a map"),
        ({"hidden": {"dtype": "f64", "shape": [1, 1, 4]}}, "dtype"),
        ({"hidden": {"dtype": 1, "shape": [1, 1, 4]}}, "dtype"),
        ({"hidden": {"dtype": "f32", "shape": 4}}, "shape .* an array"),
        ({"hidden": {"dtype": "f32", "shape": [1, 1, "4"]}}, "shape .* integers"),
        ({"hidden": {"dtype": "f32", "shape": [1, True, 4]}}, "shape .* integers"),
        ({"hidden": {"dtype": "f32", "shape": [1, 1, 5]}}, "20 bytes, not 16"),
        ({"hidden": {"dtype": "f32", "shape": [2**62, 4]}}, "dimension"),
        ({"hidden": {"dtype": "f32", "shape": [2**26, 2**26, 2**26]}}, "bytes"),
        ({"type": "stride"}, "unknown here: 'stride'"),
        ({"type": 3}, "type .* text"),
        ({"queue_s": "soon"}, None),
    ],
)
def test_a_bad_step_is_refused_with_its_reason(changes: dict[str, Any], said: str | None) -> None:
    fields, payload = fields_of(step())
    if said is None:
        assert decode_fields({**fields, **changes}, payload) == step()
        return
    with pytest.raises(RemoteProtocolError, match=said):
        decode_fields({**fields, **changes}, payload)


@pytest.mark.parametrize(
    "changes",
    [
        {"queue_s": True},
        {"queue_s": "1"},
        {"compute_s": -1},
        {"compute_s": float("nan")},
        {"epoch": 2**63},
        {"span": [4, 4]},
        {"span": [-1, 4]},
        {"span": [0, 2, 4]},
        {"span": "0-3"},
        {"fingerprint": b"ffff"},
        {"fingerprint": ""},
    ],
)
def test_a_bad_stepped_is_refused(changes: dict[str, Any]) -> None:
    fields, payload = fields_of(stepped())
    with pytest.raises(RemoteProtocolError):
        decode_fields({**fields, **changes}, payload)


DRAW = Draw(0.7, 40, 0.95, 0.1, 1.1, 7, 3, (5, 6), WireTensor("i32", (2,), bytes(range(8))))


def test_ids_of_a_draw_travel_behind_the_tensor_of_its_step() -> None:
    fields, payload = fields_of(Step(0, tensor(), DRAW))
    assert fields["draw"]["seen"] == 2
    assert bytes(payload) == bytes(tensor().data) + bytes(range(8))
    plain = Step(0, tensor(), replace(DRAW, seen=None))
    assert fields_of(plain)[1].tobytes() == bytes(tensor().data)


def test_a_draw_may_have_whole_numbers_for_floats() -> None:
    fields, payload = fields_of(Step(0, tensor(), DRAW))
    whole = {**fields, "draw": {**fields["draw"], "temperature": 1, "top_p": 1, "min_p": 0}}
    found = decode_fields(whole, payload)
    assert found == Step(0, tensor(), replace(DRAW, temperature=1.0, top_p=1.0, min_p=0.0))


@pytest.mark.parametrize(
    "changes",
    [
        {"temperature": -1.0},
        {"temperature": 2**53},
        {"temperature": 2**64 - 1},
        {"temperature": True},
        {"top_p": 0},
        {"guess": [5, -1]},
        {"guess": [5] * 65},
        {"guess": "5"},
        {"seen": -1},
        {"seen": 1},  # what is left isn't the tensor's size
        {"seen": 7},
        {"seen": 2**62},
        {"seen": None},
        {"seed": 2**63},
    ],
)
def test_a_bad_draw_is_refused(changes: dict[str, Any]) -> None:
    for message in (Step(0, tensor(), DRAW), Relay(1, 0, tensor(), (), DRAW)):
        fields, payload = fields_of(message)
        with pytest.raises(RemoteProtocolError):
            decode_fields({**fields, "draw": {**fields["draw"], **changes}}, payload)


@pytest.mark.parametrize("missing", ["temperature", "guess", "seen", "drawn"])
def test_a_draw_lacks_nothing(missing: str) -> None:
    fields, payload = fields_of(Step(0, tensor(), DRAW))
    del fields["draw"][missing]
    with pytest.raises(RemoteProtocolError, match=f"lacks {missing}"):
        decode_fields(fields, payload)


@pytest.mark.parametrize("value", [None, 1, "true"])
def test_embed_and_head_are_flags(value: Any) -> None:
    fields, payload = fields_of(OPEN)
    for name in ("embed", "head"):
        with pytest.raises(RemoteProtocolError, match=f"{name} .* true or false"):
            decode_fields({**fields, name: value}, payload)


@pytest.mark.parametrize(
    "hops",
    [
        {},
        ["hop"],
        [{"span": [1, 0], "epoch": 1, "queue_s": 0.0, "compute_s": 0.0}],
        [{"span": [0, 1], "epoch": "1", "queue_s": 0.0, "compute_s": 0.0}],
        [{"span": [0, 1], "epoch": 1, "queue_s": -1.0, "compute_s": 0.0}],
        [{"span": [0, 1], "epoch": 1, "queue_s": 0.0}],
        [{"span": [0, 1], "epoch": 1, "queue_s": 0.0, "compute_s": 0.0}] * 65,
    ],
)
def test_bad_hops_are_refused(hops: Any) -> None:
    fields, payload = fields_of(Relay(1, 0, tensor(), ()))
    with pytest.raises(RemoteProtocolError):
        decode_fields({**fields, "trail": hops}, payload)


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\xc1",
        b"\x80\x80",
        msgpack.packb([1]),
        msgpack.packb("ping"),
        msgpack.packb({1: 2}),
        msgpack.packb({"type": "ping", "nonce": 1})[:-1],
        msgpack.packb({"type": "ping", "nonce": 1}) + b"\0",
        msgpack.packb({"type": "ping", "nonce": 1, "x": "y" * 20_000}),
        msgpack.packb({"type": "ping", "nonce": 1, "x": b"bin"}),
        msgpack.packb({"type": "ping", "nonce": 1, "x": [0] * 65}),
        msgpack.packb({"type": "ping", "nonce": 1, "x": msgpack.ExtType(5, b"x")}),
        msgpack.packb({"type": "ping", "nonce": 1, "x": msgpack.ExtType(5, b"")}),
        msgpack.packb({"type": "ping", "nonce": 1, "x": msgpack.Timestamp(1)}),
        msgpack.packb({"type": "ping", "nonce": 1} | {str(n): n for n in range(70)}),
        b"\x82\xa4type\xa4ping\xa5nonce\xa2\xff\xfe",
        b"\x91" * 5000 + b"\x00",
        b"\x81\xa1a" * 2000 + b"\x00",
        b"\xdf\xff\xff\xff\xff",
        b"\xdd\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
    ],
    ids=lambda head: head[:12].hex(),
)
def test_rubbish_is_a_remote_error(head: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        decode(head, NOTHING)


@pytest.mark.parametrize("sample", [OPEN, OPENED, Truncate(1), Ping(1), Close()], ids=tag_of)
def test_bytes_behind_a_message_without_tensor_are_refused(sample: Message) -> None:
    head, _ = encode(sample)
    with pytest.raises(RemoteProtocolError, match="3 bytes behind"):
        decode(head, memoryview(b"abc"))


def test_an_error_never_quotes_a_peers_control_characters() -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        decode_fields({"type": "\x1b[2J\x07" * 50})
    assert caught.value.detail.isprintable()
    assert len(caught.value.detail) < 300


def test_encoding_does_not_copy_the_tensor() -> None:
    data = bytes(1024)
    message = Step(0, WireTensor("f32", (1, 1, 256), data))
    assert encode(message)[1] is data


def test_tags_are_known_for_types_and_instances() -> None:
    assert (tag_of(Open), tag_of(OPEN)) == ("open", "open")
    assert isinstance(OPENED, Opened)
    assert OPENED.span == SPAN
