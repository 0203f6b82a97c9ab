"""What the recorder asks of CUDA, in which order, on which streams; the real thing where it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gptnode.model.config import ModelConfig
from gptnode.model.cuda_graphs import CudaRecorder
from gptnode.model.kv_cache import KVCache
from gptnode.model.parts import load_blocks
from gptnode.model.shard import BlockStack
from gptnode.model.weights import WeightIndex
from gptnode.span import Span
from tests.model.tiny import random_reference, tensors_of, tiny_config, write_folder

CUDA = torch.device("cuda")
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


class FakeCuda:
    """Stands for ``torch.cuda``: notes what is done on which stream."""

    def __init__(self) -> None:
        self.current = "default"
        self.events: list[str] = []
        self.alive: list[str] = []
        self.breaks: Callable[[], bool] = lambda: False
        self._streams, self._graphs = count(), count()

    def take_the_place_of_cuda(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("device", "stream", "graph", "graph_pool_handle", "current_stream"):
            monkeypatch.setattr(torch.cuda, name, getattr(self, name))
        monkeypatch.setattr(
            torch.cuda, "Stream", lambda: FakeStream(self, f"s{next(self._streams)}")
        )
        monkeypatch.setattr(
            torch.cuda, "CUDAGraph", lambda: FakeGraph(self, f"g{next(self._graphs)}")
        )
        zeros = torch.zeros
        monkeypatch.setattr(torch, "zeros", lambda *size, device: zeros(*size))

    @contextmanager
    def device(self, device: torch.device) -> Iterator[None]:
        assert device == CUDA
        yield

    @contextmanager
    def stream(self, stream: FakeStream) -> Iterator[None]:
        before, self.current = self.current, stream.name
        try:
            yield
        finally:
            self.current = before

    @contextmanager
    def graph(
        self, graph: FakeGraph, pool: str, stream: FakeStream, capture_error_mode: str
    ) -> Iterator[None]:
        before, self.current = self.current, stream.name
        self.events.append(f"{graph.name} captures into {pool}, {capture_error_mode}")
        yield
        if self.breaks():
            raise RuntimeError("capture failed")  # and, like torch, leave the stream set
        self.current = before

    def graph_pool_handle(self) -> str:
        return "pool"

    def current_stream(self) -> FakeStream:
        return FakeStream(self, self.current)

    def work(self) -> Tensor:
        self.events.append(f"work on {self.current}")
        self.attention = (
            torch.backends.cuda.flash_sdp_enabled(),
            torch.backends.cuda.cudnn_sdp_enabled(),
        )
        return torch.empty(1)


class FakeStream:
    def __init__(self, cuda: FakeCuda, name: str) -> None:
        self.name = name
        self._cuda = cuda

    def wait_stream(self, other: FakeStream) -> None:
        self._cuda.events.append(f"{self.name} waits for {other.name}")

    def __enter__(self) -> None:
        self._before, self._cuda.current = self._cuda.current, self.name

    def __exit__(self, *_: object) -> None:
        self._cuda.current = self._before


class FakeGraph:
    def __init__(self, cuda: FakeCuda, name: str) -> None:
        self.name = name
        self._cuda = cuda
        cuda.alive.append(name)

    def replay(self) -> None:
        self._cuda.events.append(f"{self.name} replays")

    def reset(self) -> None:
        self._cuda.alive.remove(self.name)


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    fake = FakeCuda()
    fake.take_the_place_of_cuda(monkeypatch)
    return fake


def test_warming_up_and_capturing_have_a_stream_each_and_one_pool(cuda: FakeCuda) -> None:
    recorder = CudaRecorder(CUDA)
    recorder.record(cuda.work)
    recorder.record(cuda.work)
    warming_up = ["s1 waits for default", "work on s1", "work on s1", "default waits for s1"]
    assert cuda.events == [
        "g0 captures into pool, thread_local",
        *warming_up,
        "g1 captures into pool, thread_local",
        "work on s0",
        *warming_up,
        "g2 captures into pool, thread_local",
        "work on s0",
    ]


def test_the_pool_outlives_all_recordings(cuda: FakeCuda) -> None:
    recorder = CudaRecorder(CUDA)
    recordings = [recorder.record(cuda.work) for _ in range(2)]
    for recording in recordings:
        recording.close()
    assert cuda.alive == ["g0"]


def test_a_recording_replays_its_graph_and_returns_its_memory(cuda: FakeCuda) -> None:
    recording = CudaRecorder(CUDA).record(cuda.work)
    cuda.events.clear()
    assert recording.replay() is recording.result
    assert cuda.events == ["g1 replays"]


def test_attention_that_is_recorded_is_neither_flash_nor_cudnn(cuda: FakeCuda) -> None:
    before = torch.backends.cuda.flash_sdp_enabled(), torch.backends.cuda.cudnn_sdp_enabled()
    CudaRecorder(CUDA).record(cuda.work)
    assert cuda.attention == (False, False)
    assert (
        torch.backends.cuda.flash_sdp_enabled(),
        torch.backends.cuda.cudnn_sdp_enabled(),
    ) == before


def test_a_capture_that_fails_leaves_the_stream_as_it_was(cuda: FakeCuda) -> None:
    recorder = CudaRecorder(CUDA)
    recorder.record(cuda.work)
    cuda.breaks = lambda: True
    with pytest.raises(RuntimeError, match="capture failed"):
        recorder.record(cuda.work)
    assert cuda.current == "default"


# What follows needs a CUDA device.


def stacks(folder: Path, dtype_name: str) -> tuple[BlockStack, BlockStack]:
    """The same blocks on cuda and on the CPU, wide enough for the fused kernels."""
    changes: dict[str, Any] = {"hidden_size": 256, "head_dim": 64, "max_position_embeddings": 2048}
    config = tiny_config(**changes)
    write_folder(folder, config, tensors_of(random_reference(config)))
    loaded, index = ModelConfig.from_folder(folder), WeightIndex.open(folder)
    on_cuda, on_cpu = (
        load_blocks(index, loaded, Span(0, 4), dtype_name, torch.device(name))
        for name in ("cuda", "cpu")
    )
    return on_cuda, on_cpu


def feed(stack: BlockStack, cache: KVCache, counts: list[int]) -> Tensor:
    results = []
    for tokens in counts:
        generator = torch.Generator().manual_seed(cache.length)
        x = torch.randn(1, tokens, stack.config.d_model, generator=generator).to(stack.dtype)
        results.append(stack(x, cache).float().cpu())
    return torch.cat(results, dim=1)


@needs_cuda
@pytest.mark.parametrize(("dtype_name", "limit"), [("f32", 1e-3), ("bf16", 4e-2), ("int8", 4e-2)])
def test_graphs_give_what_the_cpu_gives_also_after_other_caches_went(
    dtype_name: str, limit: float, tmp_path: Path
) -> None:
    fast, slow = stacks(tmp_path, dtype_name)
    kept, expected = fast.new_cache(1100), slow.new_cache(1100)
    for counts in ([254, *[1] * 5], [250, *[1] * 6], [500, *[1] * 15]):
        passing = fast.new_cache(1100)
        feed(fast, passing, [300, 1, 1])
        ours = feed(fast, kept, counts)
        passing.close()  # its graphs go, and with them what cuBLAS kept for their stream
        scratch = torch.full((2**24,), 7.0, device="cuda")
        theirs = feed(slow, expected, counts)
        assert float((ours - theirs).norm() / theirs.norm()) < limit
        assert bool((scratch == 7.0).all())
    kept.truncate(200)
    expected.truncate(200)
    ours, theirs = feed(fast, kept, [1, 1, 1]), feed(slow, expected, [1, 1, 1])
    assert float((ours - theirs).norm() / theirs.norm()) < limit


@needs_cuda
def test_a_pool_takes_new_graphs_after_all_were_let_go(tmp_path: Path) -> None:
    fast, _ = stacks(tmp_path, "bf16")
    results = []
    for _ in range(3):
        cache = fast.new_cache(64)
        results.append(feed(fast, cache, [5, 1, 1]))
        cache.close()
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


@needs_cuda
def test_steps_on_cuda_are_replayed(tmp_path: Path) -> None:
    fast, _ = stacks(tmp_path, "bf16")
    cache = fast.new_cache(64)
    feed(fast, cache, [5, 1])
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        feed(fast, cache, [1])
    names = {event.name for event in profile.events() or ()}
    assert "aten::scaled_dot_product_attention" not in names
