from __future__ import annotations

import itertools
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptnode.errors import LocalProtocolError, RemoteProtocolError
from gptnode.wire.frames import PREFIX_BYTES, FrameDecoder, encode_frame
from gptnode.wire.limits import DEFAULT_LIMITS, Limits

Parts = tuple[bytes, bytes]


def frames_in(decoder: FrameDecoder, data: bytes) -> list[Parts]:
    decoder.feed(data)
    frames = []
    while (frame := decoder.next_frame()) is not None:
        frames.append((frame.head, bytes(frame.payload)))
    return frames


def decoder_with(limit_bytes: int, limits: Limits = DEFAULT_LIMITS) -> FrameDecoder:
    decoder = FrameDecoder(limits)
    decoder.raise_limit(limit_bytes)
    return decoder


def cut(data: bytes, at: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in at), len(data)]
    return [data[start:stop] for start, stop in itertools.pairwise(edges)]


@given(
    st.lists(st.tuples(st.binary(min_size=1, max_size=40), st.binary(max_size=60)), max_size=8),
    st.lists(st.integers(0, 2000), max_size=12),
)
def test_any_cut_of_the_stream_gives_the_same_frames(parts: list[Parts], at: list[int]) -> None:
    data = b"".join(b"".join(encode_frame(head, payload)) for head, payload in parts)
    decoder = decoder_with(60)
    found: list[Parts] = []
    for chunk in cut(data, at):
        found += frames_in(decoder, chunk)
    assert found == parts
    assert decoder.between_frames


def test_byte_by_byte_gives_the_same_frames() -> None:
    data = b"".join(encode_frame(b"head", b"payload")) * 3
    decoder = decoder_with(7)
    found = [frame for byte in data for frame in frames_in(decoder, bytes([byte]))]
    assert found == [(b"head", b"payload")] * 3


def test_a_frame_is_a_prefix_the_head_and_the_payload() -> None:
    assert b"".join(encode_frame(b"ab", b"xyz")) == b"\0\0\0\2\0\0\0\3abxyz"
    assert PREFIX_BYTES == 8


def test_a_large_payload_is_handed_on_uncopied() -> None:
    payload = bytes(1 << 20)
    assert encode_frame(b"h", payload)[1] is payload
    assert len(encode_frame(b"h", b"")) == 1


@pytest.mark.parametrize(
    ("prefix", "said"),
    [
        (b"\0\0\0\0\0\0\0\0", "message of 0 bytes"),
        (b"\0\1\0\1\0\0\0\0", "message of 65537 bytes"),
        (b"\xff\xff\xff\xff\0\0\0\0", "message of 4294967295 bytes"),
        (b"\0\0\0\1\0\0\0\x65", "tensor of 101 bytes, 100"),
        (b"\0\0\0\1\xff\xff\xff\xff", "tensor of 4294967295 bytes"),
    ],
)
def test_a_length_above_the_limit_is_refused_as_soon_as_it_is_read(
    prefix: bytes, said: str
) -> None:
    decoder = decoder_with(100)
    decoder.feed(prefix)
    with pytest.raises(RemoteProtocolError, match=said):
        decoder.next_frame()


def test_no_payload_is_let_in_before_the_limit_is_raised() -> None:
    decoder = FrameDecoder(DEFAULT_LIMITS)
    decoder.feed(b"\0\0\0\1\0\0\0\1")
    with pytest.raises(RemoteProtocolError, match="0 are let in"):
        decoder.next_frame()


def test_a_frame_of_just_the_limits_is_let_in() -> None:
    decoder = decoder_with(100, Limits(max_head_bytes=10))
    assert frames_in(decoder, b"".join(encode_frame(b"h" * 10, b"p" * 100)))


@pytest.mark.parametrize("to", [99, DEFAULT_LIMITS.max_payload_bytes + 1, -1])
def test_the_limit_is_only_raised_and_not_above_its_ceiling(to: int) -> None:
    decoder = decoder_with(100)
    with pytest.raises(LocalProtocolError):
        decoder.raise_limit(to)
    assert decoder.max_payload_bytes == 100


def test_an_announced_length_takes_no_memory() -> None:
    decoder = decoder_with(DEFAULT_LIMITS.max_payload_bytes)
    tracemalloc.start()
    try:
        decoder.feed(b"\0\0\xff\xff\x03\xff\xff\xff" + bytes(1000))
        assert decoder.next_frame() is None
        assert tracemalloc.get_traced_memory()[1] < 20_000
    finally:
        tracemalloc.stop()
    assert decoder.buffered_bytes == 1008


def test_bytes_may_not_be_fed_over_frames_that_were_not_taken() -> None:
    decoder = FrameDecoder(DEFAULT_LIMITS)
    decoder.feed(b"".join(encode_frame(b"a", b"")) * 2)
    assert decoder.next_frame()
    assert not decoder.between_frames
    with pytest.raises(LocalProtocolError):
        decoder.feed(b"x")


def test_payloads_are_writable_aligned_and_not_shared() -> None:
    data = bytearray(b"".join(encode_frame(b"odd", b"\1" * 16)) * 2)
    decoder = decoder_with(16)
    decoder.feed(data)
    first, second = decoder.next_frame(), decoder.next_frame()
    assert first is not None
    assert second is not None
    data[:] = bytes(len(data))
    first.payload[0] = 9
    assert second.payload.tolist() == [1] * 16
    for frame in (first, second):
        assert np.frombuffer(frame.payload, dtype=np.uint8).ctypes.data % 8 == 0


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=6))
def test_arbitrary_bytes_never_hold_more_than_a_frame_and_a_chunk(
    data: bytes, at: list[int]
) -> None:
    limits = Limits(max_head_bytes=20)
    decoder = decoder_with(30, limits)
    try:
        for chunk in cut(data, at):
            frames_in(decoder, chunk)
            assert decoder.buffered_bytes <= PREFIX_BYTES + 20 + 30
    except RemoteProtocolError:
        pass
