"""Many chats at once over one swarm, each as if it were alone.

Every chat has prompts of its own, some answers are cancelled half-way. All transcripts are compared
with those of a chat that had the swarm to itself.
"""

from __future__ import annotations

import random
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from gptnode.errors import GptNodeError
from gptnode.model.sampler import Sampling
from gptnode.node.answer import Answering, AnswerSettings
from gptnode.node.client import Client
from gptnode.node.config import ClientConfig
from gptnode.node.runtime import open_client
from gptnode.text.conversation import Conversation
from proof.swarm import Swarm

__all__ = ["Chats", "answer_ids", "ask", "open_chat", "reference_answers", "soak_chats"]

THINGS = ("lighthouse", "river", "fox", "clock", "garden", "mountain", "letter", "bridge")
MAX_FAILURES = 100
EVERY_S = 60.0
SCRIPT_WAIT_S = 30.0  # as `gptnode chat` waits for a peer where nobody sits at the keyboard
OPENING = re.compile(r"\S+ serves blocks \S+(; \S+ serves blocks \S+)*")
WAYS = ("Tell me a story about a", "What is a", "Why is there a", "How do I find a")


@dataclass
class Chats:
    """What the chats did, and the status lines that they showed, by chat."""

    answers: int = 0
    cancelled: int = 0
    tokens: int = 0
    failures: list[str] = field(default_factory=list)
    lines: dict[str, list[str]] = field(default_factory=dict)

    def alarms(self) -> list[str]:
        """The lines that a chat doesn't show when all goes well: it tells its route, once."""
        return [
            f"{name}: {line}"
            for name, lines in self.lines.items()
            for number, line in enumerate(lines)
            if number > 0 or OPENING.fullmatch(line) is None
        ]


def prompts_of(chat: int, count: int) -> list[str]:
    """Prompts that no other chat asks."""
    return [
        f"{WAYS[n % len(WAYS)]} {THINGS[(chat + n) % len(THINGS)]} number {chat * count + n}?"
        for n in range(count)
    ]


@asynccontextmanager
async def open_chat(
    swarm: Swarm, name: str, report: Callable[[str], None] = lambda line: None
) -> AsyncIterator[Client]:
    """A client of the swarm in this process; ``report`` gets its status lines."""
    config = ClientConfig(
        map_path=swarm.map_path, identity_path=swarm.keys[name], threads=1, wait_s=SCRIPT_WAIT_S
    )
    async with open_client(config, report=report) as client:
        yield client


def ask(client: Client, prompt: str, max_tokens: int) -> Answering:
    """A greedy answer in an empty chat, to be iterated over."""
    ids = Conversation(client.tokenizer, client.template).ask(prompt)
    return client.answer(ids, AnswerSettings(Sampling(temperature=0.0), max_tokens))


async def answer_ids(
    client: Client, prompt: str, max_tokens: int, stop_after: int | None = None
) -> list[int]:
    """The ids of one answer; cancelled after ``stop_after`` tokens."""
    answering = ask(client, prompt, max_tokens)
    if stop_after is None:
        async for _ in answering:
            pass
        return list(answering.result().ids)
    with trio.CancelScope() as scope:
        async for _ in answering:
            if len(answering.result().ids) >= stop_after:
                scope.cancel()
    return list(answering.result().ids)


async def reference_answers(
    swarm: Swarm,
    name: str,
    chats: int,
    prompts: int,
    max_tokens: int,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, list[int]]:
    """All prompts, asked one after another by a chat that is alone."""
    asked = [prompt for chat in range(chats) for prompt in prompts_of(chat, prompts)]
    found: dict[str, list[int]] = {}
    said_s = trio.current_time()
    async with open_chat(swarm, name) as client:
        for prompt in asked:
            found[prompt] = await answer_ids(client, prompt, max_tokens)
            if trio.current_time() - said_s > EVERY_S:
                said_s = trio.current_time()
                say(f"{len(found)} of {len(asked)} answers of a chat alone")
    return found


async def soak_chats(
    swarm: Swarm,
    names: list[str],
    expected: dict[str, list[int]],
    *,
    prompts: int,
    max_tokens: int,
    cancelled: float,
    seed: int,
    over: Callable[[], bool],
    found: Chats,
) -> None:
    """One chat for each of ``names``, asking on and on until ``over``; ``found`` is kept current.

    Each asks once at least.
    """

    async def chat(number: int, name: str) -> None:
        rng = random.Random(f"{seed}/{number}")
        lines = found.lines.setdefault(name, [])
        async with open_chat(swarm, name, lines.append) as client:
            while len(found.failures) < MAX_FAILURES:
                prompt = rng.choice(prompts_of(number, prompts))
                due = expected[prompt]
                stops = rng.random() < cancelled and len(due) > 2
                stop_after = rng.randrange(1, len(due)) if stops else None
                found.answers += 1
                found.cancelled += stops
                try:
                    ids = await answer_ids(client, prompt, max_tokens, stop_after)
                except GptNodeError as error:
                    found.failures.append(f"{name}, {prompt!r}: {error.detail}")
                else:
                    found.tokens += len(ids)
                    if not ids or ids != (due[: len(ids)] if stops else due):
                        found.failures.append(f"{name}, {prompt!r}: {ids} and not {due}")
                if over():
                    return

    async with trio.open_nursery() as nursery:
        for number, name in enumerate(names):
            nursery.start_soon(chat, number, name)
