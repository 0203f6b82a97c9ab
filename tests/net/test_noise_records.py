"""Records: the bytes of libp2p's own Noise, in any pieces, and in no other order."""

from __future__ import annotations

import os

import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from hypothesis import given
from hypothesis import strategies as st

from gptnode.net.noise_records import (
    JOIN_BYTES,
    MAX_NONCE,
    MAX_PLAIN_BYTES,
    Opener,
    RecordError,
    Sealer,
)

KEY = bytes(range(32))


def open_all(opener: Opener, data: bytes, cut: int) -> bytes:
    """As a reader does it: what isn't a whole record waits for the rest."""
    plain, waiting = b"", b""
    for at in range(0, len(data), cut):
        waiting += data[at : at + cut]
        opened, used = opener.open(waiting)
        plain += opened
        waiting = waiting[used:]
    assert waiting == b""
    return plain


@given(
    st.lists(st.integers(0, 100) | st.integers(JOIN_BYTES - 3, JOIN_BYTES + 3), max_size=8),
    st.integers(500, 40_000),
)
def test_what_was_sealed_is_opened_however_it_arrives(sizes: list[int], cut: int) -> None:
    buffers = [bytes([n]) * size for n, size in enumerate(sizes)]
    sealed = bytes(Sealer(KEY, 0).seal(buffers))
    assert open_all(Opener(KEY, 0), sealed, cut) == b"".join(buffers)


def test_large_buffers_are_cut_into_full_records_without_a_gap() -> None:
    data = os.urandom(3 * MAX_PLAIN_BYTES + 7)
    sealer = Sealer(KEY, 0)
    sealed = sealer.seal([b"head", data, b"tail"])
    lengths, at = [], 0
    while at < len(sealed):
        lengths.append(int.from_bytes(sealed[at : at + 2], "big"))
        at += 2 + lengths[-1]
    assert lengths == [20, 65_535, 65_535, 65_535, 23, 20]
    assert Opener(KEY, 0).open(sealed) == (b"head" + data + b"tail", len(sealed))
    assert sealer.seal([]) == b""


def test_sealing_again_uses_the_same_memory() -> None:
    sealer = Sealer(KEY, 0)
    first = sealer.seal([bytes(1000)])
    assert sealer.seal([bytes(900)]).obj is first.obj


def test_records_are_those_of_the_specification() -> None:
    nonce = bytes(4) + (5).to_bytes(8, "little")
    body = ChaCha20Poly1305(KEY).encrypt(nonce, b"plain", None)
    assert Sealer(KEY, 5).seal([b"pl", b"ain"]) == len(body).to_bytes(2, "big") + body


def test_an_empty_record_is_passed_over() -> None:
    body = ChaCha20Poly1305(KEY).encrypt(bytes(12), b"", None)
    empty = len(body).to_bytes(2, "big") + body
    assert Opener(KEY, 0).open(empty) == (b"", len(empty))


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_changed_byte_is_no_record(at: int, flip: int) -> None:
    sealed = bytearray(Sealer(KEY, 0).seal([bytes(40), bytes(JOIN_BYTES + 1)]))
    sealed[at % len(sealed)] ^= flip
    try:
        plain, _ = Opener(KEY, 0).open(sealed)
    except RecordError:
        return
    assert len(plain) <= 40  # a length grew: the record never becomes whole


def test_a_record_that_is_left_out_said_again_or_moved_is_no_record() -> None:
    sealer = Sealer(KEY, 0)
    first, second = bytes(sealer.seal([b"a"])), bytes(sealer.seal([b"b"]))
    for wrong in (second, first + first, second + first):
        with pytest.raises(RecordError, match="authentication"):
            Opener(KEY, 0).open(wrong)


def test_a_record_without_room_for_its_tag_is_refused_before_it_is_whole() -> None:
    with pytest.raises(RecordError, match="15 bytes"):
        Opener(KEY, 0).open(b"\x00\x0f")


def test_used_up_nonces_end_either_direction() -> None:
    sealer = Sealer(KEY, MAX_NONCE - 1)
    last = bytes(sealer.seal([b"last"]))
    with pytest.raises(RecordError, match="nonces"):
        sealer.seal([b"one more"])
    opener = Opener(KEY, MAX_NONCE - 1)
    assert opener.open(last)[0] == b"last"
    with pytest.raises(RecordError, match="nonces"):
        opener.open(last)
