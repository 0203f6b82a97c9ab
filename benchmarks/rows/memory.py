"""Resident memory of a serving node, less the weights of its blocks and the keys and values."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from benchmarks.bench import Bench, Row
from benchmarks.record import Finding, Outcome, Series, Target
from benchmarks.sides import gptnode_bench
from benchmarks.swarm import running_swarm
from benchmarks.weights import DTYPES, KV_BYTES_PER_TOKEN, block_bytes

__all__ = ["MEMORY"]

MB = 1e6
BOUND_MB = 350


@dataclass(frozen=True, slots=True)
class Resident:
    """Bytes of one server: the most while a session ran, and what stayed after it."""

    peak_bytes: int
    after_bytes: int


def measure_memory(bench: Bench) -> Outcome:
    """A server with all blocks, used by one session that touches all of them."""
    folders = {dtype: bench.weights.folder(dtype) for dtype in DTYPES}

    def resident(dtype: str) -> Resident:
        with running_swarm(folders[dtype], 1, bench.settings.threads) as swarm:
            figures = gptnode_bench(bench, swarm.where, watched=swarm.servers)
            return Resident(figures.peak_bytes, swarm.servers[0].resident_bytes)

    found = bench.in_turn({f"gptnode serve, {dtype}": partial(resident, dtype) for dtype in DTYPES})
    # At the peak the prompt at least is cached; the later tokens count as ours.
    kv_bytes = bench.settings.prompt_tokens * KV_BYTES_PER_TOKEN
    series, findings, notes = [], [], []
    for dtype, each in zip(DTYPES, found.values(), strict=True):
        weight_bytes = block_bytes(folders[dtype])
        peaks = tuple(one.peak_bytes / MB for one in each)
        after = tuple(one.after_bytes / MB for one in each)
        series += [
            Series(f"{dtype}: most while a session runs", "MB", peaks),
            Series(f"{dtype}: after it", "MB", after),
        ]
        beyond = tuple(peak - (weight_bytes + kv_bytes) / MB for peak in peaks)
        target = Target(BOUND_MB, at_least=False)
        findings.append(Finding(f"{dtype}: beyond weights and KV", "MB", beyond, target))
        notes.append(f"{dtype}: weights of the blocks {weight_bytes / MB:,.0f} MB")
    notes.append(f"keys and values of the prompt {kv_bytes / MB:,.0f} MB")
    return Outcome(tuple(series), tuple(findings), tuple(notes))


MEMORY = Row("memory", "resident memory of a serving node over weights and KV", measure_memory)
