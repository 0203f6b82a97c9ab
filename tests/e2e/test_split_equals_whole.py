"""The bundled model over real processes gives token for token what it gives in one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gptnode.demo.swarm import LocalSwarm

from .conftest import BackgroundSwarm, gptnode, over

TURNS = (
    "What is a BlocksMap?",
    "Who serves block 7 of the swarm, and why? " * 60,
    "And what is a hop?",
)
"""The second is longer than what goes through the blocks at once (256 tokens)."""


def conversation(*argv: str) -> list[dict[str, Any]]:
    """The answers to all turns, greedy; the first words say whether over a map or not."""
    options = ["--lines", "--json", "--temperature", "0", "--max-tokens", "16"]
    done = gptnode(*argv, *options, stdin="\n".join(TURNS))
    assert done.code == 0, done.err
    return [json.loads(line) for line in done.out.splitlines()]


@pytest.fixture(scope="module")
def unsplit() -> list[dict[str, Any]]:
    """What the bundled model answers in one process."""
    answers = conversation("chat")
    assert len(answers) == len(TURNS)
    assert all(answer["ids"] for answer in answers)
    assert answers[1]["prompt_tokens"] > 256
    return answers


def assert_same(split: list[dict[str, Any]], unsplit: list[dict[str, Any]]) -> None:
    """All but the speed."""
    for ours, theirs in zip(split, unsplit, strict=True):
        assert {**ours, "tokens_per_s": None} == {**theirs, "tokens_per_s": None}


def test_two_servers_give_the_unsplit_answers(
    two_servers: LocalSwarm, unsplit: list[dict[str, Any]]
) -> None:
    assert_same(conversation(*over(two_servers)), unsplit)


@pytest.mark.parametrize("n_peers", [3, 8])
def test_more_servers_give_them_too(n_peers: int, unsplit: list[dict[str, Any]]) -> None:
    with BackgroundSwarm(n_peers) as swarm:
        assert_same(conversation(*over(swarm)), unsplit)


def test_a_seed_gives_the_same_answer_split_or_not(two_servers: LocalSwarm) -> None:
    sampled = [
        *("--prompt", "Tell a story.", "--seed", "7", "--temperature", "1.2"),
        *("--max-tokens", "12", "--json"),
    ]
    split = gptnode(*over(two_servers), *sampled).answer
    assert split["ids"] == gptnode("chat", *sampled).answer["ids"]
