"""The options of a chat: what `gptnode chat` and `gptnode demo` both take, and what becomes of it.

The ranges of settings are those of `gptnode.cli.settings`. Nothing here chats.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import click

from gptnode.cli.settings import SETTINGS, ChatSettings, Setting, stop_text
from gptnode.cli.traces import traces_option

__all__ = ["SCRIPT_WAIT_S", "ChatOptions", "chat_options"]

SCRIPT_WAIT_S = 30.0
"""How long a chat without a person waits for peers: they may be restarted, and jobs should end."""

METAVARS = {
    "max-tokens": "N",
    "temperature": "T",
    "top-k": "K",
    "top-p": "P",
    "min-p": "P",
    "repetition-penalty": "R",
    "seed": "S",
}

Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatOptions:
    """What the command line said about the chat itself.

    A setting that is None (``stop``: empty) is the model's own, from its
    ``generation_config.json``: see `gptnode.cli.settings.model_defaults`. ``history`` None is the
    file below ``$XDG_STATE_HOME``. ``wait_s`` None is for ever with a person, and `SCRIPT_WAIT_S`
    without one. ``verify`` is a fraction of the peers' steps. ``traces``: see `gptnode.cli.traces`.
    """

    prompt: str | None = None
    system: str | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    as_json: bool = False
    lines: bool = False
    raw: bool = False
    verbose: bool = False
    history: Path | None = None
    wait_s: float | None = None
    verify: float = 0.0
    traces: str | None = None

    def patience_s(self, *, interactive: bool) -> float:
        """How long answers wait for a peer where some blocks have none."""
        if self.wait_s is not None:
            return self.wait_s
        return math.inf if interactive else SCRIPT_WAIT_S

    def settings_over(self, defaults: ChatSettings) -> ChatSettings:
        """``defaults``, with what was asked for in its place."""
        asked: dict[str, Any] = {
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "top_k": self.top_k,
            "top_p": self.top_p,
            "min_p": self.min_p,
            "repetition_penalty": self.repetition_penalty,
            "seed": self.seed,
            "stop": self.stop or None,
        }
        return replace(defaults, **{name: v for name, v in asked.items() if v is not None})


def _in_range(setting: Setting) -> Callable[[click.Context, click.Parameter, str | None], Any]:
    """A callback that reads the setting: what is right for ``/set`` is right here."""

    def read(ctx: click.Context, param: click.Parameter, text: str | None) -> Any:
        try:
            return None if text is None else setting.parse(text)
        except ValueError as error:
            raise click.BadParameter(f"{text!r} is not {error}", ctx, param) from None

    return read


def _stop_texts(
    ctx: click.Context, param: click.Parameter, values: tuple[str, ...]
) -> tuple[str, ...]:
    """The texts of --stop, with line breaks for what is typed as one."""
    if "" in values:
        raise click.BadParameter("an empty text would end every answer at once", ctx, param)
    return tuple(stop_text(value) for value in values)


def _fraction(ctx: click.Context, param: click.Parameter, value: float) -> float:
    """A number from 0 to 1. NaN is none, and would pass where a range is checked by its ends."""
    if not 0.0 <= value <= 1.0:
        raise click.BadParameter(f"{value:g} is not a number from 0 to 1", ctx, param)
    return value


def chat_options(command: Command) -> Command:
    """The options that become a `ChatOptions`, for `gptnode chat` and `gptnode demo`."""
    options = [
        click.option(
            "--prompt",
            metavar="TEXT",
            help="Print the answer to this and exit; without a terminal, standard input is the "
            "prompt.",
        ),
        click.option("--system", metavar="TEXT", help="The system text of the chat."),
        *(
            click.option(
                f"--{setting.name}",
                setting.field,
                callback=_in_range(setting),
                metavar=METAVARS[setting.name],
                help=f"{setting.help[0].upper()}{setting.help[1:]}.",
            )
            for setting in SETTINGS
            if setting.name != "stop"
        ),
        click.option(
            "--stop",
            multiple=True,
            metavar="TEXT",
            callback=_stop_texts,
            help="End answers at this text too; may be given several times.",
        ),
        click.option(
            "--json", "as_json", is_flag=True, help="Print answers as JSON, one line each."
        ),
        click.option("--lines", is_flag=True, help="Each line of standard input is a turn."),
        click.option(
            "--raw", is_flag=True, help="Leave escape sequences in answers, except on a terminal."
        ),
        click.option(
            "-v", "--verbose", is_flag=True, help="Progress on stderr even if it is no terminal."
        ),
        click.option(
            "--wait-s",
            type=click.FloatRange(min=0),
            metavar="S",
            help="Seconds to wait for a peer where some blocks have none.  [default: for ever on a "
            f"terminal, else {SCRIPT_WAIT_S:g}]",
        ),
        click.option(
            "--verify",
            type=float,
            default=0.0,
            callback=_fraction,
            metavar="FRACTION",
            help="Have this part of the peers' steps computed by a replica too, and use no peer "
            "any more that is wrong: 0.05 is one step of twenty, 1 is all.  [default: 0]",
        ),
        click.option(
            "--history",
            type=click.Path(path_type=Path),
            metavar="FILE",
            envvar="GPTNODE_HISTORY",
            show_envvar=True,
            help="Where what you type is kept.  [default: ~/.local/state/gptnode/history]",
        ),
        traces_option,
    ]
    for option in reversed(options):
        command = option(command)
    return command
