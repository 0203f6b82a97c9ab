"""The figures that are made of measured times."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptnode.node.bench_report import BenchReport, Waterfall, percentile
from gptnode.node.timing import HopTiming, TokenTiming
from tests.bench_reports import token, two_hop_report


@given(
    st.lists(st.floats(min_value=0, max_value=1e3), min_size=1),
    st.floats(min_value=0, max_value=100),
)
def test_percentiles_are_those_of_numpy(values: list[float], percent: float) -> None:
    assert percentile(values, percent) == pytest.approx(float(np.percentile(values, percent)))


def test_speeds_are_those_of_the_median() -> None:
    report = two_hop_report(steps_ms=[[10, 20, 90], [40, 50]], prefills_ms=[100, 400, 200])
    assert report.decode_tokens_per_s == pytest.approx(1 / 0.04)
    assert report.ttft_s == pytest.approx(0.2)
    assert report.prefill_tokens_per_s == pytest.approx(512 / 0.2)


def test_the_steps_of_all_runs_count_in_the_order_in_which_they_were_taken() -> None:
    report = two_hop_report(steps_ms=[[10, 20], [40, 30]], prefills_ms=[100, 100])
    assert report.steps_s == pytest.approx((0.01, 0.02, 0.04, 0.03))


def test_a_waterfall_has_the_median_of_each_part() -> None:
    report = two_hop_report(steps_ms=[[1, 2, 9]], prefills_ms=[1])
    (run,) = report.runs
    ones, twos, _ = run.steps
    assert report.decode == Waterfall(twos.client, twos.hops)
    assert report.decode.total_s == pytest.approx(0.002)
    assert report.prefill == Waterfall(ones.client, ones.hops)


def test_hops_that_are_fewer_in_one_token_are_not_averaged_away() -> None:
    whole = token(1.0)
    short = TokenTiming(1.0, 1, 1, HopTiming(1.0), whole.hops[:1])
    report: BenchReport = two_hop_report(steps_ms=[[1]], prefills_ms=[1], also=short)
    with pytest.raises(ValueError, match="shorter"):
        _ = report.decode
