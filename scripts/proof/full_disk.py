"""Commands and servers on a full disk: a clear error or no effect, and never half a file."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gptnode.demo.bundled import bundled_model_folder
from gptnode.errors import ContextFileError
from gptnode.net.identity import create_identity
from gptnode.node.status_file import read_status
from gptnode.text.context_file import load_context, save_context
from proof.chatting import Chat
from proof.report import Row
from proof.small_disk import SmallDisk
from proof.swarm import Server, Swarm, environment

__all__ = ["full_disk"]

DISK_BYTES = 32 << 20
SERVERS = {"anna": "0-3", "ben": "4-7"}
PROMPT = "Tell me a story about a lighthouse."
MAX_TOKENS = 60
MOST_PAGES = 12
SEEN_WITHIN_S = 10.0
FULL = re.compile("no space left|GB free", re.IGNORECASE)
CHANGES_BY_ITSELF = (".log", ".status.json", ".new", ".txt")
"""Of a server that runs meanwhile; that it leaves nothing beside is looked at in the end."""


def _clients(server: Server) -> list[dict[str, Any]]:
    """Who is connected but for other servers, which hand on to each other."""
    connected = read_status(server.key_path)["connected"]
    return [peer for peer in connected if peer["role"] != "peer"]


@dataclass
class _Attempts:
    """Notes what came of commands."""

    row: Row
    ignored: tuple[str, ...] = ()
    errors: int = 0
    worked: int = 0

    def command(self, disk: SmallDisk, what: str, argv: Sequence[str | Path]) -> bool:
        """Run it. True where it worked; where it didn't, it said so and changed nothing."""
        before = disk.files()
        done = subprocess.run(
            [sys.executable, "-m", "gptnode", *map(str, argv)],
            capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
            env=environment(),
        )  # fmt: skip
        self.row.count += 1
        if done.returncode == 0:
            self.worked += 1
            return True
        self.errors += 1
        clear = FULL.search(done.stderr) is not None and "Traceback" not in done.stderr
        self.row.require(clear, f"{what}: no clear error: {done.stderr.strip()[-300:]}")
        self._unchanged(disk, before, what)
        return False

    def save(self, disk: SmallDisk, what: str, path: Path, ids: list[int]) -> bool:
        """`/save` of a chat, as its command does it."""
        before = disk.files()
        self.row.count += 1
        try:
            save_context(path, ids, "0" * 32, "demo")
        except ContextFileError as error:
            self.errors += 1
            self.row.require(FULL.search(error.detail) is not None, f"{what}: {error.detail}")
            self._unchanged(disk, before, what)
            return False
        self.worked += 1
        whole = load_context(path, max(ids) + 1, None) == tuple(ids)
        self.row.require(whole, f"{what}: saved, and not the same when it is loaded")
        return True

    def _unchanged(self, disk: SmallDisk, before: dict[str, bytes | None], what: str) -> None:
        after = disk.files()
        changed = [  # an empty folder is no half of anything
            name
            for name in sorted({*before, *after})
            if before.get(name) != after.get(name) and not name.endswith(self.ignored)
        ]
        self.row.require(not changed, f"{what}: failed, and changed {changed}")


def full_disk(folder: Path, rounds: int, say: Callable[[str], None]) -> list[Row]:
    """Each thing that writes files, with no room and with little room, ``rounds`` times."""
    rows = [Row("full disk: commands", 0), Row("full disk: servers", 0)]
    place = folder / "disk"
    place.mkdir()
    with SmallDisk(place, DISK_BYTES) as disk:
        _commands(rows[0], disk, rounds)
        say(f"commands: {rows[0].count}, {len(rows[0].failures)} failures")
    with SmallDisk(place, DISK_BYTES) as disk:
        _servers(rows[1], disk, rounds)
        say(f"servers: {rows[1].count}, {len(rows[1].failures)} failures")
    return rows


def _commands(row: Row, disk: SmallDisk, rounds: int) -> None:
    """/save, id and quantize; with the pages that are left from none to enough."""
    attempts = _Attempts(row)
    saved = disk.path / "chat.csv"
    save_context(saved, [1, 2, 3], "0" * 32, "demo")
    long = list(range(1, 4000))
    for number in range(max(rounds, MOST_PAGES)):
        pages = number % MOST_PAGES
        disk.fill(pages)
        what = f"with {pages} pages left"
        attempts.save(disk, f"/save {what}", saved, long)
        disk.clear()
        save_context(saved, [1, 2, 3], "0" * 32, "demo")
    for number in range(rounds):
        pages = number % 3
        disk.fill(pages)
        new = disk.path / "new" / "identity.key"
        made = attempts.command(disk, f"id with {pages} pages left", ("id", "--identity", new))
        disk.clear()
        made = made or attempts.command(disk, "id with room", ("id", "--identity", new))
        row.require(made, "id: didn't work when there was room again")
        new.unlink(missing_ok=True)
        shutil.rmtree(new.parent, ignore_errors=True)
    for number in range(rounds):
        _quantise(attempts, disk, number)
    row.facts["clear errors"] = attempts.errors
    row.facts["worked all the same"] = attempts.worked
    row.require(attempts.errors > 0, "the disk was never full")


def _quantise(attempts: _Attempts, disk: SmallDisk, number: int) -> None:
    """With no room, or with room that somebody else takes as soon as the first bytes are there."""
    out = disk.path / "quantised"
    argv = ("quantize", bundled_model_folder(), out, "--dtype", ("int8", "int4")[number % 2])
    over = threading.Event()
    if number % 3 == 0:
        disk.fill()
    filler = threading.Thread(target=_fill_when_begun, args=(disk, set(disk.files()), over))
    if number % 3 != 0:
        filler.start()
    try:
        worked = attempts.command(disk, "quantize", argv)
    finally:
        over.set()
        if filler.ident is not None:
            filler.join()
    if worked:
        attempts.command(disk, "fingerprint of what quantize wrote", ("fingerprint", out))
        shutil.rmtree(out)
    attempts.row.require(not out.exists(), "quantize: failed, and a folder is there")
    disk.clear()


def _fill_when_begun(disk: SmallDisk, before: set[str], over: threading.Event) -> None:
    while not over.is_set():
        found = set(disk.files())
        if len(found - before) > 1:  # the folder, and something in it
            disk.fill()
            return
        time.sleep(0.001)


def _servers(row: Row, disk: SmallDisk, rounds: int) -> None:
    """Servers whose identity, map, log and status are on the disk, and `peers accept`."""
    attempts = _Attempts(row, CHANGES_BY_ITSELF)
    answers = 0
    with Swarm(disk.path, SERVERS) as swarm:
        due = _answer(swarm)
        server = swarm.servers["anna"]
        for number in range(rounds):
            text = swarm.map_path.read_bytes()
            disk.fill()
            row.count += 1
            heard = _answer(swarm)
            answers += heard == due
            row.require(heard == due, f"round {number}: the chat got {heard!r}")
            stranger = create_identity(disk.path.parent / f"stranger-{number}.key").peer_id
            accept = ("peers", "accept", stranger, "--identity", server.key_path)
            accepted = attempts.command(disk, "peers accept", accept)
            row.require(not accepted, "peers accept: worked on a full disk")
            row.require(swarm.map_path.read_bytes() == text, "peers accept: the map was changed")
            disk.clear()
            accepted = attempts.command(disk, "peers accept with room", accept)
            row.require(accepted, "peers accept: didn't work when there was room again")
            listed = json.loads(swarm.map_path.read_bytes())["clients"]
            row.require(
                any(one["id"] == stranger for one in listed), "peers accept: not in the map"
            )
            row.require(all(one.alive for one in swarm.servers.values()), "a server ended")
        deadline = time.monotonic() + SEEN_WITHIN_S
        while _clients(server) and time.monotonic() < deadline:
            time.sleep(0.1)
        status = read_status(server.key_path)
        row.require(status["state"] == "serving" and not _clients(server), f"status: {status}")
        beside = [name for name in disk.files() if name.endswith(".new")]
        row.require(not beside, f"left beside: {beside}")
        row.require(
            swarm.tracebacks() == 0, f"{swarm.tracebacks()} tracebacks in the servers' logs"
        )
    row.facts["answers on a full disk"] = answers
    row.facts["clear errors"] = attempts.errors


def _answer(swarm: Swarm) -> str:
    """What a chat prints; its end and messages where it failed."""
    chat = Chat(swarm, "client", MAX_TOKENS)
    try:
        heard = chat.ask(PROMPT)
    finally:
        chat.stop()
    return heard.text if heard.code == 0 else f"exit code {heard.code}: {heard.said[-300:]}"
