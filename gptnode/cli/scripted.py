"""Chatting without a person: prompts come from an option or standard input, answers go to stdout.

Nothing but answers goes to stdout.
"""

from __future__ import annotations

import codecs
import os
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing

import trio

from gptnode.cli.render import Screen, answer_json
from gptnode.cli.session import ChatSession
from gptnode.errors import UsageError

__all__ = ["answer_all", "only", "stdin_lines", "whole_prompt"]

STDIN_CHUNK_BYTES = 65536


async def answer_all(
    session: ChatSession, screen: Screen, prompts: AsyncGenerator[str, None], *, as_json: bool
) -> None:
    """Answers each prompt in turn.

    Raises:
        GptNodeError: of the first prompt that fails; the others aren't asked.
        BrokenPipeError: nobody reads stdout any more.
    """
    async with aclosing(prompts):
        async for prompt in prompts:
            await _answer(session, screen, prompt, as_json=as_json)


async def _answer(session: ChatSession, screen: Screen, prompt: str, *, as_json: bool) -> None:
    """One answer: its text as it comes, or its JSON when it is complete."""
    if as_json:
        screen.data(answer_json(await session.ask(prompt, lambda piece: None)))
        return
    try:
        await session.ask(prompt, screen.text)
    finally:
        screen.end_answer()


async def whole_prompt(prompt: str | None) -> str:
    """The prompt that was given, or else all of standard input.

    Raises:
        UsageError: there is no text in it.
    """
    where = "--prompt is empty"
    if prompt is None:
        where = "standard input is empty"
        prompt = "".join([piece async for piece in _stdin()])
    if not prompt.strip():
        raise UsageError(f"{where}: there is nothing to ask")
    return prompt.strip()


async def only(prompt: str) -> AsyncGenerator[str, None]:
    """Just that one prompt."""
    yield prompt


async def stdin_lines() -> AsyncGenerator[str, None]:
    """The lines of standard input that have something in them, as they come."""
    rest = ""
    async with aclosing(_stdin()) as pieces:
        async for piece in pieces:
            *lines, rest = (rest + piece).split("\n")
            for line in lines:
                if line.strip():
                    yield line.strip()
    if rest.strip():
        yield rest.strip()


async def _stdin() -> AsyncGenerator[str, None]:
    """Text of standard input as it comes; what isn't UTF-8 becomes U+FFFD.

    Reads the descriptor and not `sys.stdin`: a thread that waits inside a buffered reader when
    the process ends takes the interpreter down.
    """
    if sys.stdin is None:
        return
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    descriptor = sys.stdin.fileno()
    while data := await trio.to_thread.run_sync(
        os.read,
        descriptor,
        STDIN_CHUNK_BYTES,
        abandon_on_cancel=True,  # type: ignore[call-arg, unused-ignore]  # trio-typing is old
    ):
        yield decoder.decode(data)
    yield decoder.decode(b"", final=True)
