"""A measurement as people and programs see it: tables, waterfalls, JSON.

Colour only repeats what the characters say, and all of it fits the width that it is given. Nothing
here measures.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich import box
from rich.cells import cell_len, set_cell_size
from rich.console import Console, JustifyMethod, RenderableType
from rich.table import Table
from rich.text import Text

from gptnode.text.printable import printable

if TYPE_CHECKING:
    from gptnode.node.bench_report import BenchReport, Waterfall
    from gptnode.node.timing import HopTiming

__all__ = ["CLIENT_LABEL", "PARTS", "draw_report", "report_json", "waterfall_rows"]

PARTS = ("queue", "compute", "serialise", "wire")
"""The parts of a hop, in the order in which they are drawn."""

CLIENT_LABEL = "client"
"""The row of what this node does besides its blocks: embedding, head and sampler."""

STYLES = ("yellow", "green", "magenta", "blue")
GLYPHS = ("░", "█", "▒", "─")
ASCII_GLYPHS = (".", "#", "=", "-")
MAX_LABEL_CELLS = 18
GAP_CELLS = 3
MIN_BAR_CELLS = 12
MAX_BAR_CELLS = 60
MS_DIGITS = 4
RATE_DIGITS = 3


def waterfall_rows(report: BenchReport, waterfall: Waterfall) -> list[tuple[str, str, HopTiming]]:
    """Label, blocks and times of each row: the hops in order, then the client itself."""
    hops = zip(report.hops, waterfall.hops, strict=True)
    rows = [(hop.label, str(hop.span), timing) for hop, timing in hops]
    return [*rows, (CLIENT_LABEL, "-", waterfall.client)]


def report_json(report: BenchReport) -> dict[str, object]:
    """All figures, for programs; times in milliseconds unless the name says seconds."""
    from gptnode.node.bench_report import percentile

    percentiles = {f"p{q}": _ms(percentile(report.steps_s, q)) for q in (50, 95, 99)}
    return {
        "model": report.model,
        "dtype": report.dtype,
        "device": report.device,
        "threads": report.threads,
        "prompt_tokens": report.prompt_tokens,
        "tokens": report.tokens,
        "context_tokens": report.context_tokens,
        "users": report.users,
        "prefill_tokens_per_s": round(report.prefill_tokens_per_s, RATE_DIGITS),
        "decode_tokens_per_s": round(report.decode_tokens_per_s, RATE_DIGITS),
        "ttft_s": round(report.ttft_s, 6),
        "step_ms": percentiles,
        "resident_bytes": report.resident_bytes,
        "weight_bytes": report.weight_bytes,
        "kv_bytes": report.kv_bytes,
        "load_s": round(report.load_s, 6),
        "hops": _hops_json(report, report.decode),
        "client": _timing_json(report.decode.client),
        "prefill": {
            "hops": _hops_json(report, report.prefill),
            "client": _timing_json(report.prefill.client),
        },
        "steps_ms": [_ms(step_s) for step_s in report.steps_s],
        "prefills_ms": [_ms(run.prefill.total_s) for run in report.runs],
        "versions": asdict(report.versions),
        "machine": asdict(report.machine),
    }


def draw_report(report: BenchReport, console: Console) -> Iterator[RenderableType]:
    """Everything that `gptnode bench` prints, from top to bottom."""
    machine, versions = report.machine, report.versions
    where = "" if report.device == "cpu" else f" on {report.device}"
    yield Text(
        f"{printable(report.model)} in {report.dtype}{where}, {_counted(report.threads, 'thread')}",
        style="bold",
    )
    yield Text(
        f"{machine.cpu}, {_counted(machine.cores, 'core')}, {_size(machine.memory_bytes)}; "
        f"gptnode {versions.gptnode}, torch {versions.torch}, Python {versions.python}",
        style="dim",
    )
    yield Text()
    if report.users > 1:
        yield Text(f"{report.users} users at once: tokens/s of all of them, times of one")
    yield _figures(report)
    yield Text()
    sizes = (report.resident_bytes, report.weight_bytes, report.kv_bytes)
    resident, weights, cache = map(_size, sizes)
    yield Text(f"memory of this process: {resident}; its weights {weights}, its cache {cache}")
    yield Text(f"weights loaded and sessions open after {report.load_s:.2f} s")
    glyphs = ASCII_GLYPHS if console.options.ascii_only else GLYPHS
    for title, waterfall in (("a decode step", report.decode), ("the prefill", report.prefill)):
        yield Text()
        yield Text(f"where the time of {title} goes (medians, ms)")
        yield _waterfall_table(report, waterfall, console.width, glyphs)
    yield Text()
    legend = Text()
    for part, glyph, style in zip(PARTS, glyphs, STYLES, strict=True):
        legend.append(glyph * 2, style=style).append(f" {part}   ")
    yield legend


def _figures(report: BenchReport) -> Table:
    """Speed: a row for the prefill, a row for decoding."""
    from gptnode.node.bench_report import percentile

    table = _table()
    table.add_column("")
    for header in ("tokens", "tokens/s", "p50 ms", "p95 ms", "p99 ms"):
        table.add_column(header, justify="right", no_wrap=True)
    prefills_s = [run.prefill.total_s for run in report.runs]
    rows = (
        ("prefill, to the first token", report.prompt_tokens, report.prefill_tokens_per_s),
        (f"decode, from {report.context_tokens} on", report.tokens, report.decode_tokens_per_s),
    )
    for (name, tokens, rate), times_s in zip(rows, (prefills_s, report.steps_s), strict=True):
        several = len(times_s) > 1
        times = [percentile(times_s, q) if several or q == 50 else None for q in (50, 95, 99)]
        count = f"{len(report.runs)} x {tokens}" if len(report.runs) > 1 else str(tokens)
        shown = ["-" if time_s is None else f"{_ms(time_s):.2f}" for time_s in times]
        table.add_row(name, count, f"{rate:.1f}", *shown)
    return table


def _waterfall_table(
    report: BenchReport, waterfall: Waterfall, width: int, glyphs: Sequence[str]
) -> Table:
    """A row for each hop: its parts in numbers and, from where the one before ended, as a bar."""
    rows = waterfall_rows(report, waterfall)
    headers = ("hop", "blocks", "total", *PARTS)
    texts = [
        (
            _cut(printable(label)),
            blocks,
            *(_number(part_s) for part_s in (timing.total_s, *_parts(timing))),
        )
        for label, blocks, timing in rows
    ]
    columns = zip(headers, *texts, strict=True)
    widths = [max(cell_len(cell) for cell in column) for column in columns]
    free = width - sum(widths) - GAP_CELLS * len(widths)
    cells = min(MAX_BAR_CELLS, max(MIN_BAR_CELLS, free))
    scale = cells / waterfall.total_s if waterfall.total_s > 0 else 0.0
    table = _table()
    for header, cells_wide in zip(headers, widths, strict=True):
        justify: JustifyMethod = "left" if header == "hop" else "right"
        table.add_column(header, justify=justify, no_wrap=True, min_width=cells_wide)
    table.add_column("", no_wrap=True)
    begin_s = 0.0
    for text, (_, _, timing) in zip(texts, rows, strict=True):
        table.add_row(*map(Text, text), _bar(begin_s, timing, scale, glyphs))
        begin_s += timing.total_s
    return table


def _bar(begin_s: float, timing: HopTiming, scale: float, glyphs: Sequence[str]) -> Text:
    """The parts side by side, each ending where its time does: roundings don't add up."""
    column = round(begin_s * scale)
    bar = Text(" " * column)
    end_s = begin_s
    for part_s, glyph, style in zip(_parts(timing), glyphs, STYLES, strict=True):
        end_s += part_s
        end = max(column, round(end_s * scale))
        bar.append(glyph * (end - column), style=style)
        column = end
    return bar


def _table() -> Table:
    return Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")


def _parts(timing: HopTiming) -> tuple[float, float, float, float]:
    """In the order of ``PARTS``."""
    return timing.queue_s, timing.compute_s, timing.serialise_s, timing.wire_s


def _timing_json(timing: HopTiming) -> dict[str, object]:
    return {f"{part}_ms": _ms(s) for part, s in zip(PARTS, _parts(timing), strict=True)}


def _hops_json(report: BenchReport, waterfall: Waterfall) -> list[dict[str, object]]:
    return [
        {
            "peer": hop.label,
            "peer_id": hop.peer_id,
            "blocks": str(hop.span),
            **_timing_json(timing),
        }
        for hop, timing in zip(report.hops, waterfall.hops, strict=True)
    ]


def _ms(seconds: float) -> float:
    return round(1000 * seconds, MS_DIGITS)


def _cut(label: str) -> str:
    """A name that leaves room for what is said about it."""
    return set_cell_size(label, min(cell_len(label), MAX_LABEL_CELLS))


def _number(seconds: float) -> str:
    """Milliseconds in about four digits."""
    ms = 1000 * seconds
    return f"{ms:.{3 if ms < 10 else 2 if ms < 100 else 1}f}"


def _size(n_bytes: int) -> str:
    """Bytes as people read them."""
    return f"{n_bytes / 2**30:.2f} GiB" if n_bytes >= 2**30 else f"{n_bytes / 2**20:.1f} MiB"


def _counted(count: int, noun: str) -> str:
    """``1 core``, ``2 cores``."""
    return f"{count} {noun}{'s'[: count != 1]}"
