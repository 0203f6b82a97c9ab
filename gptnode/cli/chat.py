"""`gptnode chat`: a chat in the terminal, or one answer for a script.

Three ways to use it: a person at a terminal; ``--prompt TEXT``; text on standard input, which is
one prompt as a whole, or one turn a line with ``--lines``. Without a person only answers go to
stdout. `run_chat` is also what `gptnode demo` calls once its servers run.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
import trio

from gptnode.cli.settings import ChatSettings
from gptnode.errors import GptNodeError, UsageError

if TYPE_CHECKING:
    from gptnode.cli.render import Screen
    from gptnode.cli.session import ChatSession
    from gptnode.node.answer import Answer
    from gptnode.node.config import ClientConfig

__all__ = ["ChatOptions", "chat_command", "run_chat"]

Show = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatOptions:
    """What the command line said about the chat itself; None leaves a setting to the model.

    ``settings`` of a model come from its ``generation_config.json`` (see
    `gptnode.cli.settings.model_defaults`). ``history`` None is the file below
    ``$XDG_STATE_HOME``.
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

    def settings_over(self, defaults: ChatSettings) -> ChatSettings:
        """``defaults`` with everything in its place that was asked for."""
        asked = {
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


async def run_chat(config: ClientConfig, options: ChatOptions) -> None:
    """Chats until the person, the prompt or the input ends.

    Interactive if there is no prompt and both stdin and stdout are terminals. *Errors*: without a
    person a `GptNodeError` passes through; in an interactive chat only those of the start do, the
    others become a line on the screen. Ctrl-C ends what is under way; where nothing can go on
    after that, `KeyboardInterrupt` is raised once everything is closed. Uses SIGINT, so it has to
    run in the main thread.
    """
    # Imported here: torch takes a second, and bad options should be told before.
    from gptnode.cli.keys import stop_on_signal
    from gptnode.cli.render import Screen
    from gptnode.cli.session import ChatSession
    from gptnode.node.nursery import background_nursery
    from gptnode.node.runtime import open_client

    interactive = options.prompt is None and sys.stdin.isatty() and sys.stdout.isatty()
    if interactive and (options.as_json or options.lines):
        raise UsageError("--json and --lines need --prompt or text on standard input")
    screen = Screen(
        err=sys.stdout if interactive else None, verbose=options.verbose, raw=options.raw
    )
    foreground = _Foreground()
    async with background_nursery() as nursery:
        await nursery.start(stop_on_signal, foreground.interrupt)
        with foreground.running():
            turns = None if interactive else _Turns(options)
            async with open_client(config, report=screen.status) as client:
                session = ChatSession(
                    client,
                    options.settings_over(model_defaults(client.model_dir)),
                    system=options.system,
                )
                if turns is None:
                    await _converse(session, screen, foreground, options)
                else:
                    await _answer_all(session, screen, turns, as_json=options.as_json)
