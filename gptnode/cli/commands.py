"""The slash commands of a chat: what each is called, what it does and how it is completed.

A line that starts with ``/`` is a command, one that starts with ``//`` a prompt that begins with
``/``. Commands act on a `ChatSession` and print to a `Screen`; they know no keyboard.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from gptnode.cli import views
from gptnode.cli.completion import Candidate, complete_path, complete_peer, complete_setting
from gptnode.cli.render import Screen, table
from gptnode.cli.session import ChatSession
from gptnode.cli.settings import NO_VALUE, SETTINGS, setting_named, shown
from gptnode.errors import UsageError

__all__ = [
    "COMMANDS",
    "Command",
    "CommandLine",
    "Outcome",
    "PromptText",
    "command_named",
    "complete",
    "parse_line",
    "run_command",
]


class Outcome(enum.Enum):
    """What the chat does after a command."""

    GO_ON = "go on"
    ANSWER_AGAIN = "answer again"
    EXIT = "exit"


@dataclass(frozen=True, slots=True)
class PromptText:
    """A line that is for the model."""

    text: str


@dataclass(frozen=True, slots=True)
class CommandLine:
    """A line that is for gptnode: ``/name argument``."""

    name: str
    argument: str


@dataclass(frozen=True, slots=True)
class Command:
    """One slash command. ``usage`` has its arguments, ``<...>`` for those that it needs."""

    name: str
    arguments: str
    help: str
    run: Callable[[ChatSession, Screen, str], Awaitable[Outcome]]
    complete: Callable[[ChatSession, str], Iterator[Candidate]] | None = None
    aliases: tuple[str, ...] = ()

    @property
    def usage(self) -> str:
        """The command as it is typed."""
        return f"/{self.name} {self.arguments}".rstrip()

    def check(self, argument: str) -> None:
        """UsageError if an argument is missing or there is none to give."""
        needed = self.arguments.count("<")
        if (argument and not self.arguments) or len(argument.split()) < needed:
            raise UsageError(f"this command is typed {self.usage}")


def parse_line(line: str) -> PromptText | CommandLine:
    """What a line of input is: ``/word`` a command, ``//...`` and all the rest a prompt."""
    stripped = line.strip()
    if stripped.startswith("//"):
        return PromptText(stripped[1:])
    if not stripped.startswith("/"):
        return PromptText(stripped)
    name, _, argument = stripped[1:].partition(" ")
    return CommandLine(name, argument.strip())


def command_named(name: str) -> Command:
    """The command with that name or alias; UsageError suggests the nearest one."""
    by_name = {alias: command for command in COMMANDS for alias in (command.name, *command.aliases)}
    found = by_name.get(name.lower())
    if found is not None:
        return found
    near = get_close_matches(name.lower(), by_name, n=1, cutoff=0.5)
    hint = f"did you mean /{near[0]}?" if near else "/help lists them"
    raise UsageError(f"no command is called /{name}: {hint} (// starts a prompt with a slash)")


async def run_command(line: CommandLine, session: ChatSession, screen: Screen) -> Outcome:
    """Carries a command out; a GptNodeError of it leaves the chat as it was."""
    command = command_named(line.name)
    command.check(line.argument)
    return await command.run(session, screen, line.argument)


def complete(before: str, session: ChatSession) -> Iterator[Candidate]:
    """What could stand where ``before``, the text left of the cursor, ends."""
    if not before.startswith("/") or before.startswith("//") or "\n" in before:
        return
    name, space, argument = before[1:].partition(" ")
    if not space:
        for command in COMMANDS:
            if command.name.startswith(name.lower()):
                yield Candidate(f"/{command.name}", len(before), command.help)
        return
    try:
        found = command_named(name)
    except UsageError:
        return
    if found.complete is not None:
        yield from found.complete(session, argument.lstrip())


# --- what the commands do -----------------------------------------------------------------------


async def _help(session: ChatSession, screen: Screen, argument: str) -> Outcome:
    if argument:
        command = command_named(argument.removeprefix("/"))
        screen.line(f"{command.usage}   {command.help}")
        if command.name == "set":
            screen.lines(table(("setting", "e.g.", ""), _setting_rows()))
        return Outcome.GO_ON
    screen.lines(table(("command", ""), [(command.usage, command.help) for command in COMMANDS]))
    screen.line()
    screen.line("Space or Ctrl-C stops an answer. Alt-Enter, or a \\ at the end, adds a line.")
    screen.line("Tab completes. A prompt that starts with / is typed with //.")
    return Outcome.GO_ON


async def _exit(session: ChatSession, screen: Screen, argument: str) -> Outcome:
    return Outcome.EXIT


async def _peers(session: ChatSession, screen: Screen, argument: str) -> Outcome:
    screen.lines(views.peers(session))
    return Outcome.GO_ON


async def _connect(session: ChatSession, screen: Screen, argument: str) -> Outcome:
    peer_id, addr, *rest = argument.split()
    if rest or not addr.startswith("/"):
        raise UsageError(
            f"{' '.join([addr, *rest])!r} is no multiaddr, such as /ip4/192.168.1.20/tcp/4001"
        )
    await session.connect(peer_id, addr)
    screen.status(f"connected to {peer_id}")
    return Outcome.GO_ON


async def _clear(session: ChatSession, screen: Screen, argument: str) -> Outcome:
    await session.clear()
    screen.status("the context is empty")
    return Outcome.GO_ON


async def _save(session: ChatSession, screen: Screen, argument: str) -> Outcome:
    path = _path(argument)
    screen.status(f"saved {views.tokens(session.save(path))} to {path}")
    return Outcome.GO_ON


async def _load(session: ChatSession, screen: Screen, argument: str) -> Outcome:
    path = _path(argument)
    screen.status(f"loaded {views.tokens(session.load(path))} from {path}")
    return Outcome.GO_ON


async def _map(session: ChatSession, screen: Screen, argument: str) -> Outcome:
    screen.lines(views.route(session))
    return Outcome.GO_ON


async def _reload(session: ChatSession, screen: Screen, argument: str) -> Outcome:
    await session.reload()
    screen.status("the new BlocksMap is in force")
    screen.lines(views.route(session))
    return Outcome.GO_ON


async def _stats(session: ChatSession, screen: Screen, argument: str) -> Outcome:
    screen.lines(views.stats(session))
    return Outcome.GO_ON


async def _system(session: ChatSession, screen: Screen, argument: str) -> Outcome:
    if argument:
        session.set_system("" if argument.lower() in NO_VALUE else argument)
    system = session.conversation.system
    screen.status(f"system text: {system}" if system else "there is no system text")
    return Outcome.GO_ON


async def _set(session: ChatSession, screen: Screen, argument: str) -> Outcome:
    name, _, value = argument.partition(" ")
    if not argument:
        rows = [(s.name, shown(session.settings, s), s.help) for s in SETTINGS]
        screen.lines(table(("setting", "value", ""), rows))
        return Outcome.GO_ON
    if value.strip():
        session.set(name, value.strip())
    setting = setting_named(name)
    screen.status(f"{setting.name} = {shown(session.settings, setting)}")
    return Outcome.GO_ON


async def _retry(session: ChatSession, screen: Screen, argument: str) -> Outcome:
    return Outcome.ANSWER_AGAIN


async def _undo(session: ChatSession, screen: Screen, argument: str) -> Outcome:
    session.undo()
    screen.status(f"took the last turn back; the context holds {views.context(session)}")
    return Outcome.GO_ON


def _path(argument: str) -> Path:
    """A path as people type it: with ``~``, perhaps in quotes."""
    for quote in "\"'":
        if len(argument) > 1 and argument[0] == argument[-1] == quote:
            argument = argument[1:-1]
    try:
        return Path(argument).expanduser()
    except RuntimeError:
        raise UsageError(f"there is no home directory for {argument}") from None


def _setting_rows() -> list[Sequence[str]]:
    """Name, example and help of every setting."""
    return [(setting.name, setting.example, setting.help) for setting in SETTINGS]


def _complete_command(session: ChatSession, typed: str) -> Iterator[Candidate]:
    """Names of commands, without the slash."""
    for command in COMMANDS:
        if command.name.startswith(typed.removeprefix("/")):
            yield Candidate(command.name, len(typed), command.help)


COMMANDS: tuple[Command, ...] = (
    Command("help", "[command]", "this list, or one command", _help, _complete_command),
    Command("exit", "", "ends the chat (also Ctrl-D)", _exit, aliases=("quit",)),
    Command("clear", "", "empties the context, here and on all peers", _clear),
    Command("retry", "", "asks the last question again", _retry),
    Command("undo", "", "takes back the last question and its answer", _undo),
    Command("save", "<file>", "writes the context to a file, as token ids", _save, complete_path),
    Command("load", "<file>", "goes on from a saved context", _load, complete_path),
    Command("system", "[text]", "shows or sets the system text (none: removes it)", _system),
    Command(
        "set", "[option [value]]", "shows or sets how answers are made", _set, complete_setting
    ),
    Command("stats", "", "context used, speed, totals", _stats),
    Command("map", "", "the route in use, block by block", _map),
    Command("peers", "", "who is in the swarm and how far away", _peers),
    Command("connect", "<id> <multiaddr>", "dials a peer at an address", _connect, complete_peer),
    Command("reload", "", "reads the BlocksMap again", _reload),
)
