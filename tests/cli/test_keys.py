from __future__ import annotations

import os
import pty
import signal
import termios
import tty
from collections.abc import Iterator

import pytest
import trio
import trio.testing
from prompt_toolkit.input import Input, PipeInput, create_pipe_input
from prompt_toolkit.input.typeahead import get_typeahead
from prompt_toolkit.input.vt100 import Vt100Input

from gptnode.cli.keys import stop_on_keys
from gptnode.cli.signals import Interrupt, call_on_signals


@pytest.fixture
def keyboard() -> Iterator[PipeInput]:
    with create_pipe_input() as pipe:
        yield pipe
        get_typeahead(pipe)


@pytest.mark.parametrize("key", [" ", "\x03"], ids=["space", "ctrl-c"])
async def test_space_and_ctrl_c_stop_an_answer(keyboard: PipeInput, key: str) -> None:
    stopped = trio.Event()
    async with stop_on_keys(keyboard, stopped.set):
        keyboard.send_text(key)
        await stopped.wait()
    assert get_typeahead(keyboard) == []


async def test_other_keys_wait_for_the_next_prompt(keyboard: PipeInput) -> None:
    stopped = trio.Event()
    async with stop_on_keys(keyboard, stopped.set):
        keyboard.send_text("hi\x1b[A\r ")
        await stopped.wait()
    assert [press.key for press in get_typeahead(keyboard)] == ["h", "i", "up", "c-m"]


async def test_an_answer_that_was_not_stopped_reads_no_key_afterwards(keyboard: PipeInput) -> None:
    calls: list[str] = []
    async with stop_on_keys(keyboard, lambda: calls.append("stop")):
        pass
    keyboard.send_text(" ")
    await trio.testing.wait_all_tasks_blocked()
    assert calls == []
    assert [press.key for press in keyboard.read_keys()] == [" "]


async def test_an_error_of_the_answer_comes_out_as_it_is(keyboard: PipeInput) -> None:
    with pytest.raises(LookupError, match="mine"):
        async with stop_on_keys(keyboard, lambda: None):
            raise LookupError("mine")


@pytest.mark.parametrize("ending", ["return", "error", "cancel"])
async def test_the_terminal_is_as_it_was_however_the_answer_ends(ending: str) -> None:
    ours, theirs = pty.openpty()
    with os.fdopen(theirs) as terminal, os.fdopen(ours):
        before = termios.tcgetattr(terminal)
        keyboard: Input = Vt100Input(terminal)
        with trio.CancelScope() as scope:
            try:
                async with stop_on_keys(keyboard, lambda: None):
                    assert not termios.tcgetattr(terminal)[tty.LFLAG] & termios.ECHO
                    if ending == "error":
                        raise LookupError
                    if ending == "cancel":
                        scope.cancel()
                        await trio.sleep_forever()
            except LookupError:
                pass
        assert termios.tcgetattr(terminal) == before


async def test_a_signal_calls_what_is_under_way_and_nothing_else(nursery: trio.Nursery) -> None:
    interrupt = Interrupt()
    await nursery.start(call_on_signals, interrupt, signal.SIGINT)
    outer, inner = trio.Event(), trio.Event()
    with interrupt.calls(outer.set):
        with interrupt.calls(inner.set):
            os.kill(os.getpid(), signal.SIGINT)
            await inner.wait()
        with interrupt.calls(None):
            os.kill(os.getpid(), signal.SIGINT)
            await trio.testing.wait_all_tasks_blocked(0.01)
        assert not outer.is_set()
        os.kill(os.getpid(), signal.SIGINT)
        await outer.wait()
