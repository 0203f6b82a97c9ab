from __future__ import annotations

import statistics

import pytest

from benchmarks.stats import Summary, differences, fit_line, ratios


def test_a_summary_is_the_median_and_both_ends() -> None:
    assert Summary.of([3.0, 1.0, 10.0]) == Summary(3.0, 1.0, 10.0)


def test_the_median_of_an_even_number_of_rounds_is_between_the_middle_two() -> None:
    assert Summary.of([1.0, 2.0, 4.0, 9.0]).median == 3.0


def test_no_rounds_have_no_summary() -> None:
    with pytest.raises(ValueError, match="nothing was measured"):
        Summary.of([])


def test_ratios_are_taken_round_by_round() -> None:
    # Ratio of the medians would be 1: the machine was twice as fast in the second round.
    assert ratios([10.0, 30.0], [10.0, 20.0]) == (1.0, 1.5)


def test_differences_are_taken_round_by_round() -> None:
    assert differences([3.0, 5.0], [1.0, 4.5]) == (2.0, 0.5)


@pytest.mark.parametrize("compare", [ratios, differences])
def test_sides_with_different_numbers_of_rounds_are_not_compared(compare: object) -> None:
    assert callable(compare)
    with pytest.raises(ValueError, match="zip"):
        compare([1.0, 2.0], [1.0])


def test_points_on_a_line_give_that_line() -> None:
    line = fit_line([1, 2, 4], [5.0, 7.0, 11.0])
    assert (line.slope, line.intercept) == pytest.approx((2.0, 3.0))
    assert line.worst_deviation == pytest.approx(0.0)
    assert line.at(10) == pytest.approx(23.0)


def test_a_bend_shows_as_a_deviation_relative_to_the_point() -> None:
    line = fit_line([0, 1, 2], [1.0, 1.0, 4.0])  # least squares: 0.5 + 1.5 x
    assert line.worst_deviation == pytest.approx(1.0)  # 2 instead of 1, in the middle


def test_one_point_has_no_line() -> None:
    with pytest.raises(statistics.StatisticsError):
        fit_line([1.0], [1.0])
