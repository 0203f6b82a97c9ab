"""Calls of tools, as models write them into their answers.

Three ways are read: Hermes and Qwen put each call between ``<tool_call>`` and ``</tool_call>``,
Llama 3 answers with a JSON object and nothing else, Mistral with ``[TOOL_CALLS]`` and a JSON list.
Which of them a model was trained on, its chat template shows. What looks like a call and is none is
text: nothing that a model said is dropped.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Iterator
from dataclasses import dataclass
from secrets import token_hex
from typing import Any

__all__ = ["MISTRAL_MARK", "OPENING", "CallReader", "CallStyle", "MadeCall", "call_style"]

OPENING, CLOSING = "<tool_call>", "</tool_call>"
MISTRAL_MARK = "[TOOL_CALLS]"
PYTHON_TAG = "<|python_tag|>"


class CallStyle(enum.Enum):
    """How a model writes calls."""

    HERMES = "hermes"
    LLAMA = "llama"
    MISTRAL = "mistral"


@dataclass(frozen=True, slots=True)
class MadeCall:
    """A call that a model made; ``arguments`` is a JSON object in a string."""

    id: str
    name: str
    arguments: str


def call_style(template: str) -> CallStyle:
    """How a model with that chat template for tools writes its calls; as Hermes if that is open."""
    if OPENING in template:
        return CallStyle.HERMES
    if MISTRAL_MARK in template:
        return CallStyle.MISTRAL
    if PYTHON_TAG in template or '"parameters"' in template:
        return CallStyle.LLAMA
    return CallStyle.HERMES


class CallReader:
    """Splits an answer that comes piece by piece into text and calls."""

    def __init__(self, style: CallStyle, opening: str = "") -> None:
        """At the beginning of an answer; ``opening`` is what its prompt has of it already."""
        self._style = style
        self._held = opening
        self._whole = False  # all of it is one call, or several, or text: known at the end
        self._plain = False  # all of it is text
        self.n_calls = 0

    def push(self, text: str) -> list[str | MadeCall]:
        """What is clear with ``text``: pieces of text, never empty, and whole calls."""
        self._held += text
        if self._style is CallStyle.HERMES:
            return list(self._split())
        if not self._plain and not self._whole:
            start = self._held.lstrip()
            if not start:
                return []
            self._whole = self._begins_call(start)
            # As long as it may become the mark, nothing is decided.
            self._plain = not self._whole and not self._may_begin(start)
        return [] if not self._plain else list(self._release())

    def finish(self) -> list[str | MadeCall]:
        """What is left at the end of the answer."""
        if self._style is CallStyle.HERMES:
            head, mark, inside = self._held.partition(OPENING)
            if not mark:
                if self.n_calls:
                    self._held = self._held.rstrip()  # it stood between calls
                return list(self._release())
            calls = self._calls_in(inside)
            self._held = "" if calls else self._held
            return [*([head] if head and calls else []), *(calls or self._release())]
        calls = self._calls_in(self._held) if self._whole else []
        if calls:
            self._held = ""
        return [*calls, *self._release()]

    def _split(self) -> Iterator[str | MadeCall]:
        """Hermes: text before, calls between the marks."""
        while True:
            head, mark, inside = self._held.partition(OPENING)
            if not mark:
                break
            body, closing, rest = inside.partition(CLOSING)
            if not closing:
                return  # inside a call
            calls = self._calls_in(body)
            if calls and head.rstrip():
                yield head.rstrip()
            elif not calls:
                yield head + mark + body + closing
            yield from calls
            self._held = rest
        keep = _tail_in_doubt(self._held)
        shown, self._held = (
            self._held[: len(self._held) - keep],
            self._held[len(self._held) - keep :],
        )
        if shown:
            yield shown

    def _begins_call(self, start: str) -> bool:
        if self._style is CallStyle.LLAMA:
            return start.startswith(("{", PYTHON_TAG))
        return start.startswith((MISTRAL_MARK, "[{"))

    def _may_begin(self, start: str) -> bool:
        marks = (PYTHON_TAG,) if self._style is CallStyle.LLAMA else (MISTRAL_MARK, "[{")
        return any(mark.startswith(start) for mark in marks)

    def _release(self) -> Iterator[str]:
        shown, self._held = self._held, ""
        if shown:
            yield shown

    def _calls_in(self, text: str) -> list[MadeCall]:
        """The calls that ``text`` is; none if it is something else."""
        text = text.strip().removeprefix(PYTHON_TAG).removeprefix(MISTRAL_MARK).strip()
        found = [self._call(value) for value in _json_values(text)]
        calls = [call for call in found if call is not None]
        if len(calls) != len(found):
            return []
        self.n_calls += len(calls)
        return calls

    def _call(self, value: Any) -> MadeCall | None:
        match value:
            case {"name": str(name), "arguments": dict(arguments)} if name:
                pass
            case {"name": str(name), "parameters": dict(arguments)} if name:
                pass
            case _:
                return None
        # Mistral's template wants nine letters and digits.
        own = token_hex(5)[:9] if self._style is CallStyle.MISTRAL else f"call_{token_hex(12)}"
        return MadeCall(own, name, json.dumps(arguments, ensure_ascii=False))


def _tail_in_doubt(text: str) -> int:
    """How many characters at the end may belong to a mark, with the white space before it."""
    longest = min(len(OPENING) - 1, len(text))
    mark = next((n for n in range(longest, 0, -1) if OPENING.startswith(text[-n:])), 0)
    head = text[: len(text) - mark]
    return mark + len(head) - len(head.rstrip())


def _json_values(text: str) -> list[Any]:
    """JSON values one behind the other, or in one list; none if something else is there."""
    decoder = json.JSONDecoder(parse_constant=_no_constant)
    values: list[Any] = []
    at = 0
    try:
        while at < len(text):
            value, at = decoder.raw_decode(text, at)
            values.extend(value if isinstance(value, list) else [value])
            while at < len(text) and text[at] in " \t\r\n;,":
                at += 1
    except (ValueError, RecursionError):
        return []
    return values


def _no_constant(name: str) -> Any:
    """NaN and Infinity are no JSON."""
    raise ValueError(name)
