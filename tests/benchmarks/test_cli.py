from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks.bench import Bench, Row
from benchmarks.cli import Options, cli, run_rows
from benchmarks.record import Finding, Outcome, Series, Settings, append, newest
from benchmarks.report import BEGIN, END
from benchmarks.rows import ROWS
from gptnode.errors import GptNodeError

from .samples import sample_record


def outcome(bench: Bench) -> Outcome:
    values = (1.0,) * bench.settings.rounds
    return Outcome((Series("a", "s", values),), (Finding("b", "x", values),))


def broken(bench: Bench) -> Outcome:
    raise GptNodeError("it broke")


def test_every_row_is_a_command() -> None:
    assert {row.name for row in ROWS} | {"all", "weights", "report"} == set(cli.commands)


def test_a_row_that_needs_rivals_says_how_to_get_them(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["decode-bf16", "--work", str(tmp_path)])
    assert done.exit_code == 1
    assert "benchmarks/README.md" in done.output
    assert "--rivals-python" in done.output


def test_a_row_that_fails_keeps_the_others(tmp_path: Path) -> None:
    rows = (Row("bad", "what breaks", broken), Row("good", "what works", outcome))
    settings = Settings(rounds=2, prompt_tokens=16, tokens=2, threads=1)
    options = Options(tmp_path / "work", None, tmp_path / "results", settings)
    options.work.mkdir()
    with pytest.raises(GptNodeError, match="not measured: bad"):
        run_rows(rows, options)
    record = newest(options.results, "good")
    assert record is not None
    assert record.settings == settings
    assert newest(options.results, "bad") is None


def test_report_writes_the_newest_record_and_the_picture_of_a_row(tmp_path: Path) -> None:
    results, page = tmp_path / "results", tmp_path / "docs" / "page.md"
    page.parent.mkdir()
    page.write_text(f"head\n{BEGIN}\n{END}\n")
    append(results, sample_record("context-curve", date="2019-01-01"))
    append(results, sample_record("context-curve", date="2020-01-01"))
    (results / "context-curve.svg").write_text("<svg/>")
    done = CliRunner().invoke(cli, ["report", "--results", str(results), "--page", str(page)])
    assert done.exit_code == 0, done.output
    written = page.read_text()
    assert "2020-01-01" in written
    assert "2019-01-01" not in written
    assert "(../results/context-curve.svg)" in written


def test_report_without_records_says_so(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["report", "--results", str(tmp_path)])
    assert done.exit_code == 1
    assert "nothing was measured yet" in done.output
