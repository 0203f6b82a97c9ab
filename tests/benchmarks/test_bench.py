from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.limit import BetweenReadings, bytes_per_token
from benchmarks.rows import ROWS
from benchmarks.rows.context_curve import CurvePoint, curve_outcome, line_of
from benchmarks.sides import Figures
from benchmarks.weights import KV_BYTES_PER_TOKEN

from .stand_ins import StubMeter, stub_bench


def test_sides_take_turns_round_by_round(tmp_path: Path) -> None:
    turns: list[str] = []

    def side(name: str) -> str:
        turns.append(name)
        return f"{name}{len(turns)}"

    found = stub_bench(tmp_path, rounds=3).in_turn({"a": lambda: side("a"), "b": lambda: side("b")})
    assert turns == ["a", "b"] * 3
    assert found == {"a": ["a1", "a3", "a5"], "b": ["b2", "b4", "b6"]}


def test_progress_names_round_and_side(tmp_path: Path) -> None:
    lines: list[str] = []
    stub_bench(tmp_path, rounds=1, reported=lines).in_turn({"ours": lambda: 1})
    assert lines == ["round 1 of 1: ours"]


def test_the_bandwidth_of_a_round_is_the_mean_of_before_and_after() -> None:
    side = BetweenReadings(StubMeter(40e9, 60e9, 30e9, 30e9), lambda: Figures(1.0, 10.0))
    side()
    side()
    assert side.bandwidth == [50e9, 30e9]
    assert side.series.values == (50.0, 30.0)


def test_the_limit_is_the_bandwidth_over_the_bytes_that_a_token_reads() -> None:
    side = BetweenReadings(StubMeter(50e9, 50e9), lambda: Figures(1.0, 10.0))
    side()
    assert side.limits([2_500_000_000]) == (20.0,)


def test_a_token_reads_all_weights_and_the_keys_and_values_of_its_context() -> None:
    figures = Figures(1.0, 10.0, weight_bytes=1000)
    assert bytes_per_token(figures, 0) == 1000
    assert bytes_per_token(figures, 3) == 1000 + 3 * KV_BYTES_PER_TOKEN


def test_a_token_of_context_has_two_vectors_of_512_bf16_numbers_in_each_of_16_blocks() -> None:
    assert KV_BYTES_PER_TOKEN == 2 * 16 * 512 * 2


def curve(steps_ms: dict[int, tuple[float, ...]], limit_ms: float = 40.0) -> list[CurvePoint]:
    return [
        CurvePoint(context, tuple(1000 / ms for ms in steps), (1000 / limit_ms,) * len(steps))
        for context, steps in steps_ms.items()
    ]


def test_steps_on_a_line_give_the_rate_at_which_keys_and_values_are_read() -> None:
    ms_a_token = KV_BYTES_PER_TOKEN / 50e9 * 1000
    points = curve({n: (40 + ms_a_token * n,) for n in (1000, 2000, 4000)})
    assert line_of(points).slope == pytest.approx(ms_a_token)
    notes = " ".join(curve_outcome(points).notes)
    assert "at most 0.0 % off" in notes
    assert "at 50.0 GB/s" in notes


def test_the_line_goes_through_the_medians_of_the_rounds() -> None:
    points = curve({1000: (50.0, 51.0, 500.0), 2000: (1.0, 61.0, 62.0)})
    assert line_of(points).at(3000) == pytest.approx(71.0)


def test_steps_that_get_shorter_have_no_rate() -> None:
    assert "GB/s" not in " ".join(curve_outcome(curve({1000: (50.0,), 2000: (49.0,)})).notes)


def test_medians_that_lie_on_no_line_have_no_rate() -> None:
    points = curve({1000: (50.0,), 2000: (90.0,), 4000: (60.0,)})
    assert line_of(points).slope > 0
    assert "GB/s" not in " ".join(curve_outcome(points).notes)


def test_each_length_is_held_against_its_own_limit_round_by_round() -> None:
    first, second = curve_outcome(curve({1000: (50.0, 40.0), 2000: (80.0, 80.0)})).findings
    assert first.values == pytest.approx((0.8, 1.0))
    assert second.values == pytest.approx((0.5, 0.5))


def test_rows_have_names_of_their_own_and_a_line_that_says_what_they_measure() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS)
    assert all(row.title for row in ROWS)
