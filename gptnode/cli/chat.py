"""`gptnode chat`: a chat in the terminal, or one answer for a script.

Three ways to use it: a person at a terminal; ``--prompt TEXT``; text on standard input, which is
one prompt as a whole, or one turn a line with ``--lines``. `run_chat` is also what `gptnode demo`
calls once its servers run.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click
import trio

from gptnode.cli.chat_options import ChatOptions, chat_options
from gptnode.cli.client_options import client_config, model_options
from gptnode.cli.settings import model_defaults
from gptnode.demo.bundled import MODEL_NAME, bundled_model_folder
from gptnode.errors import UsageError

if TYPE_CHECKING:
    from gptnode.cli.render import Screen
    from gptnode.cli.session import ChatSession
    from gptnode.cli.signals import Interrupt
    from gptnode.node.config import ClientConfig

__all__ = ["ChatOptions", "chat_command", "chat_options", "run_chat"]


@click.command("chat")
@model_options
@chat_options
def chat_command(
    map_path: Path | None,
    identity_path: Path | None,
    model: str | None,
    model_dir: Path | None,
    context_tokens: int | None,
    template: str | None,
    device: str,
    threads: int | None,
    dtype: str | None,
    star: bool,
    activations: str | None,
    draft: Path | None,
    no_speculation: bool,
    **chat: Any,
) -> None:
    """Chat over a swarm, or on this machine alone.

    With --map over the peers of that swarm; with --model-dir alone all blocks run here; with
    neither, the small model that comes with gptnode does.

    At a terminal this is a conversation: /help there lists its commands. With --prompt, or with
    text on standard input, only the answer goes to standard output. Settings that aren't given
    are the model's own (generation_config.json), else temperature 0.7 and top-p 0.95.
    """
    # Imported here for the sake of `gptnode chat --help`.
    from gptnode.cli.signals import TERMINATED, until_terminated

    if map_path is None and model is not None and model_dir is None:
        raise UsageError("--model names a model of a BlocksMap: give its file with --map")
    if map_path is None and model_dir is None:
        model_dir, model = bundled_model_folder(), MODEL_NAME
    config = client_config(
        map_path=map_path,
        identity_path=identity_path,
        model=model,
        model_dir=model_dir,
        dtype=dtype,
        template=template,
        device=device,
        threads=threads,
        context_tokens=context_tokens,
        star=star,
        activations=activations,
        draft=draft,
        no_speculation=no_speculation,
    )
    options = ChatOptions(**chat)
    if trio.run(until_terminated, partial(run_chat, config, options)):
        sys.exit(TERMINATED)


async def run_chat(config: ClientConfig, options: ChatOptions) -> None:
    """Chats until the person, the prompt or the input ends.

    Interactive if there is no prompt and both stdin and stdout are terminals. *Errors*: without a
    person a `GptNodeError` passes through; in an interactive chat only those of the start do, the
    others become a line on the screen. Ctrl-C ends what is under way; where nothing can go on
    after that, `KeyboardInterrupt` is raised once everything is closed. Takes SIGINT over, so it
    has to run in the main thread.
    """
    # Imported here: torch takes a second, and wrong options should be told before.
    from gptnode.cli.render import Screen
    from gptnode.cli.signals import Interrupt, call_on_signals
    from gptnode.node.nursery import background_nursery

    interactive = options.prompt is None and _is_terminal(sys.stdin) and _is_terminal(sys.stdout)
    if interactive and (options.as_json or options.lines):
        raise UsageError("--json and --lines need --prompt or text on standard input")
    if options.prompt is not None and options.lines:
        raise UsageError("--lines is for standard input, not for --prompt")
    if options.verify and config.map_path is None:
        raise UsageError("--verify compares peers: name a BlocksMap with --map")
    config = replace(
        config, wait_s=options.patience_s(interactive=interactive), verify=options.verify
    )
    screen = Screen(
        err=sys.stdout if interactive else None, verbose=options.verbose, raw=options.raw
    )
    interrupt = Interrupt()
    with trio.CancelScope() as everything:
        async with background_nursery() as nursery:
            await nursery.start(call_on_signals, interrupt, signal.SIGINT)
            with interrupt.calls(everything.cancel):
                if interactive:
                    await _with_person(config, options, screen, interrupt)
                else:
                    await _without_person(config, options, screen)
    if everything.cancelled_caught:
        raise KeyboardInterrupt


async def _with_person(
    config: ClientConfig, options: ChatOptions, screen: Screen, interrupt: Interrupt
) -> None:
    """A chat in the terminal."""
    from prompt_toolkit.input import create_input

    from gptnode.cli.interactive import Conversing
    from gptnode.cli.prompt import ChatPrompt, history_path, open_history

    async with _open_session(config, options, screen) as session:
        keyboard = create_input()
        history = open_history(options.history or history_path(os.environ), screen.status)
        prompt = ChatPrompt(session, screen, history, keyboard)
        await Conversing(session, screen, prompt, keyboard, interrupt).run()


async def _without_person(config: ClientConfig, options: ChatOptions, screen: Screen) -> None:
    """Answers to --prompt or standard input."""
    from gptnode.cli.scripted import answer_all, only, stdin_lines, whole_prompt

    prompts = stdin_lines() if options.lines else only(await whole_prompt(options.prompt))
    async with _open_session(config, options, screen) as session:
        await answer_all(session, screen, prompts, as_json=options.as_json)


@asynccontextmanager
async def _open_session(
    config: ClientConfig, options: ChatOptions, screen: Screen
) -> AsyncIterator[ChatSession]:
    """A session over a client, with the settings that model and options ask for."""
    from gptnode.cli.session import ChatSession
    from gptnode.cli.traces import open_traces
    from gptnode.node.runtime import open_client

    with open_traces(options.traces) as meter:
        async with open_client(config, report=screen.status, meter=meter) as client:
            defaults = model_defaults(client.model_folder)
            yield ChatSession(client, options.settings_over(defaults), system=options.system)


def _is_terminal(stream: TextIO | None) -> bool:
    """Whether a standard stream is there and is a terminal."""
    return stream is not None and stream.isatty()
