from __future__ import annotations

import io

import pytest
from rich.console import Console

from benchmarks.record import Target
from benchmarks.table import figure, record_tables

from .samples import sample_record


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.9431, "0.943"),
        (1.0, "1.00"),
        (18.72, "18.7"),
        (246.4, "246"),
        (2470.6, "2,471"),
        (-0.25, "-0.250"),
    ],
)
def test_figures_have_three_digits_that_count(value: float, text: str) -> None:
    assert figure(value) == text


@pytest.mark.parametrize(("bound", "word"), [(1.05, "met"), (1.2, "missed")])
def test_the_screen_shows_the_finding_its_target_and_the_verdict(bound: float, word: str) -> None:
    out = io.StringIO()
    Console(file=out, width=120).print(record_tables(sample_record(target=Target(bound))))
    line = next(line for line in out.getvalue().splitlines() if "decode / theirs" in line)
    cells = [cell.strip() for cell in line.strip("│").split("│")]
    assert cells == ["decode / theirs", "x", "1.10", "1.00", "1.30", f">= {bound}", word]
    assert "a note" in out.getvalue()
