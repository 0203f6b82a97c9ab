"""Whether a text is a peer id, from its form alone.

A peer id is the base58 (Bitcoin alphabet) of a multihash of a public key: the identity multihash of
the key's protobuf where that is short (Ed25519 "12D3KooW...", secp256k1 "16Uiu2HA..."), else its
SHA-256 ("Qm..."). See https://github.com/libp2p/specs/blob/master/peer-ids/peer-ids.md. No
cryptography here: an id that is well-formed may belong to nobody.
"""

from __future__ import annotations

__all__ = ["peer_id_problem"]

ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
DIGITS = {char: value for value, char in enumerate(ALPHABET)}
MAX_CHARS = 128
IDENTITY, SHA_256 = 0x00, 0x12
KEY_BYTES = {1: 32, 2: 33}
"""Length of a public key by its type in the protobuf: Ed25519 and secp256k1."""


def peer_id_problem(text: str) -> str | None:
    """What keeps ``text`` from being a peer id, or None if it is one."""
    if not text:
        return "is empty"
    if len(text) > MAX_CHARS:
        return f"has {len(text)} characters, far more than a peer id"
    for char in text:
        if char not in DIGITS:
            shown = char if char.isprintable() and char != " " else f"U+{ord(char):04X}"
            return f"has the character {shown}, which base58 lacks"
    if _is_multihash(_decode(text)):
        return None
    if text.startswith(("12D3KooW", "16Uiu2HA", "Qm")):
        return "is cut short, or has a character too many or a wrong one"
    return "is no multihash of a public key"


def _decode(text: str) -> bytes:
    """The bytes behind base58; a leading 1 is a zero byte."""
    number = 0
    for char in text:
        number = number * 58 + DIGITS[char]
    zeros = len(text) - len(text.lstrip("1"))
    return bytes(zeros) + number.to_bytes((number.bit_length() + 7) // 8, "big")


def _is_multihash(data: bytes) -> bool:
    """Whether ``data`` is a multihash (code, length, digest) that a peer id can be."""
    if len(data) < 2 or data[1] != len(data) - 2:
        return False
    if data[0] == SHA_256:
        return data[1] == 32
    # The protobuf of a key: field 1 (0x08) is its type, field 2 (0x12) its bytes.
    if data[0] != IDENTITY or len(data) < 6 or (data[2], data[4]) != (0x08, 0x12):
        return False
    return data[5] == KEY_BYTES.get(data[3]) == len(data) - 6
