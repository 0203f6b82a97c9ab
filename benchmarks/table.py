"""A record as tables on screen, and how figures are written everywhere."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table

from benchmarks.record import Finding, Record, Series, Settings

__all__ = ["amount", "figure", "record_tables", "verdict"]

DIGITS = 3


def figure(value: float) -> str:
    """Three digits that count, and never an exponent: ``0.943``, ``18.7``, ``2,470``."""
    if value == 0:
        return "0"
    size = abs(value)
    for decimals, bound in ((0, 10.0**DIGITS / 10), (1, 10.0), (2, 1.0)):
        if size >= bound:
            return f"{value:,.{decimals}f}"
    return f"{value:.{DIGITS}f}"


def verdict(finding: Finding) -> str:
    """``met``, ``missed``, or nothing where nothing was asked."""
    if finding.met is None:
        return ""
    return "met" if finding.met else "missed"


def amount(settings: Settings) -> str:
    """How much was measured, in words."""
    rounds = "1 round" if settings.rounds == 1 else f"{settings.rounds} rounds"
    threads = "1 thread" if settings.threads == 1 else f"{settings.threads} threads"
    return (
        f"{rounds}; {settings.prompt_tokens} tokens of prompt, {settings.tokens} decoded; {threads}"
    )


def record_tables(record: Record) -> RenderableType:
    """What was measured, what follows from it, and the notes."""
    measured = Table(
        title=f"{record.row}: {amount(record.settings)}",
        title_justify="left",
    )
    for heading in ("measured", "unit"):
        measured.add_column(heading)
    for heading in ("median", "min", "max"):
        measured.add_column(heading, justify="right")
    for series in record.outcome.series:
        measured.add_row(series.name, series.unit, *_summary(series))
    found = Table()
    for heading in ("found", "unit"):
        found.add_column(heading)
    for heading in ("median", "min", "max", "target"):
        found.add_column(heading, justify="right")
    found.add_column("")
    for finding in record.outcome.findings:
        style = {True: "green", False: "red", None: ""}[finding.met]
        target = str(finding.target) if finding.target is not None else ""
        found.add_row(
            finding.name,
            finding.unit,
            *_summary(finding),
            target,
            verdict(finding),
            style=style,
        )
    return Group(measured, found, *record.outcome.notes)


def _summary(values: Series | Finding) -> tuple[str, str, str]:
    summary = values.summary
    return figure(summary.median), figure(summary.least), figure(summary.greatest)
