from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from gptnode.cli.session import ChatSession
from gptnode.cli.settings import ChatSettings
from gptnode.errors import ContextError, GptNodeError, MapError, StreamLostError, UsageError
from gptnode.node.config import ClientConfig
from gptnode.node.runtime import open_client

if TYPE_CHECKING:
    from conftest import ScriptedClient

Ask = Callable[..., Awaitable[str]]

USER = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"


def text_of(session: ChatSession) -> str:
    return cast("ScriptedClient", session.client).text(session.conversation.ids)


def files_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def stopped_after(session: ChatSession, question: str) -> str:
    """Asks, and stops the answer as soon as it hangs."""
    shown: list[str] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(session.ask, question, shown.append)
        await trio.testing.wait_all_tasks_blocked()
        assert session.answering
        session.stop()
    return "".join(shown)


async def test_an_answer_is_shown_as_it_comes_and_kept(session: ChatSession, ask: Ask) -> None:
    assert await ask("Hi", "Hello", " there") == "Hello there"
    assert text_of(session).startswith(USER.format("Hi") + "Hello there<|im_end|>")
    assert session.last_answer is not None
    assert session.last_answer.stop_reason == "end"


async def test_the_next_prompt_goes_on_from_the_ids_of_the_last_one(
    session: ChatSession, client: ScriptedClient, ask: Ask
) -> None:
    await ask("one", "1")
    before = text_of(session)
    await ask("two", "2")
    assert client.prompts[1].startswith(before)
    assert client.prompts[1].endswith(USER.format("two"))


async def test_a_stopped_answer_stays_as_far_as_it_came(
    session: ChatSession, client: ScriptedClient, ask: Ask, hang: object
) -> None:
    client.scripts.append(["Once ", "upon", hang])
    assert await stopped_after(session, "Tell me") == "Once upon"
    assert not session.answering
    assert session.last_answer is not None
    assert session.last_answer.stop_reason == "cancelled"
    assert USER.format("Tell me") + "Once upon" in text_of(session)
    await ask("Go on", "a time")
    assert "Once upon<|im_end|>\n" + USER.format("Go on") in client.prompts[1]


async def test_a_question_stopped_before_its_first_word_is_taken_back_and_can_be_asked_again(
    session: ChatSession, client: ScriptedClient, ask: Ask, hang: object
) -> None:
    await ask("one", "1")
    before = session.conversation.ids
    client.scripts.append([hang])
    await stopped_after(session, "two")
    assert tuple(session.conversation.ids) == tuple(before)
    client.scripts.append(["2"])
    await session.retry(lambda piece: None)
    assert client.prompts[2].endswith(USER.format("two"))


async def test_an_answer_that_is_cancelled_from_outside_is_kept_too(
    session: ChatSession, client: ScriptedClient, hang: object, autojump_clock: MockClock
) -> None:
    client.scripts.append(["Once", hang])
    with trio.move_on_after(1) as scope:
        await session.ask("Tell me", lambda piece: None)
    assert scope.cancelled_caught
    assert USER.format("Tell me") + "Once" in text_of(session)


async def test_an_error_in_the_middle_keeps_what_was_shown(session: ChatSession, ask: Ask) -> None:
    with pytest.raises(StreamLostError):
        await ask("Tell me", "Once ", StreamLostError("anna went away"))
    assert USER.format("Tell me") + "Once " in text_of(session)


async def test_an_error_before_the_first_token_leaves_the_context_as_it_was(
    session: ChatSession, client: ScriptedClient, ask: Ask
) -> None:
    await ask("one", "1")
    before = tuple(session.conversation.ids)
    with pytest.raises(GptNodeError):
        await ask("two", StreamLostError("anna went away"))
    assert tuple(session.conversation.ids) == before
    client.scripts.append(["2"])
    await session.retry(lambda piece: None)
    assert client.prompts[-1].endswith(USER.format("two"))


async def test_a_screen_that_fails_does_not_lose_the_answer(
    session: ChatSession, client: ScriptedClient
) -> None:
    def broken(piece: str) -> None:
        raise BrokenPipeError

    client.scripts.append(["Once ", "upon"])
    with pytest.raises(BrokenPipeError):
        await session.ask("Tell me", broken)
    assert USER.format("Tell me") + "Once " in text_of(session)


async def test_retry_asks_the_last_question_in_place_of_its_answer(
    session: ChatSession, client: ScriptedClient, ask: Ask
) -> None:
    await ask("one", "1")
    await ask("two", "wrong")
    client.scripts.append(["2"])
    await session.retry(lambda piece: None)
    assert client.prompts[2] == client.prompts[1]
    assert "wrong" not in text_of(session)


async def test_retry_and_undo_without_a_turn_are_errors(session: ChatSession) -> None:
    with pytest.raises(GptNodeError):
        await session.retry(lambda piece: None)
    with pytest.raises(GptNodeError):
        session.undo()


async def test_undo_takes_one_turn_back(session: ChatSession, ask: Ask) -> None:
    await ask("one", "1")
    before = tuple(session.conversation.ids)
    await ask("two", "2")
    session.undo()
    assert tuple(session.conversation.ids) == before


async def test_clear_empties_context_totals_and_caches(
    session: ChatSession, client: ScriptedClient, ask: Ask
) -> None:
    await ask("one", "1")
    assert session.totals.answers == 1
    await session.clear()
    assert session.totals.answers == 0
    assert session.last_answer is None
    assert client.calls == [("forget",)]
    await ask("two", "2")
    assert client.prompts[1] == USER.format("two")


async def test_settings_and_the_models_stops_reach_the_client(
    session: ChatSession, client: ScriptedClient, ask: Ask
) -> None:
    session.set("temperature", "0.25")
    session.set("max-tokens", "7")
    session.set("stop", "END")
    with pytest.raises(UsageError):
        session.set("temperature", "hot")
    await ask("Hi", "Hello")
    (asked,) = client.asked
    assert asked.sampling.temperature == 0.25
    assert asked.max_tokens == 7
    assert asked.stop == ("<|im_end|>", "END")


async def test_the_system_text_stands_before_the_first_question(
    session: ChatSession, client: ScriptedClient, ask: Ask
) -> None:
    session.set_system("Be brief.")
    await ask("Hi", "Hello")
    assert client.prompts[0] == ("<|im_start|>system\nBe brief.<|im_end|>\n" + USER.format("Hi"))


async def test_a_saved_context_can_be_gone_on_from(
    session: ChatSession, client: ScriptedClient, ask: Ask, tmp_path: Path
) -> None:
    await ask("one", "1")
    ids = tuple(session.conversation.ids)
    assert session.save(tmp_path / "chat.csv") == len(ids)
    await session.clear()
    assert session.load(tmp_path / "chat.csv") == len(ids)
    assert tuple(session.conversation.ids) == ids
    await ask("two", "2")
    assert client.prompts[1].startswith(client.text(ids))


async def test_a_load_that_fails_keeps_the_chat(
    session: ChatSession, client: ScriptedClient, ask: Ask, tmp_path: Path
) -> None:
    await ask("one", "1")
    ids = tuple(session.conversation.ids)
    (tmp_path / "bad.csv").write_text("1,2,three\n")
    (tmp_path / "unknown.csv").write_text("1,2,999999\n")
    (tmp_path / "long.csv").write_text(",".join(["1"] * client.context_limit_tokens) + "\n")
    for name in ("bad.csv", "unknown.csv", "long.csv", "missing.csv"):
        with pytest.raises(GptNodeError):
            session.load(tmp_path / name)
        assert tuple(session.conversation.ids) == ids


async def test_a_save_that_fails_keeps_the_old_file(
    session: ChatSession, ask: Ask, tmp_path: Path
) -> None:
    target = tmp_path / "chat.csv"
    target.write_text("old")
    with pytest.raises(ContextError, match="nothing to save"):
        session.save(target)
    assert target.read_text() == "old"
    await ask("one", "1")
    with pytest.raises(ContextError):
        session.save(tmp_path / "no" / "such" / "folder.csv")
    assert files_in(tmp_path) == ["chat.csv"]


async def test_a_reload_that_fails_keeps_the_chat(
    session: ChatSession, client: ScriptedClient, ask: Ask
) -> None:
    await ask("one", "1")
    ids = tuple(session.conversation.ids)
    client.failure = MapError("routes[0]: no")
    with pytest.raises(MapError):
        await session.reload()
    assert tuple(session.conversation.ids) == ids


async def test_totals_add_up(session: ChatSession, ask: Ask) -> None:
    await ask("one", "1")
    await ask("two", "22")
    assert session.totals.answers == 2
    assert session.totals.completion_tokens == 2 + 3
    assert session.totals.prefill_s == 1.0
    assert session.totals.tokens_per_s == pytest.approx(10)


async def test_with_a_real_model_the_same_context_gives_the_same_answer(
    model_dir: Path, tmp_path: Path
) -> None:
    config = ClientConfig(model_dir=model_dir, threads=1)
    settings = ChatSettings(temperature=0, max_tokens=12)
    async with open_client(config, report=lambda line: None) as client:
        session = ChatSession(client, settings)
        await session.ask("one", lambda piece: None)
        session.save(tmp_path / "chat.csv")
        first = await session.ask("two", lambda piece: None)
        again = await session.retry(lambda piece: None)
        await session.clear()
        session.load(tmp_path / "chat.csv")
        loaded = await session.ask("two", lambda piece: None)
    assert first.ids == again.ids == loaded.ids
    assert len(first.ids) == 12 or first.stop_reason != "length"
