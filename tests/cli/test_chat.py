"""`run_chat` without a person, in this process and over a real model."""

from __future__ import annotations

import io
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio
from click.testing import CliRunner, Result

from gptnode.cli.chat import ChatOptions, chat_command, run_chat
from gptnode.cli.chat_options import SCRIPT_WAIT_S
from gptnode.cli.settings import ChatSettings
from gptnode.errors import ContextError, ModelError, UsageError
from gptnode.node.config import ClientConfig

Capture = pytest.CaptureFixture[str]
Feed = Callable[[bytes], None]


@pytest.fixture
def config(model_dir: Path) -> ClientConfig:
    return ClientConfig(model_dir=model_dir, threads=1)


@pytest.fixture
def feed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Feed]:
    """Makes a pipe standard input, and writes into it; b"" closes it."""
    read_end, write_end = os.pipe()
    open_ends = [write_end]

    def write(data: bytes) -> None:
        os.write(write_end, data) if data else os.close(open_ends.pop())

    with os.fdopen(read_end) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        yield write
    for end in open_ends:
        os.close(end)


def options(**chosen: object) -> ChatOptions:
    return ChatOptions(**{"max_tokens": 6, **chosen})  # type: ignore[arg-type]


async def answer_of(config: ClientConfig, capfd: Capture, **chosen: object) -> dict[str, object]:
    await run_chat(config, options(as_json=True, **chosen))
    out = capfd.readouterr().out
    assert out.count("\n") == 1
    return dict(json.loads(out))


async def test_with_a_prompt_only_the_answer_goes_to_stdout(
    config: ClientConfig, capfd: Capture
) -> None:
    answer = await answer_of(config, capfd, prompt="Hi", raw=True)
    await run_chat(config, options(prompt="Hi", raw=True))
    captured = capfd.readouterr()
    assert captured.out.rstrip("\n") == str(answer["text"]).rstrip("\n")
    assert captured.err == ""


async def test_json_has_the_promised_keys(config: ClientConfig, capfd: Capture) -> None:
    answer = await answer_of(config, capfd, prompt="Hi")
    assert list(answer) == [
        "text",
        "ids",
        "prompt_tokens",
        "completion_tokens",
        "stop_reason",
        "tokens_per_s",
    ]
    assert answer["completion_tokens"] == len(answer["ids"]) == 6  # type: ignore[arg-type]
    assert answer["stop_reason"] == "length"


async def test_a_model_that_does_not_sample_answers_the_same_each_time(
    config: ClientConfig, capfd: Capture
) -> None:
    first = await answer_of(config, capfd, prompt="Hi")
    second = await answer_of(config, capfd, prompt="Hi")
    assert first["ids"] == second["ids"]


async def test_the_seed_decides_a_sampled_answer(config: ClientConfig, capfd: Capture) -> None:
    async def sampled(seed: int) -> object:
        return (await answer_of(config, capfd, prompt="Hi", temperature=3.0, seed=seed))["ids"]

    assert await sampled(1) == await sampled(1)
    assert await sampled(1) != await sampled(2)


async def test_all_of_standard_input_is_one_prompt(
    config: ClientConfig, capfd: Capture, feed: Feed
) -> None:
    feed(b"one\ntwo\n")
    feed(b"")
    piped = await answer_of(config, capfd)
    given = await answer_of(config, capfd, prompt="one\ntwo")
    assert piped["prompt_tokens"] == given["prompt_tokens"]
    assert piped["ids"] == given["ids"]


async def test_each_line_is_a_turn_if_asked(
    config: ClientConfig, capfd: Capture, feed: Feed
) -> None:
    feed("one\n\n  \ntwö".encode())
    feed(b"")
    await run_chat(config, options(as_json=True, lines=True))
    answers = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert len(answers) == 2
    assert answers[1]["prompt_tokens"] > answers[0]["prompt_tokens"] + 6


async def test_a_line_is_answered_before_the_next_one_comes(
    config: ClientConfig, capfd: Capture, feed: Feed
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_chat, config, options(lines=True, as_json=True))
        for line in (b"one\n", b"two\n"):
            feed(line)
            out = ""
            while "\n" not in out:
                await trio.sleep(0.005)
                out += capfd.readouterr().out
        feed(b"")


@pytest.mark.parametrize("data", [b"", b" \n\n"])
async def test_nothing_to_ask_is_an_error(config: ClientConfig, feed: Feed, data: bytes) -> None:
    if data:
        feed(data)
    feed(b"")
    with pytest.raises(UsageError, match="standard input is empty"):
        await run_chat(config, options())
    with pytest.raises(UsageError, match="--prompt is empty"):
        await run_chat(config, options(prompt=" "))


async def test_an_error_comes_out_as_itself(config: ClientConfig, tmp_path: Path) -> None:
    with pytest.raises(ContextError):
        await run_chat(config, options(prompt="long " * 2000))
    with pytest.raises(ModelError):
        await run_chat(ClientConfig(model_dir=tmp_path / "none"), options(prompt="Hi"))


async def test_a_reader_who_leaves_is_a_broken_pipe_and_no_group(
    config: ClientConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    stdout = os.fdopen(write_end, "w")
    monkeypatch.setattr(sys, "stdout", stdout)
    with pytest.raises(BrokenPipeError):
        await run_chat(config, options(prompt="Hi", max_tokens=300))
    with pytest.raises(BrokenPipeError):
        stdout.close()


async def test_sigint_ends_it_with_keyboard_interrupt(config: ClientConfig, feed: Feed) -> None:
    async def interrupt() -> None:
        await trio.sleep(0.2)
        os.kill(os.getpid(), signal.SIGINT)

    feed(b"never ending")
    with pytest.raises(KeyboardInterrupt):
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(interrupt)
                await run_chat(config, options())
        except BaseExceptionGroup as group:
            (error,) = group.exceptions
            raise error from None


class TerminalInput(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("chosen", [{"as_json": True}, {"lines": True}])
async def test_a_person_gets_no_json(
    config: ClientConfig, monkeypatch: pytest.MonkeyPatch, chosen: dict[str, bool]
) -> None:
    monkeypatch.setattr(sys, "stdin", TerminalInput())
    monkeypatch.setattr(sys, "stdout", TerminalInput())
    with pytest.raises(UsageError, match="--json and --lines need --prompt"):
        await run_chat(config, options(**chosen))


def test_options_that_are_not_given_are_the_models() -> None:
    models = ChatSettings(temperature=0.6, top_k=50)
    assert ChatOptions().settings_over(models) == models
    chosen = ChatOptions(temperature=0.0, stop=("END",)).settings_over(models)
    assert chosen == ChatSettings(temperature=0.0, top_k=50, stop=("END",))


def invoke(*args: str) -> Result:
    return CliRunner().invoke(chat_command, args)


@pytest.mark.parametrize(
    ("args", "wanted"),
    [
        (("--temperature", "-1"), "'-1' is not a number from 0 to 10"),
        (("--temperature", "nan"), "'nan' is not a number from 0 to 10"),
        (("--top-k", "x"), "'x' is not a whole number from 0"),
        (("--top-p", "0"), "'0' is not a number above 0 up to 1"),
        (("--max-tokens", "0"), "'0' is not a whole number from 1"),
        (("--stop", ""), "an empty text would end every answer at once"),
        (("--verify", "1.5"), "1.5 is not a number from 0 to 1"),
        (("--verify", "-0.1"), "-0.1 is not a number from 0 to 1"),
        (("--verify", "nan"), "nan is not a number from 0 to 1"),
    ],
)
def test_a_value_out_of_range_is_told_with_the_range(args: tuple[str, ...], wanted: str) -> None:
    result = invoke("--prompt", "Hi", *args)
    assert result.exit_code == 2
    assert wanted in " ".join(result.output.split())


async def test_peers_are_verified_where_there_are_peers(config: ClientConfig) -> None:
    with pytest.raises(UsageError, match="name a BlocksMap with --map"):
        await run_chat(config, options(prompt="Hi", verify=0.5))


def test_a_model_is_named_with_a_map() -> None:
    result = invoke("--model", "llama", "--prompt", "Hi")
    assert isinstance(result.exception, UsageError)


def test_help_waits_for_neither_torch_nor_libp2p() -> None:
    code = (
        "import sys, gptnode.cli.chat; "
        "sys.exit(any(name in sys.modules for name in ('torch', 'libp2p', 'prompt_toolkit')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("wait_s", "interactive", "patience_s"),
    [(None, True, math.inf), (None, False, SCRIPT_WAIT_S), (0.0, True, 0.0), (2.5, False, 2.5)],
)
def test_a_person_waits_for_ever_and_a_script_does_not_unless_told(
    wait_s: float | None, interactive: bool, patience_s: float
) -> None:
    assert options(wait_s=wait_s).patience_s(interactive=interactive) == patience_s
