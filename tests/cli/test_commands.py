from __future__ import annotations

from collections.abc import Awaitable, Callable
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from gptnode.cli.commands import (
    COMMANDS,
    CommandLine,
    Outcome,
    PromptText,
    command_named,
    complete,
    parse_line,
    run_command,
)
from gptnode.cli.render import Screen
from gptnode.cli.session import ChatSession
from gptnode.errors import GptNodeError, MapError, PeerUnreachableError, UsageError
from gptnode.node.swarm import HopView, PeerView
from gptnode.node.verify import VerifyTally
from gptnode.span import Span

if TYPE_CHECKING:
    from conftest import ScriptedClient

Ask = Callable[..., Awaitable[str]]
Run = Callable[[str], Awaitable[str]]


@pytest.fixture
def run(session: ChatSession, screen: Screen, terminal: StringIO) -> Run:
    """Carries a line out and returns what it printed."""

    async def run_line(text: str) -> str:
        line = parse_line(text)
        assert isinstance(line, CommandLine)
        terminal.seek(0)
        terminal.truncate()
        await run_command(line, session, screen)
        return terminal.getvalue()

    return run_line


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("hello /world", PromptText("hello /world")),
        ("//etc is a folder", PromptText("/etc is a folder")),
        ("  /help  ", CommandLine("help", "")),
        ("/save  my chat.csv ", CommandLine("save", "my chat.csv")),
        ("/", CommandLine("", "")),
    ],
)
def test_a_line_is_a_prompt_or_a_command(text: str, line: object) -> None:
    assert parse_line(text) == line


def test_all_promised_commands_are_there() -> None:
    promised = "help exit peers connect clear save load map reload stats system set retry undo quit"
    for name in promised.split():
        assert command_named(name).usage.startswith("/")


@pytest.mark.parametrize(
    ("typed", "hint"),
    [("laod", "did you mean /load?"), ("qiut", "did you mean /quit?"), ("", "/help lists them")],
)
def test_an_unknown_command_is_answered_with_the_nearest(typed: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        command_named(typed)
    assert caught.value.detail == (
        f"no command is called /{typed}: {hint} (// starts a prompt with a slash)"
    )


@pytest.mark.parametrize(
    ("typed", "usage"),
    [
        ("/save", "/save <file>"),
        ("/connect QmX", "/connect <id> <multiaddr>"),
        ("/clear all", "/clear"),
    ],
)
async def test_wrong_arguments_are_answered_with_the_usage(
    run: Run, typed: str, usage: str
) -> None:
    with pytest.raises(UsageError) as caught:
        await run(typed)
    assert caught.value.detail == f"this command is typed {usage}"


async def test_help_names_every_command(run: Run) -> None:
    text = await run("/help")
    for command in COMMANDS:
        assert f"\n{command.usage} " in text
    assert await run("/help retry") == "/retry   asks the last question again\n"
    assert "temperature" in await run("/help /set")


async def test_exit_and_retry_are_for_the_chat_to_carry_out(
    session: ChatSession, screen: Screen
) -> None:
    assert await run_command(CommandLine("quit", ""), session, screen) is Outcome.EXIT
    assert await run_command(CommandLine("retry", ""), session, screen) is Outcome.ANSWER_AGAIN


async def test_save_clear_and_load(
    run: Run, session: ChatSession, ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    await ask("Hi", "Hello")
    ids = tuple(session.conversation.ids)
    path = tmp_path / "my chat.csv"
    assert await run("/save ~/my chat.csv") == f"· saved {len(ids)} tokens to {path}\n"
    assert await run("/clear") == "· the context is empty\n"
    assert await run('/load "~/my chat.csv"') == f"· loaded {len(ids)} tokens from {path}\n"
    assert tuple(session.conversation.ids) == ids


async def test_undo_says_what_is_left(run: Run, ask: Ask) -> None:
    await ask("Hi", "Hello")
    assert await run("/undo") == ("· took the last turn back; the context holds 0 of 1000 tokens\n")


async def test_system_text_is_shown_set_and_removed(run: Run) -> None:
    assert await run("/system") == "· there is no system text\n"
    assert await run("/system Be brief.") == "· system text: Be brief.\n"
    assert await run("/system") == "· system text: Be brief.\n"
    assert await run("/system none") == "· there is no system text\n"


async def test_set_shows_all_one_or_sets_one(run: Run, session: ChatSession) -> None:
    text = await run("/set")
    assert "\ntemperature         0.7 " in text
    assert await run("/set top-k") == "· top-k = 0\n"
    assert await run("/set top_k 40") == "· top-k = 40\n"
    assert session.settings.top_k == 40
    with pytest.raises(UsageError, match="top-k takes a whole number from 0, not 'many'"):
        await run("/set top-k many")
    assert session.settings.top_k == 40


async def test_the_map_is_a_picture_of_the_route(run: Run, client: ScriptedClient) -> None:
    client.hop_views = (
        HopView("anna", "QmA", Span(0, 4), "connected", 0.0004, ("ben",)),
        HopView("carl", "QmC", Span(4, 8), "down", None, ()),
    )
    assert await run("/map") == (
        "tiny: 8 blocks in 2 hops\n"
        "hop  peer  blocks            state        round trip  replicas\n"
        "1    anna  0-3     ████····  ● connected  0.4 ms      ben\n"
        "2    carl  4-7     ····████  ✗ down       -           -\n"
    )


async def test_peers_lists_the_swarm(run: Run, client: ScriptedClient) -> None:
    assert await run("/peers") == "no peers: all blocks run on this machine\n"
    client.peer_views = (
        PeerView("anna", "QmA", ("/ip4/10.0.0.1/tcp/4001",), (Span(0, 4),), "idle", None),
    )
    assert await run("/peers") == (
        "peer  blocks  state   round trip  id   addresses\n"
        "anna  0-3     ○ idle  -           QmA  /ip4/10.0.0.1/tcp/4001\n"
    )


async def test_stats_before_and_after_an_answer(run: Run, ask: Ask, session: ChatSession) -> None:
    assert await run("/stats") == (
        "context    0 of 1000 tokens (0 %)\n"
        "this chat  0 answers, 0 tokens at 0.0 tokens/s, 0.00 s of prefill\n"
    )
    await ask("Hi", "Hello")
    used = session.context_tokens
    assert session.last_answer is not None
    assert await run("/stats") == (
        f"context      {used} of 1000 tokens ({used / 10:.0f} %)\n"
        f"last answer  6 tokens at 8.3 tokens/s, after "
        f"{session.last_answer.prompt_tokens} tokens of prompt in 0.50 s; ended by the model\n"
        "this chat    1 answer, 6 tokens at 10.0 tokens/s, 0.50 s of prefill\n"
    )


@pytest.mark.parametrize(
    ("tally", "shown"),
    [
        (VerifyTally(1.0, 1), "1 step compared; no peers found wrong"),
        (
            VerifyTally(0.5, 20, 3, 1),
            "20 steps compared, 3 had nobody to compare with; 1 peer found wrong",
        ),
    ],
)
async def test_stats_tell_what_was_verified(
    run: Run, client: ScriptedClient, tally: VerifyTally, shown: str
) -> None:
    client.verified = tally
    assert (await run("/stats")).splitlines()[-1] == f"verified   {shown}"


async def test_connect_dials(run: Run, client: ScriptedClient) -> None:
    assert await run("/connect QmA /ip4/10.0.0.1/tcp/4001") == "· connected to QmA\n"
    assert client.calls == [("connect", "QmA", "/ip4/10.0.0.1/tcp/4001")]
    with pytest.raises(UsageError, match="is no multiaddr"):
        await run("/connect QmA 10.0.0.1:4001")
    client.failure = PeerUnreachableError("QmA does not answer")
    with pytest.raises(PeerUnreachableError):
        await run("/connect QmA /ip4/10.0.0.1/tcp/4001")


async def test_reload_shows_the_new_route_or_fails_and_says_nothing(
    run: Run, client: ScriptedClient, terminal: StringIO
) -> None:
    assert (await run("/reload")).startswith("· the new BlocksMap is in force\ntiny: 8 blocks")
    client.failure = MapError("routes: no")
    with pytest.raises(MapError):
        await run("/reload")
    assert terminal.getvalue() == ""


async def test_a_command_that_fails_is_a_gptnode_error(run: Run, tmp_path: Path) -> None:
    for line in (f"/load {tmp_path}/none.csv", f"/load {tmp_path}", "/save x", "/undo", "/nope"):
        with pytest.raises(GptNodeError):
            await run(line)


def completions(session: ChatSession, text: str) -> list[str]:
    found = []
    for candidate in complete(text, session):
        assert candidate.replaces <= len(text)
        found.append(text[: len(text) - candidate.replaces] + candidate.text)
    return found


def test_commands_and_settings_are_completed(session: ChatSession) -> None:
    assert completions(session, "/s") == ["/save", "/system", "/set", "/stats"]
    assert completions(session, "/set te") == ["/set temperature"]
    assert completions(session, "/set top-k ") == ["/set top-k 0", "/set top-k 40"]
    assert completions(session, "/help re") == ["/help retry", "/help reload"]


@pytest.mark.parametrize("text", ["", "hello", "//s", "/nope x", "/clear ", "/help\n/s"])
def test_a_prompt_is_not_completed(session: ChatSession, text: str) -> None:
    assert completions(session, text) == []


def test_paths_are_completed(
    session: ChatSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "chats").mkdir()
    (tmp_path / "chat one.csv").touch()
    (tmp_path / ".hidden").touch()
    (tmp_path / "other").touch()
    monkeypatch.setenv("HOME", str(tmp_path))
    expected = ["/load ~/chat one.csv", "/load ~/chats/"]
    assert completions(session, "/load ~/ch") == expected
    assert completions(session, "/load ~/.h") == ["/load ~/.hidden"]
    monkeypatch.chdir(tmp_path)
    assert completions(session, "/save o") == ["/save other"]
    assert completions(session, "/save no/such/") == []


def test_peers_are_completed_with_their_addresses(
    session: ChatSession, client: ScriptedClient
) -> None:
    peer = SimpleNamespace(label="anna", peer_id="QmA", addrs=("/ip4/1.2.3.4/tcp/1",))
    client.peer_views = (peer,)  # type: ignore[assignment]
    assert completions(session, "/connect Q") == ["/connect QmA"]
    assert completions(session, "/connect QmA ") == ["/connect QmA /ip4/1.2.3.4/tcp/1"]
