"""Steps are recorded once for each cache and bucket, and let go with the cache."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from structlog.testing import capture_logs
from torch import Tensor

from gptnode.errors import ContextError
from gptnode.model.config import ModelConfig
from gptnode.model.kv_cache import KVCache
from gptnode.model.parts import load_blocks
from gptnode.model.shard import BlockStack
from gptnode.model.step_graphs import GraphMaker
from gptnode.model.weights import WeightIndex
from gptnode.span import Span
from tests.model.recorders import FakeRecorder
from tests.model.tiny import CPU, random_reference, tensors_of, tiny_config, write_folder

SPAN = Span(0, 4)


@pytest.fixture
def recorder() -> FakeRecorder:
    return FakeRecorder()


def plain_stack(folder: Path, **changes: Any) -> BlockStack:
    config = tiny_config(**changes)
    write_folder(folder, config, tensors_of(random_reference(config)))
    loaded = ModelConfig.from_folder(folder)
    return load_blocks(WeightIndex.open(folder), loaded, SPAN, "f32", CPU)


def recording_stack(plain: BlockStack, recorder: FakeRecorder) -> BlockStack:
    """The blocks of ``plain``, with steps recorded as on cuda."""
    maker = GraphMaker(recorder)
    return BlockStack(plain.config, plain.span, plain.blocks, plain.dtype, CPU, maker)


def hidden(tokens: int, seed: int = 0) -> Tensor:
    return torch.randn(1, tokens, 32, generator=torch.Generator().manual_seed(seed))


def feed(stack: BlockStack, cache: KVCache, counts: list[int]) -> Tensor:
    """Steps of so many tokens each, (1, sum, D); the same for the same positions."""
    return torch.cat([stack(hidden(count, seed=cache.length), cache) for count in counts], dim=1)


def assert_same(left: Tensor, right: Tensor) -> None:
    torch.testing.assert_close(left, right, atol=2e-5, rtol=2e-5)


def test_each_bucket_is_recorded_once_and_replayed_from_then_on(
    recorder: FakeRecorder, tmp_path: Path
) -> None:
    plain = plain_stack(tmp_path)
    stack, counts = recording_stack(plain, recorder), [250, *[1] * 10, 250, *[1] * 6]
    fast, slow = stack.new_cache(1024), plain.new_cache(1024)
    assert_same(feed(stack, fast, counts), feed(plain, slow, counts))
    assert recorder.replays == [6, 4 + 2, 4]  # up to 256, up to 512, up to 1024
    assert recorder.asked == 3


def test_what_was_cut_off_is_computed_again_with_the_bucket_of_its_length(
    recorder: FakeRecorder, tmp_path: Path
) -> None:
    plain = plain_stack(tmp_path)
    stack = recording_stack(plain, recorder)
    fast, slow = stack.new_cache(600), plain.new_cache(600)
    for counts, keep in (([510, 1, 1, 1], 100), ([1, 1], 101), ([160, 1], 0), ([1, 1, 1], 3)):
        assert_same(feed(stack, fast, counts), feed(plain, slow, counts))
        fast.truncate(keep)
        slow.truncate(keep)
    assert recorder.replays == [2 + 1, 1, 2 + 3]  # up to 512, 600 and 256
    assert recorder.asked == 3


def test_caches_share_no_recording(recorder: FakeRecorder, tmp_path: Path) -> None:
    plain = plain_stack(tmp_path)
    stack = recording_stack(plain, recorder)
    caches = [stack.new_cache(64) for _ in range(2)]
    expected = plain.new_cache(64)
    for cache, prompt in zip(caches, (5, 9), strict=True):
        feed(stack, cache, [prompt])
    results = [feed(stack, cache, [1]) for cache in caches]
    again = [feed(stack, cache, [1]) for cache in caches]
    assert recorder.replays == [2, 2]
    feed(plain, expected, [5])
    assert_same(results[0], feed(plain, expected, [1]))
    assert_same(again[0], feed(plain, expected, [1]))


def test_a_result_outlives_the_next_step(recorder: FakeRecorder, tmp_path: Path) -> None:
    stack = recording_stack(plain_stack(tmp_path), recorder)
    cache = stack.new_cache(64)
    first = stack(hidden(1), cache)
    before = first.clone()
    stack(hidden(1, seed=1), cache)
    assert torch.equal(first, before)


def test_parts_of_a_stack_record_too(recorder: FakeRecorder, tmp_path: Path) -> None:
    plain = plain_stack(tmp_path)
    part = recording_stack(plain, recorder).part(Span(1, 3))
    counts = [4, 1, 1]
    fast, slow = part.new_cache(64), plain.part(Span(1, 3)).new_cache(64)
    assert_same(feed(part, fast, counts), feed(plain.part(Span(1, 3)), slow, counts))
    assert recorder.replays == [2]


def test_prompts_and_batches_are_not_recorded(recorder: FakeRecorder, tmp_path: Path) -> None:
    stack = recording_stack(plain_stack(tmp_path), recorder)
    feed(stack, stack.new_cache(64), [2, 3])
    rows = KVCache(stack.config, SPAN, 64, stack.dtype, batch=2)
    stack(hidden(2).view(2, 1, 32), rows)
    assert recorder.asked == 0


def test_a_stack_on_the_cpu_records_nothing_by_itself(tmp_path: Path) -> None:
    stack = plain_stack(tmp_path)
    cache = stack.new_cache(16)
    with capture_logs() as logs:
        stack(hidden(1), cache)
    assert (cache.length, logs) == (1, [])


def test_a_closed_cache_takes_its_recordings_and_its_memory_along(
    recorder: FakeRecorder, tmp_path: Path
) -> None:
    stack = recording_stack(plain_stack(tmp_path), recorder)
    closed, open_ = stack.new_cache(600), stack.new_cache(600)
    feed(stack, closed, [255, 1, 1])
    feed(stack, open_, [1])
    region = weakref.ref(closed.regions()[0][0])
    closed.close()
    assert [recording.closed for recording in recorder.made] == [True, True, False]
    gc.collect()
    assert region() is None
    feed(stack, open_, [1])
    with pytest.raises(ValueError, match="closed"):
        stack(hidden(1), closed)


def test_a_cache_that_nobody_closed_keeps_nothing_alive(
    recorder: FakeRecorder, tmp_path: Path
) -> None:
    stack = recording_stack(plain_stack(tmp_path), recorder)
    cache = stack.new_cache(64)
    feed(stack, cache, [3, 1])
    region = weakref.ref(cache.regions()[0][0])
    recorder.made.clear()
    del cache
    gc.collect()
    assert region() is None


def test_a_step_that_cannot_be_recorded_runs_ordinarily_with_one_line_in_the_log(
    tmp_path: Path,
) -> None:
    plain, recorder = plain_stack(tmp_path), FakeRecorder(fails_from=0)
    stack, counts = recording_stack(plain, recorder), [3, 1, 1, 1]
    fast, slow = stack.new_cache(64), plain.new_cache(64)
    with capture_logs() as logs:
        assert torch.equal(feed(stack, fast, counts), feed(plain, slow, counts))
        feed(stack.part(Span(0, 2)), stack.part(Span(0, 2)).new_cache(64), [1])
    assert recorder.asked == 1
    assert logs == [
        {
            "event": "steps run without graphs",
            "reason": "operation not permitted when stream is capturing",
            "log_level": "warning",
        }
    ]


def test_what_was_recorded_before_a_failure_is_still_replayed(tmp_path: Path) -> None:
    plain, recorder = plain_stack(tmp_path), FakeRecorder(fails_from=1)
    stack, counts = recording_stack(plain, recorder), [254, 1, 1, 1, 1]
    fast, slow = stack.new_cache(600), plain.new_cache(600)
    with capture_logs() as logs:
        assert_same(feed(stack, fast, counts), feed(plain, slow, counts))
        fast.truncate(10)
        slow.truncate(10)
        assert_same(feed(stack, fast, [1]), feed(plain, slow, [1]))
    assert (recorder.asked, recorder.replays, len(logs)) == (2, [3], 1)


def test_dynamic_rotations_past_the_original_length_are_computed_ordinarily(
    recorder: FakeRecorder, tmp_path: Path
) -> None:
    rope = {"rope_type": "dynamic", "rope_theta": 10_000.0, "factor": 4.0}
    plain = plain_stack(tmp_path, rope_parameters=rope)  # made for 64 positions
    stack, counts = recording_stack(plain, recorder), [60, *[1] * 8]
    fast, slow = stack.new_cache(128), plain.new_cache(128)
    assert_same(feed(stack, fast, counts), feed(plain, slow, counts))
    assert recorder.replays == [4]


def test_a_full_cache_is_said_to_be_full_and_nothing_is_recorded(
    recorder: FakeRecorder, tmp_path: Path
) -> None:
    stack = recording_stack(plain_stack(tmp_path), recorder)
    cache = stack.new_cache(3)
    feed(stack, cache, [3])
    with pytest.raises(ContextError, match="4 tokens don't fit"):
        stack(hidden(1), cache)
    assert (cache.length, recorder.asked) == (3, 0)


def test_nan_that_a_refused_prompt_left_in_the_cache_is_not_read(
    recorder: FakeRecorder, tmp_path: Path
) -> None:
    plain = plain_stack(tmp_path)
    stack = recording_stack(plain, recorder)
    fast, slow = stack.new_cache(64), plain.new_cache(64)
    assert_same(feed(stack, fast, [5, 1]), feed(plain, slow, [5, 1]))
    stack(torch.full((1, 9, 32), float("nan")), fast)
    fast.truncate(6)
    assert_same(feed(stack, fast, [1, 1]), feed(plain, slow, [1, 1]))
