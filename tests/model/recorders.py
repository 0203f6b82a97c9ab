"""Recorders that record on the CPU, with the habits of a device that bite."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


class FakeRecording:
    """Calls the work again. Its result lies where every other recording's lies."""

    def __init__(self, recorder: FakeRecorder, work: Callable[[], Tensor]) -> None:
        self.replays = 0
        self.closed = False
        self._recorder = recorder
        self._work: Callable[[], Tensor] | None = work

    def replay(self) -> Tensor:
        assert self._work is not None, "replayed after it was closed"
        self.replays += 1
        result = self._work()
        if self._recorder.memory is None:
            self._recorder.memory = torch.empty_like(result)
        return self._recorder.memory.copy_(result)

    def close(self) -> None:
        assert not self.closed
        self.closed, self._work = True, None


class FakeRecorder:
    """Counts; fails from the recording number ``fails_from`` on."""

    def __init__(self, fails_from: int | None = None) -> None:
        self.memory: Tensor | None = None
        self.made: list[FakeRecording] = []
        self.asked = 0
        self._fails_from = fails_from

    @property
    def replays(self) -> list[int]:
        """How often each recording was replayed, in the order they were made."""
        return [recording.replays for recording in self.made]

    def record(self, work: Callable[[], Tensor]) -> FakeRecording:
        number, self.asked = self.asked, self.asked + 1
        work()  # warming up does the work
        if self._fails_from is not None and number >= self._fails_from:
            raise RuntimeError("operation not permitted when stream is capturing\nCUDA kernel ...")
        self.made.append(FakeRecording(self, work))
        return self.made[-1]
