"""Network namespaces for servers, each with a cable to this machine that can be cut.

A cut cable is silence: no FIN, no RST. A namespace lives as long as the processes in it, and one of
them ends with this process, so that nothing is left even where the script is killed. Knows Linux'
`ip`, `unshare` and `nsenter`; knows no servers.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from proof.swarm import Place

__all__ = ["CUTS", "Wire", "Wires", "leftovers", "why_no_wires"]

CUTS = ("the far end is down", "the near end is down", "the way back is a black hole")
READY_S = 5.0


class Wire:
    """One namespace and the cable to it; a context manager."""

    def __init__(self, number: int) -> None:
        """The ``number``-th of this process; nothing is made yet."""
        net = f"198.18.{os.getpid() % 256}"  # addresses for measurements in a closed network
        self.near_addr = f"{net}.{4 * number + 1}"
        self.far_addr = f"{net}.{4 * number + 2}"
        self.near_name = f"gn{os.getpid()}.{number}"
        self._holder: subprocess.Popen[bytes] | None = None
        self._cut: str | None = None

    @property
    def place(self) -> Place:
        """For a server at the far end."""
        return Place(self.far_addr, self._inside())

    def __enter__(self) -> Wire:
        """Make it; RuntimeError with what `ip` or `unshare` said."""
        try:
            self._hold()
            holder = str(self._pid())
            _run(
                *("ip", "link", "add", self.near_name, "type", "veth"),
                *("peer", "name", "eth0", "netns", holder),
            )
            _run("ip", "addr", "add", f"{self.near_addr}/30", "dev", self.near_name)
            _run("ip", "link", "set", self.near_name, "up")
            _run(*self._inside(), "ip", "addr", "add", f"{self.far_addr}/30", "dev", "eth0")
            for name in ("lo", "eth0"):
                _run(*self._inside(), "ip", "link", "set", name, "up")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Remove it."""
        with suppress(RuntimeError):
            _run("ip", "link", "del", self.near_name)
        if self._holder is not None:
            self._holder.kill()
            self._holder.wait()
            for pipe in (self._holder.stdin, self._holder.stderr):
                if pipe is not None:
                    pipe.close()

    def cut(self, how: str) -> None:
        """One of CUTS: from now on nothing arrives, and nobody is told."""
        self._change(how, cut=True)
        self._cut = how

    def mend(self) -> None:
        """As before the cut, if there was one."""
        if self._cut is not None:
            how, self._cut = self._cut, None
            self._change(how, cut=False)

    def _change(self, how: str, *, cut: bool) -> None:
        state = "down" if cut else "up"
        match CUTS.index(how):
            case 0:
                _run(*self._inside(), "ip", "link", "set", "eth0", state)
            case 1:
                _run("ip", "link", "set", self.near_name, state)
            case _:
                verb = "add" if cut else "del"
                _run(*self._inside(), "ip", "route", verb, "blackhole", f"{self.near_addr}/32")

    def _inside(self) -> tuple[str, ...]:
        return ("nsenter", f"--net=/proc/{self._pid()}/ns/net")

    def _pid(self) -> int:
        if self._holder is None:
            raise RuntimeError("the wire was not made")
        return self._holder.pid

    def _hold(self) -> None:
        """Start the process that the namespace lives with."""
        self._holder = subprocess.Popen(
            ["unshare", "--net", "cat"],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            start_new_session=True,
        )  # fmt: skip
        ours = os.readlink("/proc/self/ns/net")  # noqa: PTH115 (no path but a name)
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline:
            if self._holder.poll() is not None:
                said = self._holder.stderr.read() if self._holder.stderr is not None else b""
                raise RuntimeError(said.decode(errors="replace").strip() or "unshare failed")
            with suppress(OSError):
                if os.readlink(f"/proc/{self._holder.pid}/ns/net") != ours:  # noqa: PTH115
                    return
            time.sleep(0.01)
        raise RuntimeError("no network namespace came up")


class Wires:
    """One wire for each of several names; a context manager."""

    def __init__(self, names: Sequence[str]) -> None:
        """Nothing is made yet."""
        self._wires = {name: Wire(number) for number, name in enumerate(names)}
        self._stack = ExitStack()

    def __enter__(self) -> Wires:
        """Make them all, or none and RuntimeError."""
        with ExitStack() as stack:
            for wire in self._wires.values():
                stack.enter_context(wire)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Remove them all."""
        self._stack.close()

    def __getitem__(self, name: str) -> Wire:
        """The wire of that name."""
        return self._wires[name]

    @property
    def places(self) -> dict[str, Place]:
        """By name."""
        return {name: wire.place for name, wire in self._wires.items()}


def why_no_wires() -> str | None:
    """Why this machine, or this user, can't have wires; None where it can."""
    try:
        with Wire(60):
            return None
    except (OSError, RuntimeError) as error:
        return f"network namespaces can't be made here: {error}"


def _run(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(argv)}: {done.stderr.strip()}")


def leftovers() -> list[str]:
    """Names of near ends whose process is gone: there should be none."""
    found = [path.name for path in Path("/sys/class/net").glob("gn*.*")]
    return [name for name in found if not Path(f"/proc/{name[2:].partition('.')[0]}").exists()]
