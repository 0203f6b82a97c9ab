"""What a pipeline has computed, step by step, so that one hop can be filled again by itself.

The ids of each step are kept, and what each peer's hop was given for it. Filling a hop means giving
it the same steps again, which leaves the other hops alone and, since matrix products round by
shape, makes the same bits. Knows no peers and no clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["REPLAY_BYTES", "Replay", "ReplayLog", "SentStep"]

REPLAY_BYTES = 256 << 20
"""Of activations that a node keeps, for all of its contexts together."""


@dataclass(slots=True)
class SentStep:
    """A step that all hops have answered.

    ``inputs``: what the hop that begins at a block was given, (1, T, D) in memory of the CPU.
    """

    position: int
    ids: tuple[int, ...]
    inputs: dict[int, Tensor]


@dataclass(frozen=True, slots=True)
class Replay:
    """Steps to give again as one; ``hidden`` is None where they begin with the ids."""

    steps: tuple[SentStep, ...]
    hidden: Tensor | None

    @property
    def position(self) -> int:
        """Of the first token."""
        return self.steps[0].position

    @property
    def ids(self) -> list[int]:
        """Of all tokens."""
        return [token for step in self.steps for token in step.ids]


class ReplayLog:
    """The steps that made the caches what they are, in order.

    A step may reach past the position at which the next one begins: what came after that position
    was taken back, and giving both again does the same.

    Resource handling: holds at most ``limit_bytes`` of activations. Beyond that it lets all of
    them go and is ``over``, until it is cut to nothing: the ids alone remain.
    """

    def __init__(self, *, limit_bytes: int = REPLAY_BYTES) -> None:
        """No steps yet."""
        self.over = False
        self.limit_bytes = limit_bytes
        self._bytes = 0
        self._steps: list[SentStep] = []

    def __len__(self) -> int:
        """How many steps there are."""
        return len(self._steps)

    @property
    def held_bytes(self) -> int:
        """Memory of the activations."""
        return self._bytes

    def record(self, position: int, ids: tuple[int, ...], inputs: Mapping[int, Tensor]) -> None:
        """A step at ``position`` was answered by all hops."""
        step = SentStep(position, ids, {})
        self._steps.append(step)
        for block, hidden in inputs.items():
            if block > 0:  # what block 0 gets follows from the ids
                self._put(step, block, hidden)

    def fill(self, replay: Replay, block: int, hidden: Tensor) -> None:
        """``replay`` gave ``hidden`` (1, T, D) to the hop that begins at ``block``."""
        start = 0
        for step in replay.steps:
            stop = start + len(step.ids)
            self._put(step, block, hidden[:, start:stop])
            start = stop

    def cut(self, length: int) -> None:
        """All tokens from position ``length`` on are taken back."""
        while self._steps and self._steps[-1].position >= length:
            for hidden in self._steps.pop().inputs.values():
                self._bytes -= hidden.nbytes
        if not self._steps:
            self.over = False

    def keep(self, blocks: set[int]) -> None:
        """Let go of what is kept for hops that begin elsewhere than at ``blocks``."""
        for step in self._steps:
            for block in step.inputs.keys() - blocks:
                self._bytes -= step.inputs.pop(block).nbytes

    def source(self, block: int) -> int:
        """The last block at or before ``block`` from which all steps can be given again.

        0 at the worst, where ids go in.
        """
        known = set(self._steps[0].inputs) if self._steps else set()
        for step in self._steps:
            known.intersection_update(step.inputs)
        return max((start for start in known if start <= block), default=0)

    def replays(self, block: int, *, max_rows: int = 1) -> list[Replay]:
        """The steps again, as the hop that begins at ``block`` was given them.

        Neighbouring steps of one token are joined to at most ``max_rows``: for where a row is the
        same to the bit, alone or among others.
        """
        runs: list[list[SentStep]] = []
        for step in self._steps:
            run = runs[-1] if runs else []
            joins = (
                0 < len(run) < max_rows
                and len(step.ids) == len(run[-1].ids) == 1
                and step.position == run[-1].position + 1
            )
            if joins:
                run.append(step)
            else:
                runs.append([step])
        return [_joined(run, block) for run in runs]

    def _put(self, step: SentStep, block: int, hidden: Tensor) -> None:
        if self.over:
            return
        before = step.inputs.get(block)
        # A copy: what came out of a stage may be memory that its next step writes to.
        step.inputs[block] = hidden.detach().to("cpu", copy=True)
        self._bytes += hidden.nbytes - (before.nbytes if before is not None else 0)
        if self._bytes > self.limit_bytes:
            self.over = True
            self.keep(set())


def _joined(run: list[SentStep], block: int) -> Replay:
    if block == 0:
        return Replay(tuple(run), None)
    inputs = [step.inputs[block] for step in run]
    return Replay(tuple(run), inputs[0] if len(inputs) == 1 else torch.cat(inputs, dim=1))
