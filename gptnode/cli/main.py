"""`gptnode`: the group of all commands, and the one place where errors become exit codes.

Commands are imported when they are run, so that `gptnode --help` waits for neither torch nor
libp2p. Nothing here knows what a command does.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

import click

from gptnode import __version__
from gptnode.cli.failures import report_failure

__all__ = ["cli", "main"]


@dataclass(frozen=True, slots=True)
class CommandSource:
    """Where a command is defined, and its line in the list of commands."""

    module: str
    attribute: str
    summary: str


COMMANDS = {
    "api": CommandSource(
        "gptnode.cli.api", "api_command", "Answer requests in the form of OpenAI's API."
    ),
    "batch": CommandSource(
        "gptnode.cli.batch", "batch_command", "Answer the requests of a file, many at once."
    ),
    "bench": CommandSource(
        "gptnode.cli.bench", "bench_command", "Measure how fast a model runs, and where time goes."
    ),
    "chat": CommandSource(
        "gptnode.cli.chat", "chat_command", "Chat over a swarm, or on this machine alone."
    ),
    "demo": CommandSource(
        "gptnode.cli.demo", "demo_command", "Start a swarm on this machine and chat over it."
    ),
    "fingerprint": CommandSource(
        "gptnode.cli.fingerprint", "fingerprint_command", "Print which files of a model these are."
    ),
    "id": CommandSource(
        "gptnode.cli.ident", "id_command", "Create or show this node's identity and addresses."
    ),
    "map": CommandSource("gptnode.cli.map", "map_group", "Write, check and show BlocksMap files."),
    "peers": CommandSource(
        "gptnode.cli.peers", "peers_group", "Show who uses the server on this machine; let them in."
    ),
    "quantize": CommandSource(
        "gptnode.cli.quantize", "quantize_command", "Write a model with 8-bit or 4-bit weights."
    ),
    "serve": CommandSource(
        "gptnode.cli.serve", "serve_command", "Serve the blocks that a BlocksMap gives this node."
    ),
    "top": CommandSource("gptnode.cli.top", "top_command", "Show the live swarm in the terminal."),
}


class Debugging:
    """Whether somebody asked for tracebacks; the object of the click context."""

    def __init__(self) -> None:
        """Nobody did yet."""
        self.wanted = False


def _note_debug(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    """Callback of --debug: it may stand before or after a subcommand, and once is enough."""
    if value:
        ctx.ensure_object(Debugging).wanted = True


def _debug_option() -> click.Option:
    """--debug as a parameter of one command."""
    return click.Option(
        ["--debug"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        envvar="GPTNODE_DEBUG",
        callback=_note_debug,
        help="Show the traceback of an error.",
    )


def _with_debug(command: click.Command) -> click.Command:
    """``command``, and all below it, with --debug."""
    if all(param.name != "debug" for param in command.params):
        command.params.append(_debug_option())
    if isinstance(command, click.Group):
        for child in command.commands.values():
            _with_debug(child)
    return command


class LazyGroup(click.Group):
    """A group whose commands are imported when somebody runs them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All commands by name."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command itself: this imports it."""
        source = COMMANDS.get(cmd_name)
        if source is None:
            return None
        command = getattr(importlib.import_module(source.module), source.attribute)
        return _with_debug(command)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands in --help, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name].summary) for name in sorted(COMMANDS)])


cli = LazyGroup(
    name="gptnode",
    help="Run one language model on several ordinary machines, block by block.",
    epilog="`gptnode demo` shows all of it on this machine, without any set-up.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    params=[_debug_option()],
)
click.version_option(__version__, prog_name="gptnode")(cli)


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command line (``sys.argv`` unless told) and exit.

    The exit code is 0, that of the `GptNodeError`, 2 for usage errors, 70 for bugs, 130 after
    Ctrl-C, 141 if nobody reads the output any more, 143 after SIGTERM.
    """
    _let_idle_threads_sleep()
    if "_GPTNODE_COMPLETE" in os.environ:  # a shell asks for completions
        cli.main(prog_name="gptnode")
    code = _run(sys.argv[1:] if argv is None else list(argv))
    if argv is None:
        _leave_at_once(code)
    sys.exit(code)


def _run(args: list[str]) -> int:
    """The exit code of a command line; errors are said."""
    # What libraries of ours log is for servers, whose command sets logs up. Without any handler
    # Python would print warnings into the middle of a chat.
    logging.getLogger("gptnode").addHandler(logging.NullHandler())
    debugging = Debugging()
    try:
        # Not through cli.main: it prints usage errors in four lines, and takes EOFError for Ctrl-C
        # and a broken pipe for exit code 1.
        with cli.make_context("gptnode", args, obj=debugging) as context:
            cli.invoke(context)
    except click.exceptions.Exit as ending:
        return ending.exit_code
    except SystemExit as ending:
        return ending.code if isinstance(ending.code, int) else int(ending.code is not None)
    except BaseException as error:
        if debugging.wanted:
            traceback.print_exc()
        return report_failure(error)
    return 0


def _let_idle_threads_sleep() -> None:
    """Threads of OpenMP that wait for work give their core away soon, unless the user says else.

    By default they spin for milliseconds after each product, and two nodes on one machine then
    take turns at keeping the other waiting. Some ten microseconds bridge the gaps within a
    step. The runtime looks when torch is imported.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # GNU's runtime
        os.environ.setdefault("KMP_BLOCKTIME", "1")  # LLVM's and Intel's, in milliseconds


def _leave_at_once(code: int) -> NoReturn:
    """Exit without taking the interpreter apart.

    With torch in it that costs half a second of a core, in every server of a demo too. Whatever
    has to be closed belongs to a block that has ended by now; only the output is left.
    """
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError as error:
        code = report_failure(error) if isinstance(error, BrokenPipeError) else 1
    os._exit(code)
