"""From the start of `gptnode serve` with all blocks to its ready line, beyond `import torch`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.bench import Bench, Row
from benchmarks.processes import server_process
from benchmarks.record import Finding, Outcome, Series, Target
from benchmarks.stats import differences
from benchmarks.swarm import running_swarm
from benchmarks.weights import DTYPES

__all__ = ["START_UP"]

IMPORT_TORCH = "import torch; print('ready', flush=True)"
TARGET_DTYPE = "bf16"
BOUND_S = 2.0
CHUNK_BYTES = 16 << 20


def measure_start_up(bench: Bench) -> Outcome:
    """Alternating starts; the files are in the page cache."""
    folders = {dtype: bench.weights.folder(dtype) for dtype in DTYPES}
    for folder in folders.values():
        _read_all(folder)

    def serving_s(folder: Path) -> float:
        with running_swarm(folder, 1, bench.settings.threads) as swarm:
            return swarm.servers[0].ready_s

    sides: dict[str, Callable[[], float]] = {
        "import torch": _import_s,
        **{
            f"gptnode serve, {dtype}": partial(serving_s, folder)
            for dtype, folder in folders.items()
        },
    }
    found = bench.in_turn(sides)
    torch_s = found["import torch"]
    return Outcome(
        tuple(Series(name, "s", tuple(values)) for name, values in found.items()),
        tuple(
            Finding(
                f"start to serving, {dtype}, less import torch",
                "s",
                differences(found[f"gptnode serve, {dtype}"], torch_s),
                Target(BOUND_S, at_least=False) if dtype == TARGET_DTYPE else None,
            )
            for dtype in DTYPES
        ),
        ("from before the process is started to its ready line, all 16 blocks",),
    )


def _import_s() -> float:
    with server_process([sys.executable, "-c", IMPORT_TORCH]) as process:
        return process.ready_s


def _read_all(folder: Path) -> None:
    """Fill the page cache."""
    for path in folder.glob("*.safetensors"):
        with path.open("rb", buffering=0) as file:
            while file.read(CHUNK_BYTES):
                pass


START_UP = Row("start-up", "from start to serving, beyond `import torch`", measure_start_up)
