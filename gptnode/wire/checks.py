"""Checks of single values in messages: exact types, ranges, printable text of bounded length.

Messages check themselves with these when they are made, whether by this node or from a peer's
bytes, so that a message that exists is one that may be sent. Knows no message.
"""

from __future__ import annotations

import math

from gptnode.errors import LocalProtocolError
from gptnode.span import Span

__all__ = [
    "MAX_BLOCKS",
    "MAX_INTEGER",
    "MAX_TOKENS",
    "check_integer",
    "check_name",
    "check_seconds",
    "check_span",
    "clean_text",
]

MAX_BLOCKS = 65_535
MAX_TOKENS = 2**31 - 1
# What every language's 64-bit signed integer holds.
MAX_INTEGER = 2**63 - 1
_MAX_SECONDS = 1e9


def check_integer(field: str, value: object, *, least: int = 0, most: int = MAX_INTEGER) -> None:
    """``value`` is an int (bool is none) within ``[least, most]``, else LocalProtocolError."""
    if type(value) is not int:
        raise LocalProtocolError(f"{field} must be an integer, not {type(value).__name__}")
    if not least <= value <= most:
        raise LocalProtocolError(f"{field} must lie between {least} and {most}, not {value}")


def check_seconds(field: str, value: object) -> None:
    """``value`` is a finite float, zero or more, else LocalProtocolError."""
    if type(value) is not float:
        raise LocalProtocolError(f"{field} must be a float, not {type(value).__name__}")
    if not (math.isfinite(value) and 0.0 <= value <= _MAX_SECONDS):
        raise LocalProtocolError(f"{field} must be finite seconds, zero or more, not {value}")


def check_name(field: str, value: object, *, longest: int, may_be_empty: bool = False) -> None:
    """``value`` is printable text of at most ``longest`` characters, else LocalProtocolError.

    Printable in Unicode's sense: no control characters, no surrogates, nothing that turns the
    direction of writing, so that a name from a peer can be shown in a terminal.
    """
    if type(value) is not str:
        raise LocalProtocolError(f"{field} must be text, not {type(value).__name__}")
    if len(value) > longest or (not value and not may_be_empty):
        raise LocalProtocolError(f"{field} must have 1 to {longest} characters, not {len(value)}")
    if not value.isprintable():
        raise LocalProtocolError(f"{field} has characters that can't be printed")


def check_span(field: str, value: object) -> None:
    """``value`` is a Span below MAX_BLOCKS, else LocalProtocolError."""
    if type(value) is not Span:
        raise LocalProtocolError(f"{field} must be a span, not {type(value).__name__}")
    check_integer(f"{field}.start", value.start, most=MAX_BLOCKS)
    check_integer(f"{field}.stop", value.stop, most=MAX_BLOCKS)


def clean_text(text: str, *, longest: int) -> str:
    """``text`` on one line of at most ``longest`` characters, spaces for what isn't printable."""
    # Cut first, so that a hostile text is not walked to its end.
    printable = "".join(char if char.isprintable() else " " for char in text[: 4 * longest])
    return " ".join(printable.split())[:longest].rstrip()
