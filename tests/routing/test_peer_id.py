"""Which texts are peer ids."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from libp2p.crypto.ed25519 import create_new_key_pair as ed25519_pair
from libp2p.crypto.secp256k1 import create_new_key_pair as secp256k1_pair
from libp2p.peer.id import ID

from gptnode.routing.peer_id import peer_id_problem

from .ids import ANNA, UNHURRIED, base58, ed25519_id


@pytest.mark.parametrize("make_pair", [ed25519_pair, secp256k1_pair])
def test_the_ids_that_libp2p_makes_are_well_formed(make_pair: object) -> None:
    peer_id = str(ID.from_pubkey(make_pair().public_key))  # type: ignore[operator]
    assert peer_id_problem(peer_id) is None


def test_the_id_of_an_rsa_key_is_well_formed() -> None:
    # The example of the specification; making such a key takes seconds.
    assert peer_id_problem("QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N") is None


@UNHURRIED
@given(st.binary(min_size=32, max_size=32))
def test_every_ed25519_key_has_a_well_formed_id(key: bytes) -> None:
    assert ed25519_id(key).startswith("12D3KooW")
    assert peer_id_problem(ed25519_id(key)) is None


@UNHURRIED
@given(st.binary(min_size=32, max_size=32), st.integers(0, 51))
def test_an_id_that_lost_a_character_is_noticed(key: bytes, index: int) -> None:
    peer_id = ed25519_id(key)
    assert peer_id_problem(peer_id[:index] + peer_id[index + 1 :]) is not None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is empty"),
        ("anna", "is no multihash"),
        (ANNA[:-1], "is cut short"),
        (ANNA + "A", "is cut short"),
        (ANNA[:-1] + "0", "has the character 0, which base58 lacks"),
        (ANNA + " ", "has the character U+0020"),
        (ANNA[:-1] + "\x1b", "has the character U+001B"),
        ("A" * 200, "has 200 characters"),
        ("QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5", "is cut short"),
        ("1" * 40, "is no multihash"),
        (base58(b"\x00\x24\x08\x03\x12\x20" + bytes(32)), "is no multihash"),
        (base58(b"\x00\x25\x08\x01\x12\x21" + bytes(33)), "is no multihash"),
        (base58(b"\x12\x1f" + bytes(31)), "is no multihash"),
        (base58(b"\x13\x20" + bytes(32)), "is no multihash"),
    ],
)
def test_what_is_wrong_is_said(text: str, problem: str) -> None:
    assert (peer_id_problem(text) or "").startswith(problem)


@UNHURRIED
@given(st.text(max_size=150))
def test_any_text_gets_an_answer(text: str) -> None:
    problem = peer_id_problem(text)
    assert problem is None or problem.isprintable()
