"""Text that came from a model or a peer, made harmless for a terminal.

A terminal obeys escape sequences: they can hide text, rename windows, write the clipboard or make
it answer as if somebody typed. The sequences are those of ECMA-48 (5.4 control sequences, 5.6
control strings) in their 7-bit and 8-bit forms. This file knows no terminal: text in, text out.
"""

from __future__ import annotations

from enum import Enum, auto

__all__ = ["TerminalFilter", "printable"]

ESC = "\x1b"
CSI = "\x9b"
# DCS, SOS, OSC, PM and APC begin a string that lasts until ST or BEL.
STRING_OPENERS_8_BIT = frozenset("\x90\x98\x9d\x9e\x9f")
STRING_OPENERS_7_BIT = frozenset("PX]^_")
STRING_CLOSERS = frozenset("\x07\x9c\x18\x1a")
# Overrides and isolates: they show text in another order than it has.
BIDI_CONTROLS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


class _State(Enum):
    """What the next character belongs to."""

    TEXT = auto()
    ESCAPE = auto()
    CONTROL_SEQUENCE = auto()
    STRING = auto()
    STRING_ESCAPE = auto()


class TerminalFilter:
    """Strips controls from a stream of text, whatever the borders of its chunks.

    Line feeds and tabs pass; all other C0 and C1 controls, DEL, escape sequences and bidirectional
    overrides are dropped, and a lone surrogate becomes U+FFFD. A control string that is never
    closed ends with its line, so that it can't swallow the rest of an answer. Memory is constant.
    """

    def __init__(self) -> None:
        """Starts in plain text."""
        self._state = _State.TEXT

    def push(self, text: str) -> str:
        """What of ``text`` may be shown."""
        # Printable in Python's sense has no controls, overrides or surrogates.
        if self._state is _State.TEXT and text.isprintable():
            return text
        return "".join([self._pass(character) for character in text])

    def flush(self) -> str:
        """Ends the stream: an unfinished sequence is dropped, and the filter is as new."""
        self._state = _State.TEXT
        return ""

    def _pass(self, character: str) -> str:
        """``character`` itself if it may be shown, else nothing."""
        match self._state:
            case _State.TEXT:
                return self._in_text(character)
            case _State.ESCAPE:
                return self._in_escape(character)
            case _State.CONTROL_SEQUENCE:
                return self._in_control_sequence(character)
            case _State.STRING:
                return self._in_string(character)
            case _State.STRING_ESCAPE:
                if character == "\\":
                    self._state = _State.TEXT
                    return ""
                return self._in_escape(character)

    def _in_text(self, character: str) -> str:
        """Outside of all sequences."""
        self._state = _State.TEXT
        if character == ESC:
            self._state = _State.ESCAPE
        elif character == CSI:
            self._state = _State.CONTROL_SEQUENCE
        elif character in STRING_OPENERS_8_BIT:
            self._state = _State.STRING
        elif "\ud800" <= character <= "\udfff":
            return "\ufffd"
        elif character in "\n\t" or not (_is_control(character) or character in BIDI_CONTROLS):
            return character
        return ""

    def _in_escape(self, character: str) -> str:
        """After ESC: intermediates, then one final character, or the opener of something longer."""
        if " " <= character <= "/":
            self._state = _State.ESCAPE
        elif character == "[":
            self._state = _State.CONTROL_SEQUENCE
        elif character in STRING_OPENERS_7_BIT:
            self._state = _State.STRING
        elif "0" <= character <= "~":
            self._state = _State.TEXT
        else:
            return self._in_text(character)
        return ""

    def _in_control_sequence(self, character: str) -> str:
        """After CSI: parameters and intermediates, then one final character."""
        if "@" <= character <= "~":
            self._state = _State.TEXT
            return ""
        return "" if " " <= character <= "?" else self._in_text(character)

    def _in_string(self, character: str) -> str:
        """In a control string, whose content is never shown."""
        if character == "\n":
            return self._in_text(character)
        if character == ESC:
            self._state = _State.STRING_ESCAPE
        elif character in STRING_CLOSERS:
            self._state = _State.TEXT
        return ""


def printable(text: str) -> str:
    """A whole text as `TerminalFilter` shows it."""
    return TerminalFilter().push(text)


def _is_control(character: str) -> bool:
    """C0, DEL or C1."""
    return character < " " or "\x7f" <= character <= "\x9f"
