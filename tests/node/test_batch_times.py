"""What batches take, and what joining saves."""

from __future__ import annotations

import gc

import pytest

from gptnode.model.shard import BlockStack
from gptnode.node.batch_times import NEW_SHARE, ROWS_A_READING, BatchTimes
from gptnode.node.loading import ModelSource
from gptnode.span import Span


@pytest.fixture
def stack(source: ModelSource) -> BlockStack:
    return source.load_blocks(Span(0, 1))


def test_nothing_is_known_before_the_first_batch(stack: BlockStack) -> None:
    times = BatchTimes()
    assert times.usual_s(stack, 8) == 0.0
    assert times.saved_s(stack, 8, 8) == 0.0


def test_a_size_seen_takes_what_it_took_and_others_are_judged_by_the_nearest(
    stack: BlockStack,
) -> None:
    times = BatchTimes()
    times.took(stack, 1, 1.0)
    assert times.usual_s(stack, 1) == 1.0
    assert times.usual_s(stack, 6) == (ROWS_A_READING + 6) / (ROWS_A_READING + 1)
    times.took(stack, 8, 1.1)
    assert times.usual_s(stack, 8) == 1.1
    assert times.usual_s(stack, 6) < 1.1
    times.took(stack, 1, 2.0)
    assert times.usual_s(stack, 1) == 1.0 + NEW_SHARE


def test_joining_saves_what_two_take_more_than_one(stack: BlockStack) -> None:
    times = BatchTimes()
    times.took(stack, 8, 0.080)
    times.took(stack, 16, 0.085)
    assert times.saved_s(stack, 8, 8) == pytest.approx(0.075)
    for _ in range(100):
        times.took(stack, 16, 0.2)
    assert times.saved_s(stack, 8, 8) == 0.0


def test_other_blocks_have_their_own_times_and_are_not_kept(
    stack: BlockStack, source: ModelSource
) -> None:
    times, other = BatchTimes(), source.load_blocks(Span(0, 1))
    times.took(other, 8, 1.0)
    assert times.usual_s(stack, 8) == 0.0
    del other
    gc.collect()
    assert len(times._usual_s) == 0
