"""Frames of the stream layer: the same however they arrive, and nothing else gets in."""

from __future__ import annotations

import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptnode.net.mux_frames import (
    HEADER_BYTES,
    MAX_CREDIT_BYTES,
    MAX_DATA_BYTES,
    MAX_STREAM_ID,
    EndCode,
    Frame,
    FrameReader,
    Kind,
    MuxViolationError,
    header,
)

STREAM_IDS = st.integers(1, MAX_STREAM_ID)
Said = tuple[Kind, int, int, bytes]


@st.composite
def frames(draw: st.DrawFn) -> Said:
    kind = draw(st.sampled_from(Kind))
    stream_id = 0 if kind in (Kind.PING, Kind.PONG, Kind.GOAWAY) else draw(STREAM_IDS)
    data = draw(st.binary(min_size=1, max_size=300)) if kind is Kind.DATA else b""
    values = {
        Kind.OPEN: st.integers(0, MAX_CREDIT_BYTES),
        Kind.DATA: st.just(len(data)),
        Kind.WINDOW: st.integers(1, MAX_CREDIT_BYTES),
        Kind.PING: st.integers(0, 2**32 - 1),
        Kind.PONG: st.integers(0, 2**32 - 1),
        Kind.GOAWAY: st.sampled_from([int(code) for code in EndCode]),
    }
    return kind, stream_id, draw(values.get(kind, st.just(0))), data


def joined(received: list[Frame], said: list[Said]) -> list[Said]:
    """Pieces of one DATA frame put together again."""
    result: list[Said] = []
    for frame in received:
        last = result[-1] if result else None
        whole = last is None or len(last[3]) == said[len(result) - 1][2]
        if frame.kind is Kind.DATA and last is not None and last[0] is Kind.DATA and not whole:
            assert frame.stream_id == last[1]
            data = last[3] + bytes(frame.data)
            result[-1] = (frame.kind, frame.stream_id, len(data), data)
        else:
            result.append((frame.kind, frame.stream_id, frame.value, bytes(frame.data)))
    return result


def fed(reader: FrameReader, data: bytes, cuts: list[int]) -> list[Frame]:
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    received = []
    for start, stop in pairwise(edges):
        received += list(reader.feed(data[start:stop]))
    return received


@given(st.lists(frames(), max_size=12), st.lists(st.integers(0, 2000), max_size=20))
def test_any_split_of_the_bytes_gives_the_same_frames(said: list[Said], cuts: list[int]) -> None:
    data = b"".join(header(kind, sid, value) + body for kind, sid, value, body in said)
    reader = FrameReader()
    received = fed(reader, data, cuts)
    assert joined(received, said) == said
    assert reader.between_frames


@given(st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=10))
def test_garbage_is_frames_or_a_violation_and_never_kept(data: bytes, cuts: list[int]) -> None:
    reader = FrameReader()
    try:
        received = fed(reader, data, cuts)
    except MuxViolationError:
        received = []
    assert sum(len(frame.data) for frame in received) <= len(data)
    assert len(reader._partial) <= HEADER_BYTES


@pytest.mark.parametrize(
    ("kind", "stream_id", "value"),
    [
        (0, 1, 0),
        (9, 1, 0),
        (255, 0, 0),
        (Kind.OPEN, 0, 0),
        (Kind.OPEN, 1, MAX_CREDIT_BYTES + 1),
        (Kind.OPEN, MAX_STREAM_ID + 1, 0),
        (Kind.DATA, 0, 1),
        (Kind.DATA, 1, 0),
        (Kind.DATA, 1, MAX_DATA_BYTES + 1),
        (Kind.WINDOW, 1, 0),
        (Kind.WINDOW, 0, 1),
        (Kind.CLOSE, 1, 1),
        (Kind.RESET, 1, 1),
        (Kind.PING, 1, 0),
        (Kind.PONG, 1, 0),
        (Kind.GOAWAY, 1, 0),
        (Kind.GOAWAY, 0, 3),
    ],
)
def test_a_header_that_no_rule_allows_is_a_violation(kind: int, stream_id: int, value: int) -> None:
    with pytest.raises(MuxViolationError):
        list(FrameReader().feed(struct.pack(">BII", kind, stream_id, value)))


def test_data_is_handed_out_as_it_arrives_without_a_copy() -> None:
    reader = FrameReader()
    received = bytearray(header(Kind.DATA, 1, 1000) + b"x" * 100)
    [frame] = reader.feed(received)
    assert frame.data.obj is received
    assert (frame.value, len(frame.data)) == (100, 100)
    assert not reader.between_frames
    [rest] = reader.feed(b"y" * 900)
    assert rest.value == 900
    assert reader.between_frames
