"""The command line: a command for each row, ``all``, ``weights``, ``report``."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import click
from rich.console import Console

from benchmarks.bandwidth import BandwidthMeter
from benchmarks.bench import Bench, Row
from benchmarks.machine import this_machine, versions
from benchmarks.record import Record, Settings, append, newest
from benchmarks.report import write
from benchmarks.rows import ROWS
from benchmarks.table import record_tables
from benchmarks.weights import Weights
from gptnode.errors import GptNodeError, UsageError

__all__ = ["Options", "cli", "main", "run_rows"]

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).resolve().parent / "results"
PAGE = ROOT / "docs" / "explanation" / "performance.md"
WORK = ROOT / "build" / "bench"
RIVALS = Path("rivals") / "bin" / "python"


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line said."""

    work: Path
    rivals_python: Path | None
    results: Path
    settings: Settings

    @property
    def python_of_rivals(self) -> Path:
        """The one given, or the one in the work folder."""
        return self.rivals_python or self.work / RIVALS


def _options(command: Callable[..., None]) -> Callable[..., None]:
    """The options of all rows."""
    for option in (
        click.option("--threads", type=click.IntRange(min=1), default=os.cpu_count() or 1,
                     show_default="all cores", help="Threads of every side."),
        click.option("--tokens", type=click.IntRange(min=2), default=64, show_default=True,
                     help="Decode steps a measurement."),
        click.option("--prompt-tokens", type=click.IntRange(min=16), default=512,
                     show_default=True, help="Length of the prompt."),
        click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True,
                     help="How often each side is measured."),
        click.option("--results", type=click.Path(path_type=Path), default=RESULTS,
                     show_default="benchmarks/results", help="Where records go."),
        click.option("--rivals-python", type=click.Path(path_type=Path),
                     show_default="WORK/rivals/bin/python",
                     help="Python of the rivals' environment."),
        click.option("--work", type=click.Path(path_type=Path), default=WORK,
                     show_default="build/bench", help="Where the weights are kept."),
    ):  # fmt: skip
        command = option(command)
    return command


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def cli() -> None:
    """Measure gptnode beside llama.cpp and transformers on the same weights."""


def run_rows(rows: Sequence[Row], options: Options) -> None:
    """Measure rows one after another; each is shown and kept as soon as it is done.

    Raises:
        UsageError: the rivals' environment is missing.
        GptNodeError: some rows failed; the others are kept.
    """
    console, progress = Console(), Console(stderr=True)

    def report(line: str) -> None:
        progress.print(line, style="dim", highlight=False)

    python = options.python_of_rivals
    if any(row.rivals for row in rows) and not python.exists():
        raise UsageError(
            f"no rivals at {python}: make their environment as benchmarks/README.md says,"
            " or name its python with --rivals-python"
        )
    weights = Weights(options.work, python, report)
    meter = BandwidthMeter(options.work, options.settings.threads)
    bench = Bench(weights, options.settings, meter, options.results, report)
    failed: list[str] = []
    for row in rows:
        report(f"{row.name}: {row.title}")
        try:
            record = _measured(row, bench)
        except GptNodeError as error:  # the other rows are worth having
            report(f"{row.name}: {error}")
            failed.append(row.name)
            continue
        append(options.results, record)
        console.print(record_tables(record))
    if failed:
        raise GptNodeError(f"not measured: {', '.join(failed)}")


def _measured(row: Row, bench: Bench) -> Record:
    """One run of a row."""
    return Record(
        row=row.name,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        settings=bench.settings,
        versions=versions(bench.weights.rivals_python if row.rivals else None),
        machine=this_machine(),
        outcome=row.measure(bench),
    )


def _guarded(
    action: Callable[[Options], None],
    *,
    work: Path,
    rivals_python: Path | None,
    results: Path,
    rounds: int,
    prompt_tokens: int,
    tokens: int,
    threads: int,
) -> None:
    """``action`` with the options of a row, its errors as one line."""
    settings = Settings(rounds, prompt_tokens, tokens, threads)
    # Absolute, for processes; not resolved: an environment is known by the way to its python.
    python = rivals_python.absolute() if rivals_python is not None else None
    options = Options(work.absolute(), python, results, settings)
    try:
        options.work.mkdir(parents=True, exist_ok=True)
        action(options)
    except GptNodeError as error:
        raise click.ClickException(str(error)) from error


def _make_weights(options: Options) -> None:
    Weights(options.work, options.python_of_rivals, click.echo).all_forms()


def _add_command(name: str, summary: str, action: Callable[[Options], None]) -> None:
    cli.command(name, help=summary)(_options(partial(_guarded, action)))


for _row in ROWS:
    _add_command(_row.name, f"Measure {_row.title}.", partial(run_rows, (_row,)))
_add_command("all", "Measure all rows, one after another.", partial(run_rows, ROWS))
_add_command("weights", "Write the model in all its forms, without measuring.", _make_weights)


@cli.command("report")
@click.option(
    "--results", type=click.Path(path_type=Path), default=RESULTS, help="Where the records are."
)
@click.option(
    "--page", type=click.Path(path_type=Path), default=PAGE, help="The page to write into."
)
def report_command(results: Path, page: Path) -> None:
    """Write the newest record of each row into docs/explanation/performance.md."""
    records = [record for row in ROWS if (record := newest(results, row.name)) is not None]
    if not records:
        raise click.ClickException(f"{results}: nothing was measured yet")
    pictures = [
        (record.row, os.path.relpath(picture, page.parent))
        for record in records
        if (picture := results / f"{record.row}.svg").exists()
    ]
    try:
        write(page, records, pictures)
    except GptNodeError as error:
        raise click.ClickException(str(error)) from error


def main() -> None:
    """Run the command line and exit."""
    cli.main(prog_name="python -m benchmarks")
