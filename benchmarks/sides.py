"""The sides of a comparison: each runs in a process of its own and answers with the same figures.

All load the same weights, warm up in the same way (the whole prompt and a few steps, not counted),
and count a step as what a chat does: compute, take the likeliest token.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from benchmarks.bench import Bench
from benchmarks.processes import ServerProcess, read_json, run, run_json

__all__ = ["PARTS", "Figures", "Times", "gptnode_bench", "llama_cpp", "transformers"]

WORKERS = Path(__file__).resolve().parent / "workers"


PARTS = ("queue", "compute", "serialise", "wire")


@dataclass(frozen=True, slots=True)
class Times:
    """Where a hop, or the client itself, spent a decode step: milliseconds for each of `PARTS`."""

    name: str
    parts_ms: tuple[float, ...]

    @classmethod
    def of(cls, name: str, answer: Mapping[str, Any]) -> Self:
        """Out of an object with a key for each part."""
        return cls(name, tuple(float(answer[f"{part}_ms"]) for part in PARTS))


@dataclass(frozen=True, slots=True)
class Figures:
    """What a side did. Decode is the median step.

    Rivals have no ``weight_bytes`` and no ``times``. ``peak_bytes`` is the most memory of the
    largest of the servers that were watched.
    """

    prefill_tokens_per_s: float
    decode_tokens_per_s: float
    weight_bytes: int = 0
    times: tuple[Times, ...] = ()
    peak_bytes: int = 0

    @classmethod
    def of(cls, answer: Mapping[str, Any], peak_bytes: int = 0) -> Self:
        """Out of the JSON of `gptnode bench` or of a worker."""
        hops = [Times.of(f"{hop['peer']}", hop) for hop in answer.get("hops", ())]
        client = [Times.of("client", answer["client"])] if "client" in answer else []
        return cls(
            float(answer["prefill_tokens_per_s"]),
            float(answer["decode_tokens_per_s"]),
            int(answer.get("weight_bytes", 0)),
            (*client, *hops),
            peak_bytes,
        )


def gptnode_bench(
    bench: Bench, where: Sequence[str | Path], *, watched: Sequence[ServerProcess] = ()
) -> Figures:
    """`gptnode bench`, where ``where`` is its options for a folder or a map, and for the context.

    Raises:
        GptNodeError: it failed.
    """
    command = [sys.executable, "-m", "gptnode", "bench", *where, *_amount(bench), "--json"]
    ended = run(command, watched=watched)
    return Figures.of(read_json(command, ended.out), ended.peak_bytes)


def llama_cpp(bench: Bench, dtype: str, *, servers: Sequence[str] = ()) -> Figures:
    """llama.cpp in its form of ``dtype``, over RPC ``servers`` (HOST:PORT) if there are any.

    Raises:
        GptNodeError: it failed.
    """
    rpc = [part for server in servers for part in ("--rpc", server)]
    worker = WORKERS / "llama_cpp_bench.py"
    return _rival(bench, [worker, bench.weights.gguf(dtype), *rpc])


def transformers(bench: Bench) -> Figures:
    """Hugging Face transformers in bf16.

    Raises:
        GptNodeError: it failed.
    """
    return _rival(bench, [WORKERS / "transformers_bench.py", bench.weights.folder("bf16")])


def _rival(bench: Bench, script: Sequence[str | Path]) -> Figures:
    command = [bench.weights.rivals_python, *script, *_amount(bench)]
    return Figures.of(run_json(command))


def _amount(bench: Bench) -> list[str]:
    settings = bench.settings
    return [
        *("--prompt-tokens", str(settings.prompt_tokens)),
        *("--tokens", str(settings.tokens)),
        *("--threads", str(settings.threads)),
    ]
