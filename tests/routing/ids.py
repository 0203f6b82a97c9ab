"""Peer ids that belong to nobody, and how long hypothesis may take."""

from __future__ import annotations

from hypothesis import settings

UNHURRIED = settings(deadline=None)

ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


def base58(data: bytes) -> str:
    number, text = int.from_bytes(data, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        text = ALPHABET[digit] + text
    return "1" * (len(data) - len(data.lstrip(b"\0"))) + text


def ed25519_id(key: bytes) -> str:
    return base58(b"\x00\x24\x08\x01\x12\x20" + key)


ANNA, BEN, CLEO, DORA, LAPTOP = (ed25519_id(bytes([n]) * 32) for n in range(1, 6))
IDS = {"anna": ANNA, "ben": BEN, "cleo": CLEO, "dora": DORA}
