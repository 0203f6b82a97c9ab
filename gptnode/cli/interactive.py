"""Chatting with a person: read a line, carry it out, show what came of it, and again.

An error becomes one line on the screen; the chat and its context stay. Ctrl-C ends what is under
way: an answer, a command, or the line that is being typed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio
from prompt_toolkit.input import Input

from gptnode.cli import views
from gptnode.cli.commands import CommandLine, Outcome, PromptText, parse_line, run_command
from gptnode.cli.keys import CTRL_C, stop_on_keys
from gptnode.cli.prompt import ChatPrompt, NoLine
from gptnode.cli.render import Screen
from gptnode.cli.session import ChatSession
from gptnode.cli.signals import Interrupt
from gptnode.errors import GptNodeError
from gptnode.node.answer import Answer
from gptnode.node.nursery import background_nursery

__all__ = ["Conversing"]

PATIENCE_S = 0.7
"""How long nothing is said while a prompt is being read."""

Ask = Callable[[Callable[[str], None]], Awaitable[Answer]]


class Conversing:
    """The loop of an interactive chat."""

    def __init__(
        self,
        session: ChatSession,
        screen: Screen,
        prompt: ChatPrompt,
        keyboard: Input,
        interrupt: Interrupt,
    ) -> None:
        """``keyboard`` is watched for Space and Ctrl-C; ``interrupt`` is what a SIGINT calls."""
        self._session = session
        self._screen = screen
        self._prompt = prompt
        self._keyboard = keyboard
        self._interrupt = interrupt

    async def run(self) -> None:
        """Chats until /exit, Ctrl-D, or Ctrl-C twice.

        The terminal is raw throughout: what is typed between two prompts is not echoed into the
        output, and waits for the next one.
        """
        self._screen.line(views.headline(self._session))
        self._screen.status("/help lists the commands, Space stops an answer, Ctrl-D ends the chat")
        interrupted = False
        with self._interrupt.calls(None), self._keyboard.raw_mode():
            while True:
                line = await self._prompt.read()
                if line is NoLine.END or (line is NoLine.INTERRUPTED and interrupted):
                    return
                interrupted = line is NoLine.INTERRUPTED
                if isinstance(line, NoLine):
                    self._screen.status("Ctrl-C again, or Ctrl-D, ends the chat")
                elif line and await self._carry_out(line) is Outcome.EXIT:
                    return

    async def _carry_out(self, text: str) -> Outcome:
        """One line, whatever it is."""
        line = parse_line(text)
        try:
            if isinstance(line, PromptText):
                await self._answer(lambda show: self._session.ask(line.text, show))
                return Outcome.GO_ON
            outcome = await self._command(line)
            if outcome is Outcome.ANSWER_AGAIN:
                await self._answer(self._session.retry)
        except GptNodeError as error:
            self._screen.error(error)
            return Outcome.GO_ON
        return outcome

    async def _command(self, line: CommandLine) -> Outcome:
        """A command; Ctrl-C leaves it."""
        with trio.CancelScope() as scope, self._interrupt.calls(scope.cancel):
            async with stop_on_keys(self._keyboard, scope.cancel, CTRL_C):
                outcome = await run_command(line, self._session, self._screen)
        if scope.cancelled_caught:
            self._screen.status("stopped")
            return Outcome.GO_ON
        return outcome

    async def _answer(self, ask: Ask) -> None:
        """Streams an answer until it ends or somebody stops it."""
        try:
            with self._interrupt.calls(self._session.stop):
                async with (
                    stop_on_keys(self._keyboard, self._session.stop),
                    background_nursery() as nursery,
                ):
                    nursery.start_soon(self._show_progress)
                    answer = await ask(self._screen.text)
        finally:
            self._screen.end_answer()
        note = _ending(answer)
        if note is not None:
            self._screen.status(note)
        self._screen.line()

    async def _show_progress(self) -> None:
        """Says how far the prompt has been read, until the first word of the answer comes."""
        while True:
            await trio.sleep(PATIENCE_S)
            self._screen.progress(views.progress(self._session))


def _ending(answer: Answer) -> str | None:
    """What to say about how an answer ended; nothing if it ended by itself."""
    if answer.stop_reason == "cancelled":
        return "stopped" if answer.ids else "stopped before the first word; /retry asks again"
    if answer.stop_reason == "length":
        return f"that were {views.tokens(answer.completion_tokens)}; /set max-tokens N for more"
    if answer.stop_reason == "context":
        return "the context is full: /undo takes turns back, /clear starts anew"
    return None
