"""Servers and chats whose wall clock jumps by an hour, forth and back, while an answer streams.

A small library, compiled here and loaded before all others, adds an offset to what they read; the
offset stands in a file that all have mapped, so that they jump at once. Knows no protocol.
"""

from __future__ import annotations

import random
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from itertools import pairwise
from pathlib import Path

from proof.chatting import Chat
from proof.disturbances import Round
from proof.report import Row
from proof.swarm import Swarm, environment

__all__ = ["MovableClock", "moved_clock", "why_no_clock"]

HOUR_S = 3600
STAMP = re.compile(r"timestamp=(\S+)")
SOURCE = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *offset_s;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("MOVED_CLOCK");
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0) return;
    void *seen = mmap(0, 8, PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    if (seen != MAP_FAILED) offset_s = seen;
}

int clock_gettime(clockid_t id, struct timespec *now) {
    static int (*true_one)(clockid_t, struct timespec *);
    if (!true_one) true_one = dlsym(RTLD_NEXT, "clock_gettime");
    int done = true_one(id, now);
    if (!done && offset_s && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE))
        now->tv_sec += *offset_s;
    return done;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec precise;
    int done = clock_gettime(CLOCK_REALTIME, &precise);
    (void)zone;
    if (!done) { now->tv_sec = precise.tv_sec; now->tv_usec = precise.tv_nsec / 1000; }
    return done;
}

time_t time(time_t *out) {
    struct timespec precise;
    if (clock_gettime(CLOCK_REALTIME, &precise)) return -1;
    if (out) *out = precise.tv_sec;
    return precise.tv_sec;
}
"""


def why_no_clock() -> str | None:
    """What is missing here; None where nothing is."""
    return None if shutil.which("cc") else "the clock can't be moved here: there is no C compiler"


class MovableClock:
    """The library and its offset, in a folder."""

    def __init__(self, folder: Path) -> None:
        """Compile it; RuntimeError with what the compiler said."""
        self._library = folder / "moved_clock.so"
        self._offset = folder / "offset"
        source = folder / "moved_clock.c"
        source.write_text(SOURCE)
        done = subprocess.run(
            ["cc", "-shared", "-fPIC", "-O1", str(source), "-o", str(self._library), "-ldl"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise RuntimeError(f"cc: {done.stderr.strip()}")
        self._offset.write_bytes(struct.pack("q", 0))

    @property
    def variables(self) -> dict[str, str]:
        """For the environment of those who shall read this clock."""
        return {"LD_PRELOAD": str(self._library), "MOVED_CLOCK": str(self._offset)}

    def move(self, offset_s: int) -> None:
        """All clocks say so much more than the true time, from now on."""
        with self._offset.open("r+b", buffering=0) as file:  # mapped: the file must stay
            file.write(struct.pack("q", offset_s))


def moved_clock(
    swarm: Swarm,
    clock: MovableClock,
    count: int,
    *,
    prompts: tuple[str, ...],
    max_tokens: int,
    rng: random.Random,
    say: Callable[[str], None],
) -> Row:
    """An hour forth or back in the middle of each answer; ``swarm`` runs with the clock."""
    row = Row("clock moved by an hour in an answer", 0)
    identical = 0
    round_ = Round.prepare(swarm, prompts, max_tokens, rng, say)
    offset_s = 0
    for number in range(count):
        prompt = rng.choice(sorted(round_.answers))
        offset_s = rng.choice([one for one in (-HOUR_S, 0, HOUR_S) if one != offset_s])
        chat = Chat(swarm, "client", max_tokens, variables=clock.variables)
        try:
            heard, at_s = round_.ask_disturbed(
                chat, prompt, lambda offset_s=offset_s: clock.move(offset_s)
            )
        finally:
            chat.stop()
        row.count += 1
        what = f"{offset_s:+d} s"
        identical += round_.judge(row, number, prompt, heard, what)
        row.require(at_s > 0, f"round {number}: the answer ended before the clock was moved")
        alarms = [line for line in heard.said.splitlines() if line.startswith("·")][1:]
        row.require(not alarms, f"round {number}, {what}: {alarms}")
        _judge_peers(row, swarm, clock, f"round {number}, {what}")
        if row.count % 10 == 0 or row.count == count:
            say(f"{row.count} of {count}: {identical} identical")
    row.facts["identical"] = identical
    row.facts["jumps in the logs"] = jumps = _jumps(swarm)
    row.require(jumps > 0, "no log shows that a clock was moved: nothing was proved")
    row.require(all(server.alive for server in swarm.servers.values()), "a server ended")
    row.require(swarm.tracebacks() == 0, f"{swarm.tracebacks()} tracebacks in the servers' logs")
    return row


def _judge_peers(row: Row, swarm: Swarm, clock: MovableClock, what: str) -> None:
    """`gptnode peers` still knows each server."""
    for server in swarm.servers.values():
        done = subprocess.run(
            [sys.executable, "-m", "gptnode", "peers", "--identity", str(server.key_path)],
            capture_output=True, text=True, check=False,
            env=environment() | clock.variables,
        )  # fmt: skip
        row.require(done.returncode == 0, f"{what}: gptnode peers: {done.stderr.strip()[-200:]}")


def _jumps(swarm: Swarm) -> int:
    """How often the time of a log went on or back by more than half an hour."""
    found = 0
    for server in swarm.servers.values():
        log = server.log_path.read_text(errors="replace")
        stamps = [datetime.fromisoformat(one) for one in STAMP.findall(log)]
        found += sum(abs((b - a).total_seconds()) > HOUR_S / 2 for a, b in pairwise(stamps))
    return found
