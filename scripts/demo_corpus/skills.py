"""Small skills: counting, copying, sums, opposites, days and letters.

Every function draws one `(question, answer)` pair.
"""

import random
import string
from collections.abc import Callable

from demo_corpus.grammar import expand, roughen
from demo_corpus.words import COLOURS, DAYS, MONTHS, NUMBER_WORDS, OPPOSITES, SOUNDS, WORDS

Pair = tuple[str, str]

HIGHEST = 30  # the largest number to count to
PLEASE = "(|||please |can you |could you |now |would you )"


def _number(value: int, rng: random.Random) -> str:
    """Write `value` in digits, or now and then as a word."""
    return NUMBER_WORDS[value] if value <= 20 and rng.random() < 0.25 else str(value)


def _question(pattern: str, rng: random.Random) -> str:
    return roughen(expand(pattern, rng), rng)


def count_up(rng: random.Random) -> Pair:
    """Count from one number to a higher one."""
    start = 1 if rng.random() < 0.3 else rng.randint(0, HIGHEST - 2)
    stop = rng.randint(start + 1, min(start + 14, HIGHEST))
    first, last = _number(start, rng), _number(stop, rng)
    between = (
        f"({PLEASE}count (up |)from {first} (up |)to {last}|start at {first} and count to {last}"
        f"|{PLEASE}(say|list|write|give me) (all |)(the |)numbers (from|between) {first} "
        f"(to|and) {last}|count {first} to {last}|go from {first} to {last})."
    )
    onward = f"({PLEASE}count (up |)to {last}|(say|list) the numbers up to {last})."
    pattern = onward if start == 1 and rng.random() < 0.6 else between
    return _question(pattern, rng), ", ".join(map(str, range(start, stop + 1))) + "."


def count_down(rng: random.Random) -> Pair:
    """Count backwards."""
    start = rng.randint(2, 20)
    stop = 0 if rng.random() < 0.2 else 1 if rng.random() < 0.6 else rng.randint(0, start - 1)
    first, last = _number(start, rng), _number(stop, rng)
    ending = "(|)" if stop == 1 and rng.random() < 0.6 else f" (down |)to {last}"
    how = "(count down|count backwards|count backward|do a countdown|countdown|count in reverse)"
    question = _question(f"{PLEASE}{how} from {first}{ending}.", rng)
    return question, ", ".join(map(str, range(start, stop - 1, -1))) + "."


def copy_words(rng: random.Random) -> Pair:
    """Repeat words that stand in the question."""
    words = " ".join(rng.choices(WORDS, k=rng.randint(1, 6)))
    if rng.random() < 0.2:
        words = " ".join(str(rng.randint(0, 99)) for _ in range(rng.randint(1, 5)))
    elif rng.random() < 0.2:
        words = "".join(rng.choices(string.ascii_lowercase, k=rng.randint(3, 6)))
    pattern = (
        "({please}(repeat|copy|echo|say)( after me| this| the following| these words|):"
        "|{please}(repeat|echo|copy|say) (after me|the words|this|what i "
        "say)|(repeat|say|echo|copy))"
    ).replace("{please}", PLEASE)
    question = expand(pattern, rng)
    return question[0].upper() + question[1:] + " " + words, words


def say_times(rng: random.Random) -> Pair:
    """Say one word several times."""
    word, times = rng.choice(WORDS), rng.randint(2, 5)
    often = rng.choice(
        (f"{_number(times, rng)} times", "twice" if times == 2 else f"{times} times")
    )
    question = _question(f"{PLEASE}(say|repeat|write|print) (the word |) {word} {often}.", rng)
    return question, " ".join([word] * times)


def add(rng: random.Random) -> Pair:
    """Sums up to 20."""
    total = rng.randint(2, 20)
    left = rng.randint(0, total)
    right = total - left
    question = _question(
        f"((what is|what's|how much is|calculate|add|compute|) {left} (plus|+|and) {right}?"
        f"|(what is|calculate) the sum of {left} and {right}?)", rng)  # fmt: skip
    return question, f"{left} plus {right} is {total}."


def subtract(rng: random.Random) -> Pair:
    """Differences of numbers up to 20."""
    left = rng.randint(1, 20)
    right = rng.randint(0, left)
    question = _question(
        f"((what is|what's|how much is|calculate|compute|) {left} (minus|-|take away) {right}?"
        f"|take {right} from {left}.)", rng)  # fmt: skip
    return question, f"{left} minus {right} is {left - right}."


def opposite(rng: random.Random) -> Pair:
    """The opposite of a word."""
    word, other = rng.sample(rng.choice(OPPOSITES), 2)
    question = _question(
        f"((what is|what's|tell me|name|give me|say|do you know|find) the "
        f"(opposite|contrary) (of|to) (the word |) {word}?"
        f"|(what is|what's) opposite to {word}?|opposite of {word}?"
        f"|(what|which word) is the reverse of {word}?)", rng)  # fmt: skip
    return question, f"The opposite of {word} is {other}."


def calendar(rng: random.Random) -> Pair:
    """Neighbours of a day or a month, and lists of both."""
    names, kind, span = rng.choice(((DAYS, "day", "week"), (MONTHS, "month", "year")))
    if rng.random() < 0.3:
        question = _question(
            f"((what are|list|name|tell me|say|give me|do you know|which are) (all |)(the |)"
            f"(seven |){kind}s of (the|a) {span}?|(which|what) {kind}s (does|has) a {span} (have|)?"
            f"|what are the {kind}s called?)".replace("(seven |)month", "month"), rng)  # fmt: skip
        return question, ", ".join(names) + "."
    index = rng.randrange(len(names))
    name = names[index]
    if rng.random() < 0.6:
        question = _question(
            f"(what|which) {kind} (comes|is|follows) (after|next after) {name}?", rng
        )
        return question, f"After {name} comes {names[(index + 1) % len(names)]}."
    question = _question(f"(what|which) {kind} (comes|is) (right |)before {name}?", rng)
    return question, f"Before {name} comes {names[index - 1]}."


def colour(rng: random.Random) -> Pair:
    """The colour of a thing."""
    thing, shade = rng.choice(list(COLOURS.items()))
    question = _question(
        f"((what|which) (colour|color) (is|has) {thing}( got|)?|(tell me|say|what is|what's) the "
        f"(colour|color) of {thing}.|how is {thing} coloured?)", rng)  # fmt: skip
    return question, f"{thing[0].upper()}{thing[1:]} is {shade}."


def sound(rng: random.Random) -> Pair:
    """What an animal says."""
    animal, noise = rng.choice(list(SOUNDS.items()))
    question = _question(
        f"((what|which) (sound|noise) does a {animal} make?|what does a {animal} say?|how does a "
        f"{animal} (go|sound)?|(make|do) (a sound like|the sound of) a {animal}.)", rng
    )  # fmt: skip
    return question, f"A {animal} says {noise}."


def alphabet(rng: random.Random) -> Pair:
    """Letters and their order."""
    letters = string.ascii_uppercase
    if rng.random() < 0.3:
        question = _question(
            "((say|recite|list|write|tell me|give me|what is|do you know) (the|the whole|the "
            "english) "
            "(alphabet|abc)|what are the letters of the alphabet|list (all |)the letters).",
            rng,
        )
        return question, " ".join(letters)
    index = rng.randrange(25)
    question = _question(
        f"((what|which) letter (comes|is|follows) after (the letter |) {letters[index]}?"
        f"|(what|which) is the (next letter|letter) after {letters[index]}?)", rng)  # fmt: skip
    return question, f"After {letters[index]} comes {letters[index + 1]}."


# Each skill, and how often it is drawn.
SKILLS: dict[Callable[[random.Random], Pair], int] = {
    count_up: 3, count_down: 2, copy_words: 4, say_times: 2, add: 2, subtract: 2,
    opposite: 1, calendar: 1, colour: 1, sound: 1, alphabet: 1,
}  # fmt: skip
