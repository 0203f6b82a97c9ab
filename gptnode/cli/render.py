"""How answers, status lines and errors reach a terminal or a pipe.

Whatever comes from a model, a peer or a file passes the `TerminalFilter`, so that no escape
sequence of theirs reaches a terminal. Status lines go to stderr, answers to stdout; this file
knows in which column the terminal is, so that a status line in the middle of an answer gets a line
of its own. It knows no client and reads no keys.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, TextIO

from rich.cells import cell_len

from gptnode.errors import GptNodeError
from gptnode.text.printable import TerminalFilter, printable

if TYPE_CHECKING:
    from gptnode.node.answer import Answer

__all__ = ["Screen", "answer_json", "table"]

DIM = "\x1b[2m"
RED = "\x1b[31m"
PLAIN = "\x1b[0m"
ERASE = "\r\x1b[K"


class Screen:
    """Two streams and what is known about them.

    ``out`` takes answers; ``err`` takes status lines and errors, and may be the same stream.
    Methods may be called from any thread; each line is written whole.
    """

    def __init__(
        self,
        out: TextIO | None = None,
        err: TextIO | None = None,
        *,
        colour: bool | None = None,
        verbose: bool = False,
        raw: bool = False,
    ) -> None:
        """Standard streams unless told.

        Args:
            out: where answers go.
            err: where status lines and errors go.
            colour: whether status lines are dim and errors red; by default if ``err`` is a
                terminal and ``NO_COLOR`` is not set.
            verbose: print status lines even where ``err`` is no terminal.
            raw: leave the answer's text as it is; only honoured where ``out`` is no terminal.
        """
        self.out = sys.stdout if out is None else out
        self.err = sys.stderr if err is None else err
        self.out_is_terminal = self.out.isatty()
        self.err_is_terminal = self.err.isatty()
        self._colour = colour if colour is not None else self._wants_colour()
        self._shows_status = verbose or self.err_is_terminal or self.err is self.out
        self._filter = None if raw and not self.out_is_terminal else TerminalFilter()
        self._shared = self.err is self.out or (self.out_is_terminal and self.err_is_terminal)
        self._mid_line = False
        self._answer_begun = False
        self._progress_shown = False
        self._lock = threading.RLock()
        self.above: Callable[[str], None] | None = None
        """Set while a prompt is on screen: prints a line above it."""

    def _wants_colour(self) -> bool:
        """Whether stderr is a terminal that understands colour."""
        return (
            self.err_is_terminal
            and not os.environ.get("NO_COLOR")
            and os.environ.get("TERM") != "dumb"
        )

    def text(self, piece: str) -> None:
        """A piece of an answer, as it comes.

        Raises:
            BrokenPipeError: nobody reads the output any more.
        """
        with self._lock:
            self._erase_progress()
            self._answer_begun = True
            self._write_out(piece if self._filter is None else self._filter.push(piece))

    def end_answer(self) -> None:
        """Ends an answer: what the filter still holds, and a line break if one is missing."""
        with self._lock:
            self._erase_progress()
            self._answer_begun = False
            if self._filter is not None:
                self._write_out(self._filter.flush())
                self._filter = TerminalFilter()
            if self._mid_line:
                self._write_out("\n")

    def _write_out(self, text: str) -> None:
        """Writes to ``out`` at once and keeps track of the column."""
        if text:
            self.out.write(text)
            self.out.flush()
            self._mid_line = not text.endswith("\n")

    def line(self, text: str = "") -> None:
        """A whole line that a command was asked for; only known characters are printed."""
        self._whole_line(printable(text), self.out)

    def lines(self, texts: Iterable[str]) -> None:
        """Several of them."""
        for text in texts:
            self.line(text)

    def data(self, text: str) -> None:
        """A whole line on ``out`` for a program, as it is."""
        with self._lock:
            self._write_out(f"{text}\n")

    def progress(self, text: str) -> None:
        """A dim line that the next one replaces; until the answer's first piece, on a terminal."""
        with self._lock:
            if self._shared and self._colour and not self._answer_begun and not self._mid_line:
                self.out.write(f"{ERASE}{self._painted(DIM, f'· {_one_line(text)}')}")
                self.out.flush()
                self._progress_shown = True

    def _erase_progress(self) -> None:
        """Takes the line of `progress` off the terminal."""
        if self._progress_shown:
            self._progress_shown = False
            self.out.write(ERASE)
            self.out.flush()

    def status(self, text: str) -> None:
        """One dim line of progress or trouble, if anybody looks at stderr."""
        if self._shows_status:
            self._whole_line(self._painted(DIM, f"· {_one_line(text)}"), self.err)

    def error(self, error: GptNodeError) -> None:
        """One red line: what is wrong and what to do."""
        self._whole_line(self._painted(RED, f"! {_one_line(error.for_user())}"), self.err)

    def notice(self, text: str) -> None:
        """One red line that has no error behind it."""
        self._whole_line(self._painted(RED, f"! {_one_line(text)}"), self.err)

    def _painted(self, colour: str, text: str) -> str:
        """``text`` in a colour, where colours are wanted."""
        return f"{colour}{text}{PLAIN}" if self._colour else text

    def _whole_line(self, text: str, stream: TextIO) -> None:
        """Writes a line of its own, above the prompt or below a half-written answer."""
        above = self.above
        if above is not None:
            above(text)
            return
        with self._lock:
            self._erase_progress()
            if self._mid_line and (self._shared or stream is self.out):
                text = f"\n{text}"
                self._mid_line = False
            try:
                stream.write(f"{text}\n")
                stream.flush()
            except OSError:
                # Nobody reads stderr: no reason to stop an answer that somebody reads.
                if stream is self.out:
                    raise


def _one_line(text: str) -> str:
    """Printable characters of a foreign text, in one line."""
    return " ".join(printable(text).split())


def answer_json(answer: Answer) -> str:
    """An answer as one line of JSON; ids as numbers, the text with its escapes escaped."""
    return json.dumps(
        {
            "text": answer.text,
            "ids": list(answer.ids),
            "prompt_tokens": answer.prompt_tokens,
            "completion_tokens": answer.completion_tokens,
            "stop_reason": answer.stop_reason,
            "tokens_per_s": round(answer.tokens_per_s, 3),
        },
        ensure_ascii=True,
    )


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows in columns as wide as their widest cell, two spaces apart, no trailing spaces.

    A header without a word in it is left out.
    """
    named = [header] if any(header) else []
    cells = [[_one_line(cell) for cell in row] for row in (*named, *rows)]
    widths = [max(cell_len(row[column]) for row in cells) for column in range(len(header))]
    return [
        "  ".join(
            cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in cells
    ]
