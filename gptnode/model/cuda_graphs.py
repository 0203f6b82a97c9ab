"""Recordings on CUDA devices: `torch.cuda.CUDAGraph`, as `gptnode.model.step_graphs` wants them.

What makes a graph go wrong long after it was captured is other users of its memory, so

- All graphs of a recorder share one pool, which is safe as they never run at once, and a graph that
  is never replayed keeps the pool alive: torch refuses a pool whose last graph is gone.
- cuBLAS has one workspace for each stream, and a graph remembers its address. It must come from the
  pool, so it is first asked for within a capture: the capturing stream does nothing else, and
  warming up has a stream of its own. torch frees the workspace with the first graph of the stream
  that goes; being the pool's, the memory stays, for whoever captures next.

It knows no blocks and no caches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

__all__ = ["CudaRecorder", "CudaRecording"]

WARM_UP_RUNS: Final = 2
"""Before a capture: libraries are loaded and choose their algorithms, which can't be captured."""

MASKED_ATTENTION: Final = (SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH)
"""Flash takes no mask; cuDNN's choice of kernel for one row is not everywhere right."""


@dataclass(frozen=True, slots=True)
class CudaRecording:
    """A captured graph, and the tensor in its memory where the result will be."""

    graph: torch.cuda.CUDAGraph
    result: Tensor

    def replay(self) -> Tensor:
        """Launch it on the current stream; who waits for that stream has the result."""
        self.graph.replay()
        return self.result

    def close(self) -> None:
        """Destroy the graph; what runs of it now goes on to its end."""
        self.graph.reset()


@dataclass(frozen=True, slots=True)
class _Pool:
    """The memory of a recorder's graphs, and the streams that fill it."""

    handle: Any
    warming: torch.cuda.Stream
    capturing: torch.cuda.Stream
    anchor: torch.cuda.CUDAGraph


class CudaRecorder:
    """Captures graphs on one device. Capturing and replaying belong to one thread.

    Other threads may use the device meanwhile, also to allocate.

    Resource handling: the pool, about as large as one step's temporary tensors, goes with the
    recorder and the last of its recordings.
    """

    def __init__(self, device: torch.device) -> None:
        """Nothing is done on ``device`` yet."""
        self._device = device
        self._pool: _Pool | None = None

    def record(self, work: Callable[[], Tensor]) -> CudaRecording:
        """Run ``work`` twice and capture it once more.

        Raises:
            RuntimeError: it does what can't be captured, or memory is short.
        """
        with torch.cuda.device(self._device), sdpa_kernel(list(MASKED_ATTENTION)):
            if self._pool is None:
                self._pool = _new_pool(self._device)
            pool, current = self._pool, torch.cuda.current_stream()
            pool.warming.wait_stream(current)
            with torch.cuda.stream(pool.warming):
                for _ in range(WARM_UP_RUNS):
                    work()
            current.wait_stream(pool.warming)
            graph = torch.cuda.CUDAGraph()
            return CudaRecording(graph, _capture(graph, pool.handle, pool.capturing, work))


def _new_pool(device: torch.device) -> _Pool:
    new_stream: Any = torch.cuda.Stream  # without types
    handle, capturing, anchor = torch.cuda.graph_pool_handle(), new_stream(), torch.cuda.CUDAGraph()
    # Not empty, which torch would warn of.
    _capture(anchor, handle, capturing, lambda: torch.zeros(1, device=device))
    return _Pool(handle, new_stream(), capturing, anchor)


def _capture(
    graph: torch.cuda.CUDAGraph, pool: Any, stream: torch.cuda.Stream, work: Callable[[], Tensor]
) -> Tensor:
    # The outer context is for torch, which leaves its stream set when a capture fails.
    with (
        torch.cuda.stream(torch.cuda.current_stream()),
        # Only what this thread does can spoil the capture: others may allocate.
        torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"),
    ):
        return work()
