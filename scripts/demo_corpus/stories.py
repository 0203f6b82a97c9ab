"""Short stories from a plot, a hero, a friend, a place and a thing."""

import random

from demo_corpus.grammar import expand, roughen
from demo_corpus.words import NAMES

HEROES = (
    "cat", "dog", "robot", "fox", "dragon", "mouse", "bear", "rabbit", "owl", "whale",
    "princess", "knight", "pirate", "wizard", "girl", "boy", "turtle", "frog", "horse", "bee",
    "llama", "computer", "penguin", "elephant", "ghost", "bird",
)  # fmt: skip
PLACES = (
    "a forest", "a small village", "a castle", "an old lighthouse", "a big city",
    "a quiet valley", "a house by the sea", "a library", "a garden", "a cave", "a green hill",
)  # fmt: skip
THINGS = (
    "a silver key", "a lost letter", "a magic lamp", "an old map", "a red balloon",
    "a golden apple", "a tiny boat", "a warm blanket", "a shining star", "a broken clock",
    "a blue hat",
)  # fmt: skip
MOODS = ("brave", "curious", "shy", "clever", "lonely", "kind", "sleepy", "cheerful", "patient")
PLOTS = (
    "Once upon a time a {mood} {hero} named {name} lived in {place}. One day {name} found {thing} "
    "and "
    "wondered who had lost it. {name} asked everybody until {friend} the {other} cried: \"It is "
    "mine!\" "
    "{friend} was so happy that they became friends for ever.",
    "In {place} there lived a {mood} {hero} called {name}. Every night {name} dreamed of {thing}. "
    "So {name} went to look for it, over hills and rivers, together with {friend} the {other}. "
    "They "
    "found it at home, under the bed, and laughed all day.",
    "There was a {hero} named {name} who lived in {place}. {name} was {mood}, but had no friends. "
    "Then "
    "a storm came, and {friend} the {other} knocked at the door. {name} shared soup and {thing}, "
    "and "
    "from that day on nobody was alone.",
    "{name} the {hero} was {mood}. One morning {thing} was gone from {place}. {name} followed the "
    "tracks and met {friend} the {other}, who had only borrowed it. They brought it back together, "
    "and all was well.",
)  # fmt: skip
REQUESTS = (
    "{please}(tell|write|read|give|make up|invent) (me |us |)(a|another|one|a nice|a good) (short |"
    "little |bedtime |new |funny |)(story|tale|fairy tale)",
    "i (want|would like|'d like|need) (to hear |)(a|another|some) (short |little |bedtime |)story",
    "do you know (a|any|another) (story|good story|tale)",
    "{please}(a|one|another) (short |)story",
    "(let me|can i) hear a (story|tale)",
)
PLEASE = "(|||please |can you |could you |would you |now )"


def story(rng: random.Random, hero: str | None = None) -> str:
    """Write one story, about `hero` where one is named."""
    hero = hero or rng.choice(HEROES)
    name, friend = rng.sample(NAMES, 2)
    other = rng.choice([animal for animal in HEROES if animal != hero])
    return rng.choice(PLOTS).format(
        hero=hero, other=other, name=name, friend=friend, mood=rng.choice(MOODS),
        place=rng.choice(PLACES), thing=rng.choice(THINGS),
    )  # fmt: skip


def story_request(rng: random.Random) -> tuple[str, str]:
    """Draw a wish for a story and the story."""
    request = rng.choice(REQUESTS).replace("{please}", PLEASE)
    if rng.random() < 0.25:
        return roughen(expand(f"{request}.", rng), rng), story(rng)
    hero = rng.choice(HEROES)
    about = f" (about|with|of) (a|the|a little|one) {hero}."
    return roughen(expand(request + about, rng), rng), story(rng, hero)
