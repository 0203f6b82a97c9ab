"""Links that go silent in the middle of answers: no FIN and no RST, as with a pulled cable."""

from __future__ import annotations

import socket
import time

from proof.chatting import Chat
from proof.disturbances import FOUND_WITHIN_S, REBUILD_S, Round, note_gaps, tell_progress
from proof.report import Row
from proof.swarm import Server
from proof.wires import CUTS, Wires

__all__ = ["cut_one"]

BACK_WITHIN_S = 10.0


def cut_one(round_: Round, wires: Wires, count: int) -> Row:
    """The link to a random server is cut in an answer; it is mended when the answer is there."""
    row = Row("blackholed link in an answer", 0)
    gaps_s: list[float] = []
    noticed = identical = 0
    servers = list(round_.swarm.servers.values())
    for number in range(count):
        victim = round_.rng.choice(servers)
        how = CUTS[number % len(CUTS)]
        prompt = round_.rng.choice(sorted(round_.answers))
        wire = wires[victim.name]
        chat = Chat(round_.swarm, "client", round_.max_tokens)
        try:
            heard, at_s = round_.ask_disturbed(
                chat, prompt, lambda wire=wire, how=how: wire.cut(how)
            )
        finally:
            chat.stop()
            wire.mend()
        row.count += 1
        what = f"{victim.name}: {how}"
        identical += round_.judge(row, number, prompt, heard, what)
        row.require(at_s > 0, f"round {number}: the answer ended before the cut")
        row.require(_is_back(victim), f"round {number}, {what}: mended, but not reached again")
        if round_.in_use([victim]):
            noticed += 1
            gaps_s.append(heard.longest_gap_s(at_s))
        else:
            alarms = [line for line in heard.said.splitlines() if "serves blocks" in line][1:]
            row.require(not alarms, f"round {number}, {what}, which served nothing: {alarms}")
        tell_progress(round_, number, count, identical)
    note_gaps(row, identical, noticed, gaps_s)
    slow = [gap for gap in gaps_s if gap > FOUND_WITHIN_S + REBUILD_S]
    row.require(
        not slow, f"{len(slow)} answers stood still for more than {FOUND_WITHIN_S + REBUILD_S:g} s"
    )
    return row


def _is_back(server: Server) -> bool:
    """Whether a connection to it can be made again."""
    host, port = server.addr.split("/")[2], server.port
    deadline = time.monotonic() + BACK_WITHIN_S
    while time.monotonic() < deadline:
        try:
            with socket.create_connection((host, port), timeout=1.0):
                return True
        except OSError:
            time.sleep(0.05)
    return False
