"""A person at a keyboard that is a pipe and a terminal that is a string."""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from prompt_toolkit.history import InMemoryHistory
from prompt_toolkit.input import PipeInput, create_pipe_input
from prompt_toolkit.input.typeahead import get_typeahead
from prompt_toolkit.output import DummyOutput

from gptnode.cli.interactive import Conversing
from gptnode.cli.prompt import ChatPrompt, NoLine, history_path, open_history
from gptnode.cli.render import Screen
from gptnode.cli.session import ChatSession
from gptnode.cli.signals import Interrupt
from gptnode.errors import RouteError, StreamLostError

if TYPE_CHECKING:
    from conftest import ScriptedClient

HEAD = (
    "tiny on this machine\n"
    "· /help lists the commands, Space stops an answer, Ctrl-D ends the chat\n"
)
CTRL_C, CTRL_D, ALT_ENTER = "\x03", "\x04", "\x1b\r"


@pytest.fixture
def keyboard() -> Iterator[PipeInput]:
    with create_pipe_input() as pipe:
        yield pipe
        get_typeahead(pipe)


@pytest.fixture
def prompt(session: ChatSession, screen: Screen, keyboard: PipeInput) -> ChatPrompt:
    return ChatPrompt(session, screen, InMemoryHistory(), keyboard, DummyOutput())


@pytest.fixture
def interrupt() -> Interrupt:
    return Interrupt()


@pytest.fixture
def chat(
    session: ChatSession,
    screen: Screen,
    prompt: ChatPrompt,
    keyboard: PipeInput,
    interrupt: Interrupt,
    terminal: StringIO,
) -> Callable[[str], Awaitable[str]]:
    """Types, chats until the end, and returns what was printed below the headline."""

    async def type_and_chat(keys: str) -> str:
        keyboard.send_text(keys)
        with trio.fail_after(20):
            await Conversing(session, screen, prompt, keyboard, interrupt).run()
        assert terminal.getvalue().startswith(HEAD)
        return terminal.getvalue().removeprefix(HEAD)

    return type_and_chat


Chat = Callable[[str], Awaitable[str]]


async def until(condition: Callable[[], bool]) -> None:
    """Waits for what another thread, or a task behind another thread, brings about."""
    while not condition():  # noqa: ASYNC110
        await trio.sleep(0.001)


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ("hello\r", "hello"),
        ("  hello  \r", "hello"),
        (f"one{ALT_ENTER}two\r", "one\ntwo"),
        ("one\\\rtwo\r", "one\ntwo"),
        ("a\\b\r", "a\\b"),
        (CTRL_D, NoLine.END),
        (CTRL_C, NoLine.INTERRUPTED),
        (f"text{CTRL_C}", NoLine.INTERRUPTED),
    ],
)
async def test_what_is_typed_is_read(
    prompt: ChatPrompt, keyboard: PipeInput, keys: str, line: object
) -> None:
    keyboard.send_text(keys)
    with trio.fail_after(20):
        assert await prompt.read() == line


async def test_a_cancelled_prompt_leaves_the_editor(prompt: ChatPrompt) -> None:
    with trio.fail_after(20), trio.move_on_after(0.2) as scope:
        await prompt.read()
    assert scope.cancelled_caught


async def test_a_line_of_news_is_printed_while_a_prompt_is_open(
    prompt: ChatPrompt, screen: Screen, keyboard: PipeInput, terminal: StringIO
) -> None:
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(prompt.read)
            await until(lambda: screen.above is not None)
            screen.status("anna went away")
            await until(lambda: "anna" in terminal.getvalue())
            keyboard.send_text("\r")
    assert terminal.getvalue() == "· anna went away\n"
    assert screen.above is None


async def test_a_chat_from_hello_to_exit(chat: Chat, client: ScriptedClient) -> None:
    client.scripts = [["Hello", "!"]]
    assert await chat("Hi\r/exit\r") == "Hello!\n\n"


async def test_ctrl_d_ends_the_chat(chat: Chat) -> None:
    assert await chat(CTRL_D) == ""


async def test_ctrl_c_clears_the_line_and_twice_ends_the_chat(
    chat: Chat, client: ScriptedClient
) -> None:
    client.scripts = [["Hello"]]
    hint = "· Ctrl-C again, or Ctrl-D, ends the chat\n"
    assert await chat(f"nonsense{CTRL_C}Hi\r{CTRL_C}{CTRL_C}") == f"{hint}Hello\n\n{hint}"
    assert "nonsense" not in client.prompts[0]


async def test_an_empty_line_asks_nothing(chat: Chat, client: ScriptedClient) -> None:
    assert await chat(f"\r   \r{CTRL_D}") == ""
    assert client.prompts == []


async def test_an_error_is_a_line_and_the_chat_goes_on(chat: Chat, client: ScriptedClient) -> None:
    client.scripts = [["Hel", RouteError("no peer for blocks 4-7")], ["Hello"]]
    advice = RouteError("").advice
    assert await chat("Hi\r/retry\r/qqq\r/exit\r") == (
        f"Hel\n! no peer for blocks 4-7. {advice}\n"
        "Hello\n\n"
        "! no command is called /qqq: /help lists them (// starts a prompt with a slash). "
        "See --help, or /help in a chat.\n"
    )


async def test_a_question_that_failed_is_asked_again_by_retry(
    chat: Chat, client: ScriptedClient
) -> None:
    client.scripts = [[StreamLostError("anna went away")], ["Hello"]]
    shown = await chat("Hi\r/retry\r/exit\r")
    assert shown.endswith("\nHello\n\n")
    assert client.prompts[0] == client.prompts[1]


async def test_how_an_answer_ended_is_told_if_it_was_not_by_itself(
    chat: Chat, client: ScriptedClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.scripts = [["Hello"]]
    assert await chat("//etc?\r/exit\r") == "Hello\n\n"
    assert "\n/etc?<|im_end|>" in client.prompts[0]


@asynccontextmanager
async def running(conversing: Conversing) -> AsyncIterator[None]:
    """A chat in the background, which has to end by itself."""
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(conversing.run)
            yield


@pytest.mark.parametrize("how", ["space", "ctrl-c", "signal"])
async def test_an_answer_can_be_stopped_and_the_chat_goes_on(
    how: str,
    session: ChatSession,
    screen: Screen,
    prompt: ChatPrompt,
    keyboard: PipeInput,
    interrupt: Interrupt,
    terminal: StringIO,
    client: ScriptedClient,
    hang: object,
) -> None:
    client.scripts = [["Once ", "upon", hang], ["a time"]]
    keyboard.send_text("Tell me\r")
    async with running(Conversing(session, screen, prompt, keyboard, interrupt)):
        await until(lambda: terminal.getvalue().endswith("upon"))
        if how == "signal":
            interrupt()
        else:
            keyboard.send_text(" " if how == "space" else CTRL_C)
        await until(lambda: not session.answering)
        keyboard.send_text("Go on\r/exit\r")
    assert terminal.getvalue() == f"{HEAD}Once upon\n· stopped\n\na time\n\n"
    assert "Once upon<|im_end|>" in client.prompts[1]


async def test_what_is_typed_during_an_answer_is_in_the_next_line(
    session: ChatSession,
    screen: Screen,
    prompt: ChatPrompt,
    keyboard: PipeInput,
    interrupt: Interrupt,
    terminal: StringIO,
    client: ScriptedClient,
    hang: object,
) -> None:
    client.scripts = [["Once", hang]]
    keyboard.send_text("Tell me\r")
    async with running(Conversing(session, screen, prompt, keyboard, interrupt)):
        await until(lambda: terminal.getvalue().endswith("Once"))
        keyboard.send_text("/exit\r ")
    assert terminal.getvalue() == f"{HEAD}Once\n· stopped\n\n"


@pytest.mark.parametrize("how", ["ctrl-c", "signal"])
async def test_ctrl_c_leaves_a_command_that_takes_long(
    how: str,
    session: ChatSession,
    screen: Screen,
    prompt: ChatPrompt,
    keyboard: PipeInput,
    interrupt: Interrupt,
    terminal: StringIO,
    client: ScriptedClient,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dialling = trio.Event()

    async def dial_for_ever(*call: object) -> None:
        dialling.set()
        await trio.sleep_forever()

    monkeypatch.setattr(client, "connect", dial_for_ever)
    keyboard.send_text("/connect QmA /ip4/10.0.0.1/tcp/1\r")
    async with running(Conversing(session, screen, prompt, keyboard, interrupt)):
        await dialling.wait()
        if how == "signal":
            interrupt()
        else:
            keyboard.send_text(f" {CTRL_C}")
        await until(lambda: terminal.getvalue().endswith("stopped\n"))
        keyboard.send_text(f"\r{CTRL_D}")
    assert terminal.getvalue() == f"{HEAD}· stopped\n"


def test_the_history_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "state" / "gptnode" / "history"
    reports: list[str] = []
    history = open_history(path, reports.append)
    history.append_string("Hi")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(open_history(path, reports.append).load_history_strings()) == ["Hi"]
    path.chmod(0o644)
    open_history(path, reports.append)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert reports == []


def test_a_chat_without_a_history_file_goes_on(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    reports: list[str] = []
    open_history(tmp_path / "file" / "history", reports.append).append_string("Hi")
    assert len(reports) == 1
    assert reports[0].startswith("no history is kept: ")


def test_the_history_lives_in_the_state_folder() -> None:
    assert history_path({"XDG_STATE_HOME": "/s"}) == Path("/s/gptnode/history")
    home = Path.home() / ".local" / "state" / "gptnode" / "history"
    assert history_path({}) == home
    assert history_path({"XDG_STATE_HOME": "relative"}) == home
    assert os.fspath(home).startswith("/")
