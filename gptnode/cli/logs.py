"""Logs of a server: one structured line an event, on stderr.

Both the structlog events of gptnode and what libraries log the classic way take the same road, so
that a log has one form. Values can come from peers: control characters never reach a terminal.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, MutableMapping
from typing import Any, TextIO, TypeVar

import click
import structlog

__all__ = ["LEVELS", "log_options", "set_up_logs"]

Command = TypeVar("Command", bound=Callable[..., Any])

LEVELS = ("debug", "info", "warning", "error")


def log_options(command: Command) -> Command:
    """--log-level and --log-format, whose values `set_up_logs` takes."""
    level = click.option(
        "--log-level",
        type=click.Choice(LEVELS),
        default="info",
        show_default=True,
        envvar="GPTNODE_LOG_LEVEL",
        show_envvar=True,
        help="Log events of at least this level.",
    )
    form = click.option(
        "--log-format",
        type=click.Choice(["text", "json"]),
        default="text",
        show_default=True,
        envvar="GPTNODE_LOG_FORMAT",
        show_envvar=True,
        help="key=value pairs, or one JSON object a line.",
    )
    return level(form(command))


def set_up_logs(level: str, log_format: str, stream: TextIO | None = None) -> None:
    """Log events of at least ``level`` to ``stream`` (stderr) from now on.

    Args:
        level: one of `LEVELS`.
        log_format: ``text`` (key=value) or ``json`` (one object a line). Times are ISO 8601, UTC.
        stream: where to, if not to stderr.
    """
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr if stream is None else stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_renderers(log_format),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # py-libp2p warns about every failed dial and every stranger: gptnode.net logs those itself.
    libp2p = logging.getLogger("libp2p")
    libp2p.handlers[:] = [handler if level == "debug" else logging.NullHandler()]
    libp2p.propagate = False


def _renderers(log_format: str) -> list[structlog.typing.Processor]:
    """What turns an event into a line."""
    if log_format == "json":
        return [structlog.processors.JSONRenderer(default=str)]
    order = ["timestamp", "level", "logger", "event"]
    return [
        _printable_values,
        structlog.processors.LogfmtRenderer(key_order=order, bool_as_flag=False),
    ]


def _printable_values(
    logger: object, method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Line breaks stay, for tracebacks (the renderer escapes them); other controls don't."""
    for key, value in event.items():
        if not isinstance(value, (bool, int, float)) and value is not None:
            text = str(value)
            event[key] = "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text)
    return event
