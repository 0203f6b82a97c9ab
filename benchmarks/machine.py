"""What the measurements ran on and with: processor, memory, kernel, and the versions of both sides.

No host name, no paths: the records are published.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from gptnode import __version__

__all__ = ["Machine", "Versions", "this_machine", "versions"]

ROOT = Path(__file__).resolve().parent.parent
RIVALS = ("llama-cpp-python", "transformers", "torch")
ASK_VERSIONS = """
import importlib.metadata, json, sys
def version(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
print(json.dumps({name: version(name) for name in sys.argv[1:]}))
"""


@dataclass(frozen=True, slots=True)
class Machine:
    """``cores`` are those that this process may use."""

    cpu: str
    cores: int
    memory_bytes: int
    kernel: str


@dataclass(frozen=True, slots=True)
class Versions:
    """``gptnode`` has the commit behind its number, and ``+`` if files differed from it.

    Those of the rivals are None where the row has no rivals.
    """

    gptnode: str
    python: str
    torch: str
    llama_cpp_python: str | None = None
    transformers: str | None = None
    rivals_torch: str | None = None


def this_machine() -> Machine:
    """The machine that runs this process."""
    return Machine(
        cpu=_cpu_name(),
        cores=len(psutil.Process().cpu_affinity() or ())
        if hasattr(psutil.Process, "cpu_affinity")
        else psutil.cpu_count() or 1,
        memory_bytes=psutil.virtual_memory().total,
        kernel=f"{platform.system()} {platform.release()} {platform.machine()}",
    )


def versions(rivals_python: Path | None) -> Versions:
    """Of this side and, if ``rivals_python`` is given, of what is installed beside it."""
    theirs = _rivals_versions(rivals_python) if rivals_python is not None else {}
    return Versions(
        gptnode=f"{__version__} ({_commit()})",
        python=platform.python_version(),
        torch=importlib.metadata.version("torch"),
        llama_cpp_python=theirs.get("llama-cpp-python"),
        transformers=theirs.get("transformers"),
        rivals_torch=theirs.get("torch"),
    )


def _rivals_versions(python: Path) -> Mapping[str, str | None]:
    asked = subprocess.run(
        [str(python), "-c", ASK_VERSIONS, *RIVALS], capture_output=True, text=True, check=True
    )
    answer: dict[str, str | None] = json.loads(asked.stdout)
    return answer


def _commit() -> str:
    """The commit of the checkout, with ``+`` if there are changes beside it."""
    described = subprocess.run(
        ["git", "describe", "--always", "--exclude=*", "--dirty=+"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return described.stdout.strip() or "no git checkout"


def _cpu_name() -> str:
    """The model's name as the system says it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine()
