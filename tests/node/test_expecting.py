"""Who is expected back, and until when."""

from __future__ import annotations

import gc
from collections.abc import Callable

import pytest

from gptnode.model.kv_cache import KVCache
from gptnode.model.shard import BlockStack
from gptnode.node.expecting import Expected
from gptnode.node.loading import ModelSource
from gptnode.span import Span


@pytest.fixture
def stack(source: ModelSource) -> BlockStack:
    return source.load_blocks(Span(0, 1))


def used_to(expected: Expected, stack: BlockStack, gap_s: float, *, answered_at: float) -> KVCache:
    """A context that always asked ``gap_s`` after its answer, and was answered now."""
    cache = stack.new_cache(8)
    expected.answered(cache, stack, 0.0)
    expected.asked(cache, gap_s)
    expected.answered(cache, stack, answered_at)
    return cache


def saves(time_s: float) -> Callable[[int], float]:
    """However many come."""
    return lambda _: time_s


def test_nobody_is_waited_for_who_was_never_back(stack: BlockStack) -> None:
    expected, cache = Expected(), stack.new_cache(8)
    assert expected.worth_waiting(stack, 10.0, 1.0, saves(1.0)) is None
    expected.answered(cache, stack, 10.0)
    assert expected.worth_waiting(stack, 10.0, 1.0, saves(1.0)) is None


def test_who_should_be_back_in_time_is_waited_for_a_little_longer_than_usual(
    stack: BlockStack,
) -> None:
    expected = Expected()
    cache = used_to(expected, stack, 0.25, answered_at=10.0)
    assert expected.worth_waiting(stack, 10.0, 1.0, saves(1.0)) == 10.375
    assert expected.worth_waiting(stack, 10.3, 1.0, saves(0.06)) == pytest.approx(10.36)
    assert expected.worth_waiting(stack, 10.3, 1.0, saves(0.5)) == 10.375
    assert expected.worth_waiting(stack, 10.3, 1.0, saves(0.0)) is None, "it saves nothing"
    assert expected.worth_waiting(stack, 10.0, 1.0, saves(0.3)) == 10.3, "it saves no more"
    assert expected.worth_waiting(stack, 10.4, 1.0, saves(1.0)) is None, "late"
    assert expected.worth_waiting(stack, 10.0, 1.0, saves(0.2)) is None, "not back in time"
    expected.asked(cache, 10.3)
    assert expected.worth_waiting(stack, 10.3, 1.0, saves(1.0)) is None, "here"


def test_as_many_are_waited_for_as_it_pays_for(stack: BlockStack) -> None:
    expected = Expected()
    gaps_s = (0.1, 0.2, 0.8)
    caches = [used_to(expected, stack, gap_s, answered_at=10.0) for gap_s in gaps_s]
    each_saves = {1: 0.15, 2: 0.31, 3: 0.4}.__getitem__
    assert expected.worth_waiting(stack, 10.0, 1.0, each_saves) == pytest.approx(10.3)
    each_saves = {1: 0.15, 2: 0.1, 3: 0.9}.__getitem__
    assert expected.worth_waiting(stack, 10.0, 1.0, each_saves) == pytest.approx(10.9)
    each_saves = {1: 0.05, 2: 0.1, 3: 0.2}.__getitem__
    assert expected.worth_waiting(stack, 10.0, 1.0, each_saves) is None
    each_saves = {1: 0.15, 2: 0.31, 3: 0.9}.__getitem__
    assert expected.worth_waiting(stack, 10.0, 0.5, each_saves) == pytest.approx(10.3)
    assert len(caches) == 3


def test_a_context_over_other_blocks_is_not_waited_for(
    stack: BlockStack, source: ModelSource
) -> None:
    expected = Expected()
    cache = used_to(expected, source.load_blocks(Span(0, 1)), 0.25, answered_at=10.0)
    assert expected.worth_waiting(stack, 10.0, 1.0, saves(1.0)) is None
    assert cache.length == 0


def test_who_takes_longer_now_is_soon_not_waited_for(stack: BlockStack) -> None:
    expected = Expected()
    cache = used_to(expected, stack, 0.1, answered_at=10.0)
    expected.asked(cache, 12.0)
    expected.answered(cache, stack, 13.0)
    assert expected.worth_waiting(stack, 13.0, 1.0, saves(1.0)) is None


def test_a_context_that_is_gone_is_not_waited_for(stack: BlockStack) -> None:
    expected = Expected()
    cache = used_to(expected, stack, 0.25, answered_at=10.0)
    del cache
    gc.collect()
    assert expected.worth_waiting(stack, 10.0, 1.0, saves(1.0)) is None
