"""The bytes of single tokens, for the two families of decoders that nearly all models use.

A decoder of the `tokenizers` library maps a list of tokens to text. In the byte-level family
(GPT-2, Llama 3) and the SentencePiece family with byte fallback (Llama 1 and 2, Mistral, Gemma)
that map is a concatenation of bytes, token by token, which makes exact streaming possible at a
constant cost a token. This file recognises those two in the ``decoder`` of a tokenizer.json; for
any other it says so.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["TokenBytes", "token_bytes_of"]

BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


@dataclass(frozen=True, slots=True)
class TokenBytes:
    """How to turn tokens into bytes."""

    model_token: Callable[[str], bytes]
    """Bytes of a token of the model's own vocabulary."""
    added_token: Callable[[str], bytes]
    """Bytes of a token that was added to it."""
    strip_spaces: int = 0
    """How many spaces the decoder takes away at the start of a text."""


def token_bytes_of(decoder: object) -> TokenBytes | None:
    """The family of ``decoder``, as tokenizer.json has it; None if it is of neither."""
    match decoder:
        case {"type": "ByteLevel"} | {"type": "Sequence", "decoders": [{"type": "ByteLevel"}]}:
            alphabet = _byte_alphabet()
            return TokenBytes(lambda token: _byte_level(token, alphabet), str.encode)
        case {"type": "Sequence", "decoders": [*steps]}:
            return _sentencepiece_of(steps)
    return None


def _sentencepiece_of(steps: list[object]) -> TokenBytes | None:
    """Replace, ByteFallback, Fuse and perhaps Strip, in this order and with the usual settings."""
    strip_spaces = 0
    match steps:
        case [
            {"type": "Replace", "pattern": {"String": str(mark)}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
            *rest,
        ]:
            match rest:
                case []:
                    pass
                case [{"type": "Strip", "content": " ", "start": int(start), "stop": 0}]:
                    strip_spaces = start
                case _:
                    return None
            return TokenBytes(
                lambda token: _sentencepiece(token, mark),
                lambda token: token.replace(mark, " ").encode(),
                strip_spaces,
            )
    return None


def _sentencepiece(token: str, mark: str) -> bytes:
    """``<0x0A>`` is one byte; in all else ``mark`` stands for a space."""
    byte = BYTE_TOKEN.fullmatch(token)
    return bytes([int(byte[1], 16)]) if byte else token.replace(mark, " ").encode()


def _byte_level(token: str, alphabet: dict[str, int]) -> bytes:
    """Each character is a byte; a token with others is taken as it is, as the library does."""
    try:
        return bytes([alphabet[character] for character in token])
    except KeyError:
        return token.encode()


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's alphabet: printable Latin-1 is itself, the other bytes follow from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {
        chr(0x100 + place): byte for place, byte in enumerate(others)
    }
