"""How many bytes a second this machine reads from memory: the limit of every decode step.

A small C program measures it, compiled with the system's compiler when it is first needed; without
a compiler torch sums up a tensor, which is slower on most machines and therefore flatters us.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import run_json
from gptnode.errors import GptNodeError

__all__ = ["Bandwidth", "BandwidthMeter"]

HERE = Path(__file__).resolve().parent
BUFFER_MIB = 512
"""Far beyond any L3 cache."""
PASSES = 30
COMPILERS = ("cc", "gcc", "clang")
FLAGS = (("-O3", "-march=native"), ("-O3", "-mcpu=native"), ("-O3",))


@dataclass(frozen=True, slots=True)
class Bandwidth:
    """The median rate of the best ``way`` of reading."""

    bytes_per_s: float
    way: str


class BandwidthMeter:
    """Measures on demand, each time in a process of its own that takes about two seconds."""

    def __init__(self, work: Path, threads: int) -> None:
        """``work`` is where the program is built."""
        self._threads = threads
        program = _compile(work)
        self._command: tuple[str | Path, ...] = (
            (program,) if program is not None else (sys.executable, HERE / "workers/torch_read.py")
        )

    def measure(self) -> Bandwidth:
        """Now.

        Raises:
            GptNodeError: the program failed, for want of memory say.
        """
        command = [*self._command, str(BUFFER_MIB), str(self._threads), str(PASSES)]
        answer = run_json(command)
        rates: dict[str, list[float]] = answer["bytes_per_s"]
        way = max(rates, key=lambda name: statistics.median(rates[name]))
        return Bandwidth(statistics.median(rates[way]), way)


def _compile(work: Path) -> Path | None:
    """The program, built from the source beside this file; None without a compiler."""
    source, program = HERE / "read_bandwidth.c", work / "read_bandwidth"
    if program.exists() and program.stat().st_mtime > source.stat().st_mtime:
        return program
    compiler = next((name for name in COMPILERS if shutil.which(name)), None)
    if compiler is None:
        return None
    work.mkdir(parents=True, exist_ok=True)
    for flags in FLAGS:
        command = [compiler, *flags, "-pthread", str(source), "-o", str(program)]
        built = subprocess.run(command, capture_output=True, text=True, check=False)
        if not built.returncode:
            return program
    raise GptNodeError(f"{compiler} can't compile {source.name}: {built.stderr[-300:]}")
