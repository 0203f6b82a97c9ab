"""What a measurement ran on: the machine, the versions, and this process's memory.

Figures without these can't be compared. Nothing here is sent anywhere.
"""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from gptnode import __version__

__all__ = ["MachineInfo", "Versions", "resident_bytes", "this_machine", "versions"]

CPU_INFO = Path("/proc/cpuinfo")


@dataclass(frozen=True, slots=True)
class MachineInfo:
    """``cores`` are the logical ones that this process may use, ``memory_bytes`` is all of it."""

    cpu: str
    cores: int
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Versions:
    """What computed."""

    gptnode: str
    torch: str
    python: str


def this_machine() -> MachineInfo:
    """The machine that this process runs on."""
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ()
    cores = len(usable) or os.cpu_count() or 1
    return MachineInfo(_cpu_name(), cores, psutil.virtual_memory().total)


def versions() -> Versions:
    """The versions in use."""
    return Versions(__version__, torch.__version__, platform.python_version())


def resident_bytes() -> int:
    """Physical memory of this process now, with the pages of files that it has mapped."""
    return int(psutil.Process().memory_info().rss)


def _cpu_name() -> str:
    """The processor's own name on Linux, else what Python knows: the architecture at least."""
    try:
        lines = CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() == "model name" and value.strip():
            return value.strip()
    return platform.processor() or platform.machine() or "unknown"
