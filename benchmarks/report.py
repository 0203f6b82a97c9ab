"""The newest records as Markdown, between two markers of a page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.record import Finding, Record, Series
from benchmarks.table import amount, figure, verdict
from gptnode.errors import GptNodeError

__all__ = ["BEGIN", "END", "insert", "markdown", "write"]

BEGIN = "<!-- benchmarks: begin (written by `python -m benchmarks report`) -->"
END = "<!-- benchmarks: end -->"
GIB = 1 << 30


def markdown(records: Sequence[Record], pictures: Iterable[tuple[str, str]] = ()) -> str:
    """Targets first, then each row with all that was measured, then machines and versions.

    Args:
        records: of different rows, in the order in which they are shown.
        pictures: of some rows: name of the row, and the way to the picture from the page.
    """
    shown = dict(pictures)
    lines = ["### Targets", "", *_targets(records)]
    for record in records:
        lines += ["", f"### {record.row}", "", *_measured(record)]
        if record.row in shown:
            lines += ["", f"![{record.row}]({shown[record.row]})"]
    return "\n".join([*lines, "", "### Machines and versions", "", *_origins(records)]) + "\n"


def insert(page: str, text: str) -> str:
    """``page`` with ``text`` in the place of what stood between the markers.

    Raises:
        GptNodeError: the markers aren't there.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise GptNodeError(f"the page has no lines {BEGIN!r} and {END!r}")
    return f"{before}{BEGIN}\n\n{text}\n{END}{after}"


def write(page: Path, records: Sequence[Record], pictures: Iterable[tuple[str, str]]) -> None:
    """Put the tables into a file.

    Raises:
        GptNodeError: it has no markers.
    """
    text = insert(page.read_text(encoding="utf-8"), markdown(records, pictures))
    page.write_text(text, encoding="utf-8")


def _targets(records: Sequence[Record]) -> list[str]:
    rows = [
        _line(record.row, *_found(finding), str(finding.target), verdict(finding))
        for record in records
        for finding in record.outcome.findings
        if finding.target is not None
    ]
    return [*_head("row", "", "unit", "median", "min", "max", "target", ""), *rows]


def _measured(record: Record) -> list[str]:
    outcome = record.outcome
    lines = [
        _sentence(amount(record.settings)),
        *(_sentence(note) for note in outcome.notes),
        "",
        *_head("", "unit", "median", "min", "max"),
    ]
    lines += [_line(*_found(series)) for series in outcome.series]
    return lines + [_line(*_found(finding, "**")) for finding in outcome.findings]


def _origins(records: Sequence[Record]) -> list[str]:
    lines = _head("row", "date", "gptnode", "Python, torch", "rivals", "machine")
    for record in records:
        have, on = record.versions, record.machine
        rivals = "none"
        if have.llama_cpp_python is not None:
            rivals = (
                f"llama-cpp-python {have.llama_cpp_python}, transformers {have.transformers},"
                f" torch {have.rivals_torch}"
            )
        machine = f"{on.cpu}, {on.cores} cores, {on.memory_bytes / GIB:.0f} GiB, {on.kernel}"
        ours = f"{have.python}, {have.torch}"
        lines.append(_line(record.row, record.date, have.gptnode, ours, rivals, machine))
    return lines


def _found(values: Series | Finding, mark: str = "") -> tuple[str, ...]:
    summary = values.summary
    name = f"{mark}{values.name}{mark}"
    figures = (summary.median, summary.least, summary.greatest)
    return (name, values.unit, *(figure(value) for value in figures))


def _sentence(note: str) -> str:
    return f"{note[0].upper()}{note[1:]}."


def _head(*names: str) -> list[str]:
    return [_line(*names), "|" + "---|" * len(names)]


def _line(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
