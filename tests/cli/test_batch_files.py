"""Results survive whatever happens, and come out in order."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gptnode.cli.batch_files import BatchInput, PartialResults
from gptnode.errors import UsageError


@pytest.fixture
def requests(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    path.write_text('{"q": 1}\n\n{"q": 2}\n  {"q": 3}')
    return path


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


def results_of(out: Path, requests: Path) -> PartialResults:
    return PartialResults(out, BatchInput(requests))


def test_lines_are_found_again_and_blank_ones_are_none(requests: Path) -> None:
    asked = BatchInput(requests)
    assert [line.number for line in asked.lines] == [1, 3, 4]
    assert [json.loads(asked.read(line)) for line in asked.lines] == [{"q": 1}, {"q": 2}, {"q": 3}]


def test_results_come_out_in_the_order_of_the_requests(requests: Path, out: Path) -> None:
    asked = BatchInput(requests)
    with PartialResults(out, asked) as results:
        for line in reversed(asked.lines):
            results.add(line, {"of": line.number})
        results.finish()
    assert out.read_text() == '{"of": 1}\n{"of": 3}\n{"of": 4}\n'
    assert {path.name for path in out.parent.iterdir()} == {"in.jsonl", "out.jsonl"}


def test_an_interrupted_batch_goes_on_where_it_was(requests: Path, out: Path) -> None:
    asked = BatchInput(requests)
    with PartialResults(out, asked) as results:
        results.add(asked.lines[1], {"of": 3})
    assert not out.exists()
    with PartialResults(out, asked) as results:
        assert results.done == {3}
        for line in (asked.lines[0], asked.lines[2]):
            results.add(line, {"of": line.number})
        results.finish()
    assert out.read_text() == '{"of": 1}\n{"of": 3}\n{"of": 4}\n'


@pytest.mark.parametrize("cut", [1, 10, 40])
def test_a_line_that_was_not_written_to_its_end_is_done_again(
    requests: Path, out: Path, cut: int
) -> None:
    asked = BatchInput(requests)
    with PartialResults(out, asked) as results:
        for line in asked.lines[:2]:
            results.add(line, {"of": line.number})
    data = results.path.read_bytes()
    results.path.write_bytes(data[:-cut])
    with PartialResults(out, asked) as results:
        assert results.done == {1}
        for line in asked.lines[1:]:
            results.add(line, {"of": line.number})
        results.finish()
    assert out.read_text() == '{"of": 1}\n{"of": 3}\n{"of": 4}\n'


def test_requests_that_were_changed_or_added_meanwhile_are_asked_and_no_others(
    requests: Path, out: Path
) -> None:
    asked = BatchInput(requests)
    with PartialResults(out, asked) as results:
        for line in asked.lines:
            results.add(line, {"of": line.number})
    requests.write_text('{"q": 1}\n\n{"q": 22}\n{"q": 3}\n{"q": 4}\n')
    with results_of(out, requests) as results:
        assert results.done == {1, 4}


def test_results_that_do_not_stand_are_asked_for_again(requests: Path, out: Path) -> None:
    asked = BatchInput(requests)
    with PartialResults(out, asked) as results:
        results.add(asked.lines[0], {"good": True})
        results.add(asked.lines[1], {"good": False})

    def good(result: dict[str, Any]) -> bool:
        return bool(result["good"])

    with PartialResults(out, asked, keeps=good) as results:
        assert results.done == {1}
        results.add(asked.lines[1], {"good": True})
    with PartialResults(out, asked, keeps=good) as results:
        assert results.done == {1, 3}
        assert results.count(good) == 2


def test_an_output_that_is_there_is_not_touched(requests: Path, out: Path) -> None:
    out.write_text("mine")
    with pytest.raises(UsageError, match="is there already"):
        results_of(out, requests)
    assert out.read_text() == "mine"


def test_two_batches_do_not_write_the_same_output(requests: Path, out: Path) -> None:
    with (
        results_of(out, requests),
        pytest.raises(UsageError, match="another batch is writing"),
    ):
        results_of(out, requests)


def test_somebody_elses_file_is_left_alone(requests: Path, out: Path) -> None:
    partial = out.with_name("out.jsonl.partial")
    partial.write_text("a letter\nof two lines\n")
    with pytest.raises(UsageError, match="remove it"):
        results_of(out, requests)
    assert partial.read_text() == "a letter\nof two lines\n"


def test_requests_that_change_under_way_are_noticed(requests: Path) -> None:
    asked = BatchInput(requests)
    requests.write_text('{"q": 9}\n\n{"q": 2}\n  {"q": 3}')
    with pytest.raises(UsageError, match="was changed"):
        asked.read(asked.lines[0])


def test_a_file_that_is_not_there_is_a_plain_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        BatchInput(tmp_path / "none.jsonl")
