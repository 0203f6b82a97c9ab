"""One answer of a real `gptnode chat` process, watched byte by byte."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise

from proof.swarm import Swarm, environment

__all__ = ["Chat", "Transcript"]

DEADLINE_S = 180.0


@dataclass
class Transcript:
    """What a chat printed, when, and how it ended."""

    text: str = ""
    said: str = ""
    code: int = -1
    arrivals_s: list[float] = field(default_factory=list)

    def longest_gap_s(self, since_s: float) -> float:
        """The longest time without output, from ``since_s`` (time.monotonic) to the last output."""
        times = [since_s, *(one for one in self.arrivals_s if one >= since_s)]
        return max((after - before for before, after in pairwise(times)), default=0.0)


class Chat:
    """A chat process that is up before it is asked, so that starting costs no answer time."""

    def __init__(
        self,
        swarm: Swarm,
        name: str,
        max_tokens: int,
        options: tuple[str, ...] = (),
        *,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        """Start the process of the client ``name``; ``variables`` are added to its environment."""
        self._stderr_path = swarm.folder / f"{name}-stderr-{time.monotonic_ns()}.txt"
        with self._stderr_path.open("wb") as stderr:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "gptnode", "chat", "--lines", "--raw", "--verbose"),
                    *("--map", str(swarm.map_path), "--identity", str(swarm.keys[name])),
                    *("--temperature", "0", "--max-tokens", str(max_tokens), "--threads", "1"),
                    *options,
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=environment() | dict(variables or {}),
                start_new_session=True,
            )

    def ask(self, prompt: str, *, during: Callable[[int], None] = lambda n: None) -> Transcript:
        """The whole answer to ``prompt``; ``during`` is called with the characters seen so far.

        It is called every few milliseconds, also while nothing comes.
        """
        found = Transcript()
        process = self._process
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("a chat without pipes")
        with suppress(BrokenPipeError):
            process.stdin.write(prompt.encode() + b"\n")
            process.stdin.close()
        received = b""
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            if select.select([process.stdout], [], [], 0.002)[0]:
                data = os.read(process.stdout.fileno(), 65_536)
                if not data:
                    break
                received += data
                found.arrivals_s.append(time.monotonic())
            during(len(received))
        else:
            process.kill()
        found.code = process.wait()
        process.stdout.close()
        found.text = received.decode("utf-8", "replace")
        found.said = self._stderr_path.read_text(errors="replace")
        return found

    def stop(self) -> None:
        """Kill it, whatever it does."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()
        self._stderr_path.unlink(missing_ok=True)
