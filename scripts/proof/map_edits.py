"""The map edited in the middle of answers, which don't show it; and each edit is in force soon.

A chat asks on and on. Right edits must be in force for it and for all servers within 2 seconds;
wrong ones are reported by all of them, with the place in the file, and change nothing.
"""

from __future__ import annotations

import json
import random
import re
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import trio

from gptnode.errors import GptNodeError
from gptnode.node.client import Client
from gptnode.node.status_file import read_status
from gptnode.routing.blocks_map import parse_blocks_map
from proof.crowd_of_chats import ask, open_chat
from proof.edits import BREAKAGES, CHANGES, Layout
from proof.report import Row
from proof.swarm import Server, Swarm

__all__ = ["edit_maps"]

IN_FORCE_S = 2.0
PATIENCE_S = 20.0
MOMENT_S = 0.2  # less than the half second between two looks
LOOK_S = 0.02
LOOKS_AT_STATUS = 5  # which takes a few milliseconds
QUIET_S = 1.6  # three looks
MISSING = "a file that is missing"
BRIEFLY = "a file that is missing for a moment"
HALVES = "a file that is written in two halves"
TAKEN = "map taken"
NOT_TAKEN = "map not taken"


@dataclass
class _Chat:
    """The chat that goes on meanwhile."""

    client: Client
    lines: list[str]
    due: dict[str, list[int]]
    max_tokens: int
    row: Row
    n_tokens: int = 0
    answers: int = 0
    over: bool = False
    moved_on: trio.Event = field(default_factory=trio.Event)

    async def run(self, rng: random.Random) -> None:
        while not self.over:
            prompt = rng.choice(sorted(self.due))
            answering = ask(self.client, prompt, self.max_tokens)
            try:
                async for _ in answering:
                    self.n_tokens = len(answering.result().ids)
                    self.moved_on.set()
                    self.moved_on = trio.Event()
            except GptNodeError as error:
                self.row.failures.append(f"an answer was dropped: {error.detail}")
            ids, self.n_tokens = list(answering.result().ids), 0
            self.answers += 1
            if ids != self.due[prompt]:
                self.row.failures.append(
                    f"answer {self.answers}, {prompt!r}: {len(ids)} tokens, not those undisturbed"
                )

    async def in_the_middle(self, rng: random.Random) -> None:
        """Return when an answer has a random number of tokens."""
        moment = rng.randint(1, min(map(len, self.due.values())) * 3 // 4)
        with trio.move_on_after(PATIENCE_S):
            while self.n_tokens != moment:
                await self.moved_on.wait()


class _Log:
    """What a server logged since the last look."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._seen = 0
        self.skip()

    def skip(self) -> None:
        self._seen = self.server.log_path.stat().st_size

    def has(self, *words: str) -> bool:
        with self.server.log_path.open("rb") as file:
            file.seek(self._seen)
            lines = file.read().decode(errors="replace").splitlines()
        return any(all(word in line for word in words) for line in lines)


OF_THE_MODEL = ("a gap in the blocks", "blocks that the model hasn't")
TROUBLED = re.compile(r"(\w+)(?:-\d+)? \(blocks")


class _Editor:
    """Makes the edits and watches what comes of them."""

    def __init__(self, swarm: Swarm, chat: _Chat, rng: random.Random, row: Row) -> None:
        self._swarm = swarm
        self._chat = chat
        self._rng = rng
        self._row = row
        self._base = swarm.document()
        self._n_blocks = chat.client.model_config.n_blocks
        names = {
            blocks: tuple(s.name for s in swarm.servers.values() if s.blocks == blocks)
            for blocks in dict.fromkeys(s.blocks for s in swarm.servers.values())
        }
        first, second = names.values()
        self._home = Layout(
            int(next(iter(names)).split("-")[1]) + 1,
            (first, second),
            {name: name for name in swarm.servers},
        )
        self._now = self._home
        self._text = swarm.map_path.read_text()
        self._logs = [_Log(server) for server in swarm.servers.values()]
        self.client_s: list[float] = []
        self.server_s: list[float] = []
        self.route_s: list[float] = []
        self.settled_s: list[float] = []
        self.reported_s: list[float] = []

    async def make(self, kind: str) -> None:
        """One edit of ``kind``, in the middle of an answer."""
        await self._chat.in_the_middle(self._rng)
        for log in self._logs:
            log.skip()
        n_lines = len(self._chat.lines)
        if kind in CHANGES or kind == HALVES:
            await self._valid(kind)
        elif kind == BRIEFLY:
            await self._briefly(kind)
        else:
            await self._invalid(kind)
        said = self._chat.lines[n_lines:]
        if kind in (HALVES, BRIEFLY):
            wrong = [line for line in said if "stays" in line and "in force" in line]
            self._row.require(not wrong, f"{kind}: reported as wrong: {wrong}")

    async def _valid(self, kind: str) -> None:
        layout, text = None, self._text
        while layout is None or json.loads(text) == json.loads(self._text):  # a new name of nobody
            change = CHANGES.get(kind) or self._rng.choice(list(CHANGES.values()))
            layout = change(self._rng, self._now, self._home)
            if layout is None:  # first something has to be there that can be taken away
                kind = self._rng.choice(list(CHANGES))
            else:
                text = json.dumps(layout.document(self._base, self._n_blocks), indent=2)
        loads = layout.cut != self._now.cut or bool(
            {n for part in layout.parts for n in part} - {n for p in self._now.parts for n in p}
        )
        if kind == HALVES:
            half = len(text) // 2
            self._swarm.map_path.write_text(text[:half])
            await trio.sleep(MOMENT_S)
            with self._swarm.map_path.open("a") as file:
                file.write(text[half:])
        else:
            self._write(text)
        at_s = time.monotonic()
        self._now, self._text = layout, text
        wanted = parse_blocks_map(text, source=self._swarm.map_path)
        took: dict[str, float] = {}
        conditions: dict[str, Callable[[], bool]] = {
            "client": lambda: self._chat.client.blocks_map == wanted,
            "route": lambda: "client" in took and self._route_follows(),
            **{log.server.name: lambda log=log: log.has(TAKEN) for log in self._logs},  # type: ignore[misc]
            "settled": self._servers_follow,
        }
        looks = 0
        while len(took) < len(conditions) and time.monotonic() - at_s < PATIENCE_S:
            looks += 1
            for name, holds in conditions.items():
                if name == "settled" and looks % LOOKS_AT_STATUS:
                    continue
                if name not in took and holds():
                    took[name] = time.monotonic() - at_s
            await trio.sleep(LOOK_S)
        missing = [name for name in conditions if name not in took]
        self._row.require(
            not missing, f"{kind}: never in force for {missing}: {self._chat.lines[-3:]}"
        )
        if missing:
            return
        self.client_s.append(took["client"])
        self.server_s.append(max(took[log.server.name] for log in self._logs))
        self.settled_s.append(took["settled"])
        if not loads:
            self.route_s.append(took["route"])
        late = [
            f"{name} {s:.1f} s"
            for name, s in took.items()
            if s > IN_FORCE_S and name != "settled" and not (loads and name == "route")
        ]
        self._row.require(not late, f"{kind}: in force late: {late}")

    async def _invalid(self, kind: str) -> None:
        path = self._swarm.map_path
        if kind == MISSING:
            path.unlink()
            broken, where = None, "no such file"
        else:
            broken, where = BREAKAGES[kind](self._text)
            self._write(broken)
        at_s = time.monotonic()
        n_lines, in_force = len(self._chat.lines), self._chat.client.blocks_map
        route = self._chat.client.hops()
        # How many blocks a model has, a server without any of them doesn't know.
        judges = [
            log
            for log in self._logs
            if kind not in OF_THE_MODEL or self._now.blocks_of(log.server.name, self._n_blocks)
        ]
        reported = await self._until(
            lambda: (
                any(where in line and "stays" in line for line in self._chat.lines[n_lines:])
                and all(log.has(NOT_TAKEN, where) for log in judges)
            )
        )
        self.reported_s.append(time.monotonic() - at_s)
        self._row.require(reported, f"{kind}: no report of {where!r}: {self._chat.lines[n_lines:]}")
        same = [(h.label, h.span) for h in self._chat.client.hops()] == [
            (h.label, h.span) for h in route
        ]
        self._row.require(
            self._chat.client.blocks_map == in_force and same, f"{kind}: changed the route"
        )
        for log in judges:
            self._row.require(not log.has(TAKEN), f"{kind}: taken by {log.server.name}")
        for log in self._logs:
            log.skip()
        self._write(self._text)
        back = await self._until(
            lambda: (
                any("as it was again" in line for line in self._chat.lines[n_lines:])
                and all(log.has(TAKEN) for log in judges)
            )
        )
        self._row.require(back, f"{kind}: not seen that it was mended")

    async def _briefly(self, kind: str) -> None:
        n_lines = len(self._chat.lines)
        self._swarm.map_path.unlink()
        await trio.sleep(MOMENT_S)
        self._write(self._text)
        await trio.sleep(QUIET_S)
        said = self._chat.lines[n_lines:]
        self._row.require(not said, f"{kind}: the chat said {said}")
        for log in self._logs:
            loud = log.has(NOT_TAKEN)
            self._row.require(not loud, f"{kind}: reported by {log.server.name}")

    def _write(self, text: str) -> None:
        """In place, or as a new file in its place."""
        path = self._swarm.map_path
        if self._rng.random() < 0.5:
            beside = path.with_name("blocksmap.new")
            beside.write_text(text)
            beside.replace(path)
        else:
            path.write_text(text)

    def _route_follows(self) -> bool:
        """Each block at its first holder, or at another that the map names if that one wasn't
        well: nobody is gone back to without need."""
        ill = {name for line in self._chat.lines for name in TROUBLED.findall(line)}
        states = {
            peer.label: peer.state
            for peer in self._chat.client.peers()
            if peer.label.split("-")[0] not in ill
        }
        for hop in self._chat.client.hops():
            for block in hop.span:
                holders = self._now.holders(block)
                if hop.label not in holders:
                    return False
                better = holders[: holders.index(hop.label)]
                if any(states.get(one) in ("connected", "idle") for one in better):
                    return False
        return True

    def _servers_follow(self) -> bool:
        """As their status files say it."""
        for server in self._swarm.servers.values():
            status = read_status(server.key_path)
            (blocks,) = list(status["blocks"].values()) or [[]]
            if blocks != self._now.blocks_of(server.name, self._n_blocks) or status["problems"]:
                return False
        return True

    async def _until(self, holds: Callable[[], bool]) -> bool:
        deadline = time.monotonic() + PATIENCE_S
        while not holds():
            if time.monotonic() > deadline:
                return False
            await trio.sleep(LOOK_S)
        return True


async def edit_maps(
    swarm: Swarm,
    count: int,
    *,
    prompts: tuple[str, ...],
    max_tokens: int,
    rng: random.Random,
    say: Callable[[str], None],
) -> Row:
    """``count`` edits, each kind as often as the others."""
    row = Row("map edits in answers", 0)
    lines: list[str] = []
    async with open_chat(swarm, "client") as client:
        due = {}
        for prompt in prompts:
            answering = ask(client, prompt, max_tokens)
            async for _ in answering:
                pass
            due[prompt] = list(answering.result().ids)
    say(f"{len(due)} answers undisturbed")
    kinds = _kinds(rng)
    made = {"valid": 0, "invalid": 0}
    async with open_chat(swarm, "client", lines.append) as client, trio.open_nursery() as nursery:
        chat = _Chat(client, lines, due, max_tokens, row)
        nursery.start_soon(chat.run, random.Random(rng.random()))
        editor = _Editor(swarm, chat, rng, row)
        for _ in range(count):
            kind = next(kinds)
            n_failures = len(row.failures)
            await editor.make(kind)
            row.count += 1
            made["valid" if kind in CHANGES or kind == HALVES else "invalid"] += 1
            for failure in row.failures[n_failures:]:
                say(f"edit {row.count}: {failure}")
            if row.count % 20 == 0 or row.count == count:
                told = f"{chat.answers} answers, {len(row.failures)} failures"
                say(f"{row.count} of {count} edits, {told}")
        chat.over = True
    row.facts |= made
    row.facts["answers"] = chat.answers
    figures = {
        "client": editor.client_s,
        "servers": editor.server_s,
        "route in use": editor.route_s,
        "blocks served": editor.settled_s,
        "reported": editor.reported_s,
    }
    for name, seconds in figures.items():
        if seconds:
            row.facts[f"{name} median s"] = statistics.median(seconds)
            row.facts[f"{name} max s"] = max(seconds)
    return row


def _kinds(rng: random.Random) -> Iterator[str]:
    """All kinds in some order, again and again; half of the edits are right ones."""
    wrong = [*BREAKAGES, MISSING, BRIEFLY]
    right = [*CHANGES, HALVES]
    while True:
        rng.shuffle(right)
        chosen = [*right, *rng.sample(wrong, len(right))]
        rng.shuffle(chosen)
        yield from chosen
