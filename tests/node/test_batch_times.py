"""What batches take, and what joining saves."""

from __future__ import annotations

import gc

import pytest

from gptnode.model.shard import BlockStack
from gptnode.node.batch_times import NEW_SHARE, BatchTimes
from gptnode.node.loading import ModelSource
from gptnode.span import Span


@pytest.fixture
def stack(source: ModelSource) -> BlockStack:
    return source.load_blocks(Span(0, 1))


def test_nothing_is_known_before_the_first_batch(stack: BlockStack) -> None:
    times = BatchTimes()
    assert times.usual_s(stack, 8) == 0.0
    assert times.saved_s(stack, 8, 8) == pytest.approx(0.0)


def test_a_size_seen_takes_what_it_took_and_one_between_two_what_lies_between(
    stack: BlockStack,
) -> None:
    times = BatchTimes()
    times.took(stack, 4, 1.0)
    times.took(stack, 8, 2.0)
    assert [times.usual_s(stack, rows) for rows in (4, 5, 7, 8)] == [1.0, 1.25, 1.75, 2.0]
    times.took(stack, 4, 2.0)
    assert times.usual_s(stack, 4) == 1.0 + NEW_SHARE


def test_a_size_beyond_all_is_tried_as_if_more_rows_were_free(stack: BlockStack) -> None:
    times = BatchTimes()
    times.took(stack, 8, 0.08)
    assert times.usual_s(stack, 1) == times.usual_s(stack, 32) == 0.08
    assert times.saved_s(stack, 8, 8) == 0.08
    times.took(stack, 16, 0.15)
    assert times.saved_s(stack, 8, 8) == pytest.approx(0.01)


def test_one_slow_batch_is_not_believed_once_its_neighbours_are_known(stack: BlockStack) -> None:
    times = BatchTimes()
    times.took(stack, 16, 0.4)
    times.took(stack, 1, 0.5)
    assert times.usual_s(stack, 1) == 0.5
    times.took(stack, 15, 0.075)
    assert times.usual_s(stack, 16) == pytest.approx(0.08)
    assert times.usual_s(stack, 1) == 0.075


def test_joining_saves_what_two_take_more_than_one(stack: BlockStack) -> None:
    times = BatchTimes()
    times.took(stack, 8, 0.080)
    times.took(stack, 16, 0.085)
    assert times.saved_s(stack, 8, 8) == pytest.approx(0.075)
    for _ in range(100):
        times.took(stack, 16, 0.16)
    assert times.saved_s(stack, 8, 8) == pytest.approx(0.0)


def test_other_blocks_have_their_own_times_and_are_not_kept(
    stack: BlockStack, source: ModelSource
) -> None:
    times, other = BatchTimes(), source.load_blocks(Span(0, 1))
    times.took(other, 8, 1.0)
    assert times.usual_s(stack, 8) == 0.0
    del other
    gc.collect()
    assert len(times._seen) == 0 and set(times._usual) == {stack}
