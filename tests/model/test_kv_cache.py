"""The cache never moves history, and takes and gives back memory page by page."""

from __future__ import annotations

import gc
import mmap
from dataclasses import replace

import psutil
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gptnode.errors import ContextError
from gptnode.model.config import ModelConfig
from gptnode.model.kv_cache import KVCache, kv_bytes_per_token
from gptnode.span import Span
from tests.model.tiny import tiny_config

SPAN = Span(2, 4)
SMALL = ModelConfig.from_json(tiny_config())
LARGE = replace(SMALL, n_heads=32, n_kv_heads=8, head_dim=128)  # 4 KiB a token in f32
MIB = 2**20


def tokens_of(config: ModelConfig, count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (2, 1, count, config.n_kv_heads, config.head_dim)
    keys, values = torch.randn(shape, generator=generator)
    return keys, values


def grow(cache: KVCache, config: ModelConfig, count: int, seed: int = 0) -> None:
    append_all(cache, *tokens_of(config, count, seed))


def append_all(cache: KVCache, keys: Tensor, values: Tensor) -> None:
    for block in cache.span:
        cache.append(block, keys, values)
    cache.advance(keys.shape[1])


def resident() -> int:
    gc.collect()
    return int(psutil.Process().memory_info().rss)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 40), st.floats(0, 1)), max_size=8))
def test_the_history_is_what_was_appended_and_not_truncated(
    steps: list[tuple[int, float]],
) -> None:
    cache = KVCache(SMALL, SPAN, 400, torch.float32)
    expected = torch.empty(1, 0, SMALL.n_kv_heads, SMALL.head_dim)
    for seed, (count, keep) in enumerate(steps):
        keys, values = tokens_of(SMALL, count, seed)
        expected = torch.cat([expected, keys], dim=1)
        for block in SPAN:
            all_keys, all_values = cache.append(block, keys * block, values - values + block)
            assert torch.equal(all_keys, expected * block)
            assert all_values.shape == expected.shape
            assert bool((all_values == block).all())
        cache.advance(count)
        length = int(cache.length * keep)
        cache.truncate(length)
        expected = expected[:, :length]
        assert cache.length == length


def test_appending_never_moves_history() -> None:
    cache = KVCache(LARGE, SPAN, 2000, torch.float32)
    places = set()
    for _ in range(50):
        keys, values = tokens_of(LARGE, 7)
        for block in SPAN:
            for history in cache.append(block, keys, values):
                places.add(history.data_ptr())
        cache.advance(7)
    assert len(places) == 2 * len(SPAN)


def test_appending_allocates_nothing_however_long_the_history_is() -> None:
    cache = KVCache(LARGE, SPAN, 2000, torch.float32)
    grow(cache, LARGE, 1500)
    keys, values = tokens_of(LARGE, 1)
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        cache.append(SPAN.start, keys, values)
    events = profile.events()
    assert events is not None
    assert sum(max(0, event.self_cpu_memory_usage) for event in events) == 0


def test_resident_memory_grows_with_use_and_goes_back() -> None:
    new = tokens_of(LARGE, 256)  # before the first measurement: theirs isn't the cache's memory
    empty = resident()
    cache = KVCache(LARGE, SPAN, 100_000, torch.float32)
    assert cache.bytes_reserved == 4 * 100_000 * 4096
    assert cache.bytes_in_use == 0
    assert resident() - empty < 4 * MIB
    for _ in range(16):
        append_all(cache, *new)
    full = resident()
    assert cache.bytes_in_use == 64 * MIB
    assert 62 * MIB < full - empty < 74 * MIB
    cache.truncate(1024)
    assert cache.bytes_in_use == 16 * MIB
    assert 44 * MIB < full - resident() < 52 * MIB
    for _ in range(8):
        append_all(cache, *new)
    assert 28 * MIB < resident() - (full - 48 * MIB) < 40 * MIB
    del cache
    assert resident() - empty < 10 * MIB


def test_close_gives_memory_back_even_if_someone_still_refers_to_the_cache() -> None:
    cache, new = KVCache(LARGE, SPAN, 10_000, torch.float32), tokens_of(LARGE, 256)
    empty = resident()
    for _ in range(8):
        append_all(cache, *new)
    full = resident()
    cache.close()
    cache.close()
    assert full - resident() > 28 * MIB
    assert resident() - empty < 10 * MIB
    assert cache.bytes_in_use == cache.bytes_reserved == 0
    with pytest.raises(ValueError, match="closed"):
        cache.append(SPAN.start, *tokens_of(LARGE, 1))


def test_bytes_in_use_are_whole_pages() -> None:
    cache = KVCache(SMALL, SPAN, 1000, torch.float32)  # 64 bytes a token
    assert cache.page_tokens == mmap.PAGESIZE // 64
    grow(cache, SMALL, 1)
    assert cache.bytes_in_use == 4 * mmap.PAGESIZE
    grow(cache, SMALL, cache.page_tokens)
    assert cache.bytes_in_use == 8 * mmap.PAGESIZE
    cache.truncate(cache.page_tokens)
    assert cache.bytes_in_use == 4 * mmap.PAGESIZE


def test_a_full_cache_says_so_and_stays_as_it_was() -> None:
    cache = KVCache(SMALL, SPAN, 10, torch.float32)
    grow(cache, SMALL, 10)
    with pytest.raises(ContextError, match="11 tokens don't fit in a context of 10"):
        cache.append(SPAN.start, *tokens_of(SMALL, 1))
    assert cache.length == 10


def test_room_that_no_machine_has_is_an_error_of_the_context() -> None:
    with pytest.raises(ContextError, match="no memory for a context of"):
        KVCache(LARGE, SPAN, 2**50, torch.float32)


def test_a_step_that_skipped_a_block_is_not_advanced() -> None:
    cache = KVCache(SMALL, SPAN, 10, torch.float32)
    cache.append(SPAN.start, *tokens_of(SMALL, 2))
    with pytest.raises(ValueError, match="not every block"):
        cache.advance(2)
    assert cache.length == 0


@pytest.mark.parametrize("length", [-1, 3])
def test_truncating_to_what_was_never_there_is_refused(length: int) -> None:
    cache = KVCache(SMALL, SPAN, 10, torch.float32)
    grow(cache, SMALL, 2)
    with pytest.raises(ValueError, match="truncate"):
        cache.truncate(length)


def test_tensors_that_would_be_broadcast_or_cast_are_refused() -> None:
    cache = KVCache(SMALL, SPAN, 10, torch.float32)
    keys, values = tokens_of(SMALL, 2)
    for wrong in (keys[..., :1], keys.half(), keys[:, :, :1], keys[:, :1], keys.repeat(2, 1, 1, 1)):
        with pytest.raises(ValueError, match="append"):
            cache.append(SPAN.start, wrong, values)
    with pytest.raises(ValueError, match="block 4"):
        cache.append(4, keys, values)


def test_bytes_a_token_are_what_the_cache_reserves() -> None:
    cache = KVCache(LARGE, SPAN, 512, torch.bfloat16)
    assert cache.bytes_reserved == 512 * kv_bytes_per_token(LARGE, len(SPAN), torch.bfloat16)


def test_regions_are_where_tokens_lie_as_long_as_the_cache_is_open() -> None:
    cache = KVCache(SMALL, SPAN, 10, torch.float32)
    keys, values = tokens_of(SMALL, 3)
    append_all(cache, keys, values)
    regions = cache.regions()
    assert len(regions) == len(SPAN)
    for key_region, value_region in regions:
        assert key_region.shape == (10, 1, SMALL.n_kv_heads, SMALL.head_dim)
        assert torch.equal(key_region[:3].transpose(0, 1), keys)
        assert torch.equal(value_region[:3].transpose(0, 1), values)
        assert not key_region[3:].any()
    cache.close()
    assert cache.regions() == []


def test_wiping_zeroes_what_is_no_part_of_the_context() -> None:
    cache = KVCache(SMALL, SPAN, 10, torch.float32)
    keys, values = tokens_of(SMALL, 6)
    append_all(cache, keys, values)
    cache.append(SPAN.start, *tokens_of(SMALL, 3))  # a step that came no further
    cache.truncate(4)
    cache.wipe()
    for region in (part for pair in cache.regions() for part in pair):
        assert not region[4:].any()
    assert torch.equal(cache.regions()[0][0][:4].transpose(0, 1), keys[:, :4])
    cache.claim(1)
    cache.regions()[1][1][4] = 1.0  # another that claimed its room and failed
    cache.wipe()
    assert not cache.regions()[1][1][4:].any()


def test_who_asked_is_told_once_that_the_cache_is_closed() -> None:
    cache = KVCache(SMALL, SPAN, 10, torch.float32)
    told: list[int] = []
    cache.on_close(lambda: told.append(len(cache.regions())))
    cache.close()
    cache.close()
    assert told == [len(SPAN)]
