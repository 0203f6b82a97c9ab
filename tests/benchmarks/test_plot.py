from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.plot import Points, line_plot, round_ticks

SVG = "{http://www.w3.org/2000/svg}"


def test_a_plot_is_xml_with_a_dot_for_each_point_and_one_line() -> None:
    points = Points([1024, 4096], [50.0, 60.0])
    root = ElementTree.fromstring(line_plot("a < b", ("x", "ms"), points, points))
    assert len(root.findall(f"{SVG}circle")) == 2
    assert len(root.findall(f"{SVG}polyline")) == 1
    assert root.findtext(f"{SVG}title") == "a < b"


def test_dots_lie_on_the_line_that_is_drawn_through_them() -> None:
    points = Points([1.0, 2.0, 3.0], [4.0, 1.0, 2.0])
    root = ElementTree.fromstring(line_plot("t", ("x", "y"), points, points))
    dots = [f"{dot.get('cx')},{dot.get('cy')}" for dot in root.findall(f"{SVG}circle")]
    line = root.find(f"{SVG}polyline")
    assert line is not None
    assert line.get("points") == " ".join(dots)


def test_more_is_further_right_and_further_up() -> None:
    points = Points([1.0, 2.0], [1.0, 2.0])
    root = ElementTree.fromstring(line_plot("t", ("x", "y"), points, points))
    first, second = root.findall(f"{SVG}circle")
    assert float(first.get("cx", "")) < float(second.get("cx", ""))
    assert float(first.get("cy", "")) > float(second.get("cy", ""))


def test_ticks_are_round() -> None:
    assert round_ticks(16384) == [0, 5000, 10000, 15000, 20000]


@given(st.floats(min_value=1e-3, max_value=1e9))
def test_ticks_begin_at_nought_and_cover_the_greatest_with_few_steps(greatest: float) -> None:
    ticks = round_ticks(greatest)
    assert ticks[0] == 0
    assert ticks[-1] >= greatest * (1 - 1e-9)
    assert 3 <= len(ticks) <= 7


def test_an_axis_without_length_is_refused() -> None:
    with pytest.raises(ValueError, match="an axis"):
        round_ticks(0)
