"""Many chats at once over one swarm, each as if it were alone.

Every chat has prompts of its own, some answers are cancelled half-way. All transcripts are compared
with those of a chat that had the swarm to itself.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from gptnode.errors import GptNodeError
from gptnode.model.sampler import Sampling
from gptnode.node.answer import AnswerSettings
from gptnode.node.client import Client
from gptnode.node.config import ClientConfig
from gptnode.node.runtime import open_client
from gptnode.text.conversation import Conversation
from proof.swarm import Swarm

__all__ = ["Chats", "reference_answers", "soak_chats"]

THINGS = ("lighthouse", "river", "fox", "clock", "garden", "mountain", "letter", "bridge")
WAYS = ("Tell me a story about a", "What is a", "Why is there a", "How do I find a")


@dataclass
class Chats:
    """What the chats did."""

    answers: int = 0
    cancelled: int = 0
    tokens: int = 0
    failures: list[str] = field(default_factory=list)


def prompts_of(chat: int, count: int) -> list[str]:
    """Prompts that no other chat asks."""
    return [
        f"{WAYS[n % len(WAYS)]} {THINGS[(chat + n) % len(THINGS)]} number {chat * count + n}?"
        for n in range(count)
    ]


@asynccontextmanager
async def _client(swarm: Swarm, name: str) -> AsyncIterator[Client]:
    config = ClientConfig(map_path=swarm.map_path, identity_path=swarm.keys[name], threads=1)
    async with open_client(config, report=lambda line: None) as client:
        yield client


async def _answer(
    client: Client, prompt: str, max_tokens: int, stop_after: int | None
) -> list[int]:
    """The ids of one answer in an empty chat; cancelled after ``stop_after`` tokens."""
    ids = Conversation(client.tokenizer, client.template).ask(prompt)
    answering = client.answer(ids, AnswerSettings(Sampling(temperature=0.0), max_tokens))
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
    swarm: Swarm, name: str, chats: int, prompts: int, max_tokens: int
) -> dict[str, list[int]]:
    """All prompts, asked one after another by a chat that is alone."""
    async with _client(swarm, name) as client:
        return {
            prompt: await _answer(client, prompt, max_tokens, None)
            for chat in range(chats)
            for prompt in prompts_of(chat, prompts)
        }


async def soak_chats(
    swarm: Swarm,
    names: list[str],
    expected: dict[str, list[int]],
    *,
    prompts: int,
    max_tokens: int,
    cancelled: float,
    seed: int,
    seconds: float,
) -> Chats:
    """One chat for each of ``names``, asking on and on for ``seconds``."""
    found = Chats()
    deadline = trio.current_time() + seconds

    async def chat(number: int, name: str) -> None:
        rng = random.Random(f"{seed}/{number}")
        async with _client(swarm, name) as client:
            while trio.current_time() < deadline and len(found.failures) < 100:
                prompt = rng.choice(prompts_of(number, prompts))
                due = expected[prompt]
                stops = rng.random() < cancelled and len(due) > 2
                stop_after = rng.randrange(1, len(due)) if stops else None
                try:
                    ids = await _answer(client, prompt, max_tokens, stop_after)
                except GptNodeError as error:
                    found.failures.append(f"{name}, {prompt!r}: {error.detail}")
                    continue
                found.tokens += len(ids)
                found.answers += 1
                found.cancelled += stops
                if ids != (due[: len(ids)] if stops else due) or not ids:
                    found.failures.append(f"{name}, {prompt!r}: {ids} and not {due}")

    async with trio.open_nursery() as nursery:
        for number, name in enumerate(names):
            nursery.start_soon(chat, number, name)
    return found
