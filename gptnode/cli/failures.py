"""From an exception to one line on stderr and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import click
from click.exceptions import NoArgsIsHelpError

from gptnode.errors import GptNodeError

__all__ = ["BROKEN_PIPE", "BUG", "INTERRUPTED", "report_failure"]

BUG = 70
"""EX_SOFTWARE of sysexits.h."""

INTERRUPTED = 130
"""What a shell reports for a process that SIGINT ended."""

BROKEN_PIPE = 141
"""The same for SIGPIPE."""


def report_failure(error: BaseException) -> int:
    """Say on stderr what went wrong, if there is anything to say; returns the exit code."""
    leaves = tuple(_leaves(error))
    if any(isinstance(leaf, (KeyboardInterrupt, click.Abort)) for leaf in leaves):
        return INTERRUPTED
    if any(isinstance(leaf, BrokenPipeError) for leaf in leaves):
        _silence_output()
        return BROKEN_PIPE
    bugs = [leaf for leaf in leaves if not isinstance(leaf, (GptNodeError, click.ClickException))]
    if bugs:
        _say(f"bug: {_summary(bugs[0])}. Please report it; --debug shows the traceback.")
        return BUG
    for leaf in leaves:
        if isinstance(leaf, GptNodeError):
            _say(f"error: {leaf.for_user()}")
        elif isinstance(leaf, click.ClickException):
            _say_click(leaf)
    first = leaves[0]
    return first.exit_code if isinstance(first, (GptNodeError, click.ClickException)) else BUG


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """The errors inside groups of groups."""
    if isinstance(error, BaseExceptionGroup):
        for child in error.exceptions:
            yield from _leaves(child)
    else:
        yield error


def _say_click(error: click.ClickException) -> None:
    """What click found wrong with the command line; help where nothing was asked for."""
    if isinstance(error, NoArgsIsHelpError):
        click.echo(error.format_message(), err=True)
        return
    message = error.format_message().rstrip(".")
    context = error.ctx if isinstance(error, click.UsageError) else None
    path = context.command_path if context is not None else "gptnode"
    _say(f"error: {message}. `{path} --help` shows what it takes.")


def _summary(error: BaseException) -> str:
    """Type and first line."""
    lines = str(error).strip().splitlines()
    return type(error).__name__ + (f": {lines[0].rstrip('.')}" if lines else "")


def _say(text: str) -> None:
    """One line on stderr (an error that has several keeps them), without control characters."""
    safe = "".join(char if char.isprintable() or char == "\n" else "\ufffd" for char in text)
    try:
        click.echo(f"gptnode: {safe}", err=True)
    except OSError:
        pass  # Nobody reads stderr; the exit code still tells.


def _silence_output() -> None:
    """Python would complain at exit, when it flushes what nobody reads: that goes nowhere now."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
    except OSError:
        pass
