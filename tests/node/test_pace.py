"""When a peer is too slow, by its own measure."""

from __future__ import annotations

import math

from gptnode.node.pace import ENOUGH_SAMPLES, STRIKES, STRIKES_WITHIN, Pace


def pace_of(*took_s: float) -> Pace:
    pace = Pace()
    for each in took_s:
        pace.note(each)
    return pace


def tokens_until_too_slow(pace: Pace, *took_s: float) -> int | None:
    """Steps until one is not waited for to its end; None if all are."""
    for n, each in enumerate(took_s, start=1):
        if each > pace.patience_s:
            return n
        pace.note(each)
    return None


USUAL = (0.1,) * ENOUGH_SAMPLES


def test_nothing_is_slow_before_enough_is_known() -> None:
    assert pace_of(*USUAL[1:]).patience_s == math.inf
    assert pace_of(*USUAL).patience_s < math.inf


def test_slow_is_twenty_times_its_own_median() -> None:
    assert math.isclose(pace_of(*USUAL).slow_s, 2.0)
    assert math.isclose(pace_of(*(0.5,) * 20).slow_s, 10.0)


def test_less_than_a_second_is_never_slow() -> None:
    assert tokens_until_too_slow(pace_of(*(0.001,) * 20), *(0.9,) * 50) is None


def test_a_hiccup_is_not_slowness() -> None:
    hiccups = (3.0, 3.0, *(0.1,) * STRIKES_WITHIN)
    assert tokens_until_too_slow(pace_of(*USUAL), *hiccups, *hiccups) is None


def test_a_peer_that_is_slow_for_good_is_found_within_ten_tokens() -> None:
    assert tokens_until_too_slow(pace_of(*USUAL), *(2.1,) * 10) == STRIKES


def test_every_third_step_slow_is_found_within_ten_tokens() -> None:
    assert tokens_until_too_slow(pace_of(*USUAL), *(0.1, 0.1, 2.1) * 3) == 9


def test_one_step_that_takes_as_long_as_three_slow_ones_is_not_waited_for() -> None:
    assert math.isclose(pace_of(*USUAL).patience_s, STRIKES * 2.0)
    assert math.isclose(pace_of(*USUAL, 2.1).patience_s, (STRIKES - 1) * 2.0)


def test_slow_steps_do_not_make_slowness_usual() -> None:
    pace = pace_of(*USUAL, *(2.1,) * 50)
    assert math.isclose(pace.median_s, 0.1)


def test_a_pace_that_changes_little_by_little_is_followed() -> None:
    slower = [0.01 * 1.04**step for step in range(200)]  # a context grows, a machine gets warm
    assert tokens_until_too_slow(Pace(), *slower) is None
