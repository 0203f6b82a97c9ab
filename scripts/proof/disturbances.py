"""Servers killed and frozen in the middle of answers; the answers must not show it.

Each round asks one question, disturbs the swarm when a random number of characters was seen, and
compares the transcript with that of an undisturbed swarm. Afterwards all servers are as before.
"""

from __future__ import annotations

import random
import signal
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from proof.chatting import Chat, Transcript
from proof.report import Row
from proof.swarm import Server, Swarm

__all__ = [
    "FOUND_WITHIN_S",
    "PROMPTS",
    "REBUILD_S",
    "Round",
    "freeze_one",
    "kill_one",
    "kill_two",
    "note_gaps",
    "tell_progress",
]

PROMPTS = (
    "Tell me a story about a lighthouse.",
    "Tell me a long story about a fox and a river.",
    "What is a BlocksMap?",
    "How do I reroute around a failed peer?",
)
NO_ROUTE_CODES = (7, 9)
FOUND_WITHIN_S = 3.0
REBUILD_S = 2.0  # what a busy machine may need for a new session and the prefill
AGAIN_AFTER_S = (0.2, 3.0)


@dataclass(frozen=True)
class Round:
    """The undisturbed answers, and how to ask."""

    swarm: Swarm
    answers: dict[str, str]
    max_tokens: int
    rng: random.Random
    say: Callable[[str], None]

    @classmethod
    def prepare(
        cls,
        swarm: Swarm,
        prompts: Sequence[str],
        max_tokens: int,
        rng: random.Random,
        say: Callable[[str], None],
    ) -> Round:
        """Ask each prompt with nothing going on, the first one twice: the answers have to agree."""
        answers: dict[str, str] = {}
        for prompt in (*prompts, prompts[0]):
            chat = Chat(swarm, "client", max_tokens)
            try:
                heard = chat.ask(prompt)
            finally:
                chat.stop()
            if heard.code != 0 or not heard.text.strip():
                raise RuntimeError(f"undisturbed, {prompt!r} gave {heard}")
            if answers.setdefault(prompt, heard.text) != heard.text:
                raise RuntimeError(f"undisturbed, {prompt!r} gave two answers")
            say(f"{prompt!r}: {len(heard.text)} characters")
        return cls(swarm, answers, max_tokens, rng, say)

    def moment(self, prompt: str) -> int:
        """After how many characters to disturb: while the answer streams, not at its very end."""
        return self.rng.randint(1, max(1, int(0.95 * len(self.answers[prompt]))))

    def in_use(self, servers: Sequence[Server]) -> bool:
        """Whether a new chat goes over one of ``servers``: it takes the first replica of each."""
        first: dict[str, Server] = {}
        for server in self.swarm.servers.values():
            first.setdefault(server.blocks, server)
        return any(server in first.values() for server in servers)

    def ask_disturbed(
        self, chat: Chat, prompt: str, disturb: Callable[[], None]
    ) -> tuple[Transcript, float]:
        """Ask, and call ``disturb`` once at a random character; and when that was."""
        moment = self.moment(prompt)
        delay_s = self.rng.uniform(0, 0.05)
        done_s = 0.0

        def during(n_chars: int) -> None:
            nonlocal done_s
            if not done_s and n_chars >= moment:
                time.sleep(delay_s)
                disturb()
                done_s = time.monotonic()

        return chat.ask(prompt, during=during), done_s

    def judge(self, row: Row, number: int, prompt: str, heard: Transcript, what: str) -> bool:
        """Note a transcript that differs; whether it is right."""
        expected = self.answers[prompt]
        if heard.code == 0 and heard.text == expected:
            return True
        place = next(
            (n for n, (a, b) in enumerate(zip(heard.text, expected, strict=False)) if a != b),
            min(len(heard.text), len(expected)),
        )
        row.failures.append(
            f"round {number}, {what}, {prompt!r}: exit code {heard.code}, "
            f"{len(heard.text)} of {len(expected)} characters, the same up to {place}; "
            f"{heard.said.strip()[-300:]}"
        )
        return False


def kill_one(round_: Round, count: int) -> Row:
    """kill -9 of a random server at a random moment of an answer."""
    row = Row("kill -9 of a server in an answer", 0)
    gaps_s: list[float] = []
    noticed = identical = 0
    servers = list(round_.swarm.servers.values())
    chat = Chat(round_.swarm, "client", round_.max_tokens)
    try:
        for number in range(count):
            victim = round_.rng.choice(servers)
            prompt = round_.rng.choice(sorted(round_.answers))
            heard, at_s = round_.ask_disturbed(chat, prompt, victim.kill)
            row.count += 1
            row.require(not victim.alive, f"round {number}: the answer ended before the kill")
            identical += round_.judge(row, number, prompt, heard, f"{victim.name} killed")
            if round_.in_use([victim]):
                noticed += 1
                gaps_s.append(heard.longest_gap_s(at_s))
            chat.stop()
            if not victim.alive:
                victim.start()
            chat = Chat(round_.swarm, "client", round_.max_tokens)
            victim.wait_ready()
            tell_progress(round_, number, count, identical)
    finally:
        chat.stop()
    note_gaps(row, identical, noticed, gaps_s)
    return row


def kill_two(round_: Round, count: int) -> Row:
    """Two servers at once. Where no replica is left: a clear message or a wait, then the same."""
    row = Row("two servers killed at once", 0)
    gaps_s: list[float] = []
    noticed = identical = without_route = resumed = 0
    servers = list(round_.swarm.servers.values())
    chat = Chat(round_.swarm, "client", round_.max_tokens)
    try:
        for number in range(count):
            victims = round_.rng.sample(servers, 2)
            prompt = round_.rng.choice(sorted(round_.answers))
            names = " and ".join(victim.name for victim in victims)
            hopeless = victims[0].blocks == victims[1].blocks
            back_s = round_.rng.uniform(*AGAIN_AFTER_S)
            revival = _Revival(victims[0], back_s if hopeless else None)
            heard, at_s = _ask_with_revival(round_, chat, prompt, victims, revival)
            row.count += 1
            chat.stop()
            revival.finish()
            if hopeless and heard.code in NO_ROUTE_CODES:
                without_route += 1
                _judge_no_route(round_, row, number, prompt, heard, victims)
                chat = Chat(round_.swarm, "client", round_.max_tokens)
                heard = chat.ask(prompt)
                chat.stop()
            elif hopeless:
                resumed += 1
            identical += round_.judge(row, number, prompt, heard, f"{names} killed")
            if round_.in_use(victims) and not hopeless:
                noticed += 1
                gaps_s.append(heard.longest_gap_s(at_s))
            for victim in victims:
                if not victim.alive:
                    victim.start()
                    victim.wait_ready()
            chat = Chat(round_.swarm, "client", round_.max_tokens)
            tell_progress(round_, number, count, identical)
    finally:
        chat.stop()
    row.facts["ended with the message"] = without_route
    row.facts["waited and went on"] = resumed
    note_gaps(row, identical, noticed, gaps_s)
    return row


def freeze_one(round_: Round, count: int) -> Row:
    """SIGSTOP of a random server in an answer; it goes on when the answer is there."""
    row = Row("SIGSTOP of a server in an answer", 0)
    gaps_s: list[float] = []
    noticed = identical = 0
    servers = list(round_.swarm.servers.values())
    for number in range(count):
        victim = round_.rng.choice(servers)
        prompt = round_.rng.choice(sorted(round_.answers))
        chat = Chat(round_.swarm, "client", round_.max_tokens)
        try:
            heard, at_s = round_.ask_disturbed(
                chat, prompt, lambda victim=victim: victim.signal(signal.SIGSTOP)
            )
        finally:
            chat.stop()
            victim.signal(signal.SIGCONT)
        row.count += 1
        identical += round_.judge(row, number, prompt, heard, f"{victim.name} frozen")
        if round_.in_use([victim]):
            noticed += 1
            gaps_s.append(heard.longest_gap_s(at_s))
        tell_progress(round_, number, count, identical)
    note_gaps(row, identical, noticed, gaps_s)
    slow = [gap for gap in gaps_s if gap > FOUND_WITHIN_S + REBUILD_S]
    row.require(
        not slow, f"{len(slow)} answers stood still for more than {FOUND_WITHIN_S + REBUILD_S:g} s"
    )
    return row


class _Revival:
    """Starts a server again a while after it was killed, if it should."""

    def __init__(self, server: Server, after_s: float | None) -> None:
        self._server = server
        self._after_s = after_s
        self._due_s: float | None = None
        self._started = False

    def killed(self) -> None:
        if self._after_s is not None:
            self._due_s = time.monotonic() + self._after_s

    def poll(self) -> None:
        if not self._started and self._due_s is not None and time.monotonic() >= self._due_s:
            self._server.start()
            self._started = True

    def finish(self) -> None:
        """Have it back, where the answer ended before it was due."""
        if self._due_s is not None:
            if not self._started:
                self._server.start()
                self._started = True
            self._server.wait_ready()


def _ask_with_revival(
    round_: Round, chat: Chat, prompt: str, victims: Sequence[Server], revival: _Revival
) -> tuple[Transcript, float]:
    moment = round_.moment(prompt)
    killed_s = 0.0

    def during(n_chars: int) -> None:
        nonlocal killed_s
        if not killed_s and n_chars >= moment:
            for victim in victims:
                victim.signal(signal.SIGKILL)
            for victim in victims:
                victim.kill()
            killed_s = time.monotonic()
            revival.killed()
        revival.poll()

    return chat.ask(prompt, during=during), killed_s


def _judge_no_route(
    round_: Round, row: Row, number: int, prompt: str, heard: Transcript, victims: Sequence[Server]
) -> None:
    """The beginning of the answer and no more, and a message that names who is missing."""
    shown = heard.text.removesuffix("\n")
    row.require(
        round_.answers[prompt].startswith(shown),
        f"round {number}: what was shown before the end is no beginning of the answer",
    )
    row.require(
        any(victim.name in heard.said for victim in victims) and "Traceback" not in heard.said,
        f"round {number}: the message doesn't name the missing: {heard.said[-300:]}",
    )


def note_gaps(row: Row, identical: int, noticed: int, gaps_s: list[float]) -> None:
    """The figures that such rows have in common."""
    row.facts["identical"] = identical
    row.facts["of servers in use"] = noticed
    if gaps_s:
        row.facts["gap median s"] = statistics.median(gaps_s)
        row.facts["gap max s"] = max(gaps_s)


def tell_progress(round_: Round, number: int, count: int, identical: int) -> None:
    """A line after each tenth round and the last one."""
    if (number + 1) % 10 == 0 or number + 1 == count:
        round_.say(f"{number + 1} of {count}: {identical} identical")
