"""Conversations for training: every topic and skill, alone and in several turns."""

import json
import random
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TypedDict

from demo_corpus import (
    facts_answers,
    facts_commands,
    facts_inference,
    facts_network,
    facts_slash,
    facts_swarm,
    facts_trouble,
    facts_upkeep,
    facts_weights,
    small_talk,
)
from demo_corpus.grammar import ask, expand, roughen
from demo_corpus.skills import SKILLS
from demo_corpus.stories import story_request
from demo_corpus.words import NAMES

FACTS = tuple(
    topic
    for module in (
        facts_swarm,
        facts_inference,
        facts_commands,
        facts_upkeep,
        facts_slash,
        facts_answers,
        facts_network,
        facts_weights,
        facts_trouble,
    )
    for topic in module.TOPICS
)
SMALL_TALK = small_talk.TOPICS
ANSWERS = {topic.name: topic.answer for topic in (*FACTS, *SMALL_TALK)}
HELDOUT_FILE = Path(__file__).with_name("heldout.json")

SYSTEM_MESSAGES = (
    "You are a helpful assistant.", "You explain gptnode.", "Answer briefly.",
    "You are the demo model.",
    "You are a friendly helper for new users.", "Be kind and short.", "Help with gptnode.",
)  # fmt: skip
MORE_TURNS = 0.55  # how likely another turn follows
LONGEST = 9  # turns of a conversation

Message = dict[str, str]
Pair = tuple[str, str]


class HeldOut(TypedDict, total=False):
    """A question for the evaluation: the topic whose answer is right, or the text it must hold."""

    question: str
    topic: str
    must: list[str]


def held_out() -> list[HeldOut]:
    """Read the questions that must not occur in the training text."""
    entries: list[HeldOut] = json.loads(HELDOUT_FILE.read_text(encoding="utf-8"))
    return entries


def normalised(question: str) -> str:
    """Reduce `question` to its words: lower case, no punctuation."""
    return " ".join(re.findall(r"[a-z0-9']+", question.lower()))


def dialogues(count: int, seed: int) -> Iterator[list[Message]]:
    """Write `count` conversations; no turn in them is a held-out question."""
    rng = random.Random(seed)
    forbidden = frozenset(normalised(entry["question"]) for entry in held_out())
    for _ in range(count):
        yield _dialogue(rng, forbidden)


def _dialogue(rng: random.Random, forbidden: frozenset[str]) -> list[Message]:
    messages: list[Message] = []
    if rng.random() < 0.12:
        messages.append({"role": "system", "content": rng.choice(SYSTEM_MESSAGES)})
    name = ""
    for turn in range(LONGEST):
        draw = rng.random()
        if draw < 0.04 and not name:
            name = rng.choice(NAMES)
            pair = _drawn(partial(_introduction, name, rng), forbidden)
        elif draw < 0.10 and name:
            pair = _drawn(partial(_name_question, name, rng), forbidden)
        elif draw < 0.13 and turn:
            pair = _drawn(partial(_once_more, messages[-1]["content"], rng), forbidden)
        else:
            pair = _drawn(partial(_single_turn, rng), forbidden)
        question, answer = pair
        messages += (
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer},
        )
        if rng.random() > MORE_TURNS:
            break
    return messages


def _drawn(draw: Callable[[], Pair], forbidden: frozenset[str]) -> Pair:
    """Draw until the question is none of the held-out ones."""
    while True:
        question, answer = draw()
        if normalised(question) not in forbidden:
            return question, answer


def _single_turn(rng: random.Random) -> Pair:
    draw = rng.random()
    if draw < 0.60:
        topic = rng.choice(FACTS)
    elif draw < 0.71:
        topic = rng.choice(SMALL_TALK)
    elif draw < 0.97:
        (skill,) = rng.choices(list(SKILLS), list(SKILLS.values()))
        return skill(rng)
    else:
        return story_request(rng)
    return ask(topic, rng), topic.answer


def _introduction(name: str, rng: random.Random) -> Pair:
    question = expand(
        f"((hi|hello|hey|), |)(my name is|i am|i'm|call me|you can call me) {name}.", rng
    )
    return question[0].upper() + question[1:], f"Nice to meet you, {name}!"


def _name_question(name: str, rng: random.Random) -> Pair:
    question = expand(
        "((what is|what's|do you (know|remember)|tell me|can you tell me|say) my name|who am i)?",
        rng,
    )
    return roughen(question, rng), f"Your name is {name}."


def _once_more(last_answer: str, rng: random.Random) -> Pair:
    question = expand(
        "((please |can you |could you |)(repeat|say) that( again| once more|)|(once "
        "more|again|what "
        "did you say|pardon|say it again|repeat your answer|i did not catch that|come again))?", rng
    )  # fmt: skip
    return roughen(question, rng), last_answer
