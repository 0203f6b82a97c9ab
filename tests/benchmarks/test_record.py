from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.record import Finding, Record, Target, append, newest

from .samples import sample_record


def test_a_record_survives_json() -> None:
    record = sample_record()
    assert Record.from_json(json.loads(json.dumps(record.to_json()))) == record


def test_a_finding_without_a_target_survives_json() -> None:
    record = sample_record(target=None)
    assert Record.from_json(json.loads(json.dumps(record.to_json()))) == record


@pytest.mark.parametrize(
    ("target", "met"),
    [
        (Target(1.10), True),
        (Target(1.11), False),
        (Target(1.10, at_least=False), True),
        (Target(1.09, at_least=False), False),
        (None, None),
    ],
)
def test_the_median_decides_whether_a_target_is_met(
    target: Target | None, met: bool | None
) -> None:
    assert Finding("a", "x", (1.10, 0.5, 9.0), target).met is met


def test_a_target_says_which_way_it_is_meant() -> None:
    assert (str(Target(1.05)), str(Target(2.0, at_least=False))) == (">= 1.05", "<= 2")


def test_records_are_added_behind_earlier_ones(tmp_path: Path) -> None:
    first, second = sample_record(date="2020-01-01"), sample_record(date="2020-01-02")
    folder = tmp_path / "made"
    path = append(folder, first)
    assert append(folder, second) == path
    assert [entry["date"] for entry in json.loads(path.read_text())] == ["2020-01-01", "2020-01-02"]
    assert newest(folder, first.row) == second
    assert list(folder.iterdir()) == [path]


def test_a_row_that_was_never_measured_has_no_record(tmp_path: Path) -> None:
    assert newest(tmp_path, "decode-bf16") is None
