"""Where the time of a token went: the parts add up, whatever a peer says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptnode.node.timing import HopTiming, Tally

seconds = st.floats(min_value=0, max_value=1e6)


def parts(timing: HopTiming) -> tuple[float, float, float, float]:
    return timing.queue_s, timing.compute_s, timing.serialise_s, timing.wire_s


def test_what_is_neither_computed_nor_serialised_was_on_the_wire() -> None:
    timing = HopTiming.round_trip(10.0, queue_s=1.0, compute_s=5.0, serialise_s=0.5)
    assert timing == HopTiming(1.0, 5.0, 0.5, 3.5)


@given(seconds, seconds, seconds, seconds)
def test_a_peer_can_not_claim_more_than_the_time_that_passed(
    total_s: float, queue_s: float, compute_s: float, serialise_s: float
) -> None:
    serialise_s = min(serialise_s, total_s)
    timing = HopTiming.round_trip(
        total_s, queue_s=queue_s, compute_s=compute_s, serialise_s=serialise_s
    )
    assert min(parts(timing)) >= 0
    assert timing.total_s == pytest.approx(total_s)


def test_waiting_for_the_lane_is_what_it_did_not_compute() -> None:
    assert HopTiming.here(3.0, 2.0) == HopTiming(queue_s=1.0, compute_s=2.0)


def test_the_chunks_of_a_token_are_added_up_and_the_client_has_the_rest() -> None:
    tally = Tally()
    tally.begin()
    for _ in range(2):
        tally.own(0.25)
        tally.chunk(8, [HopTiming(0, 1, 0, 1), HopTiming(1, 1, 1, 1)])
    timing = tally.done(14.0)
    assert (timing.tokens, timing.attempts) == (16, 1)
    assert timing.hops == (HopTiming(0, 2, 0, 2), HopTiming(2, 2, 2, 2))
    assert timing.client == HopTiming(queue_s=1.5, compute_s=0.5)


def test_an_attempt_that_failed_is_nobodys_work() -> None:
    tally = Tally()
    tally.begin()
    tally.own(1.0)
    tally.chunk(8, [HopTiming(1, 1, 1, 1)])
    tally.begin()
    tally.chunk(3, [HopTiming(0, 2, 0, 0), HopTiming(0, 1, 0, 0)])
    timing = tally.done(10.0)
    assert (timing.tokens, timing.attempts) == (3, 2)
    assert timing.hops == (HopTiming(0, 2, 0, 0), HopTiming(0, 1, 0, 0))
    assert timing.client == HopTiming(queue_s=7.0)
