"""A measurement as a picture: the steps over the run, and where their time went, hop by hop.

matplotlib is an extra of gptnode: nothing of it is imported before somebody wants a picture.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gptnode.cli.bench_views import PARTS, waterfall_rows
from gptnode.errors import UsageError
from gptnode.text.printable import printable

if TYPE_CHECKING:
    from gptnode.node.bench_report import BenchReport, Waterfall

__all__ = ["FORMATS", "check_plot", "save_plot"]

FORMATS = (".svg", ".png")
COLOURS = ("#d9a400", "#2a8a4a", "#a04ab0", "#3a6fc4")
"""One for each part, apart in lightness too."""

PERCENTILES = ((50, "-"), (95, "--"), (99, ":"))
WIDTH_INCHES = 9.0
DOTS_PER_INCH = 120


def check_plot(path: Path) -> None:
    """UsageError, before anything is measured, where no picture could be written."""
    if path.suffix.lower() not in FORMATS:
        raise UsageError(f"--plot {path}: the name must end in {' or '.join(FORMATS)}")
    if not path.parent.is_dir():
        raise UsageError(f"--plot {path}: there is no folder {path.parent}")
    if path.is_dir():
        raise UsageError(f"--plot {path}: that is a folder")
    if importlib.util.find_spec("matplotlib") is None:
        raise UsageError("--plot needs matplotlib: pip install 'gptnode[plot]'")


def save_plot(report: BenchReport, path: Path) -> None:
    """Draw ``report`` into ``path``, in the format of its name.

    Raises:
        UsageError: the file can't be written.
    """
    from matplotlib.figure import Figure  # not pyplot: that keeps figures and wants a display

    n_rows = len(report.hops) + 1
    bars_inches = 0.8 + 0.4 * n_rows
    heights = (2.6, bars_inches, bars_inches)
    figure = Figure(figsize=(WIDTH_INCHES, sum(heights) + 1.2), layout="constrained")
    steps, decode, prefill = figure.subplots(3, 1, height_ratios=heights)
    figure.suptitle(_title(report), fontsize=11)
    _draw_steps(steps, report)
    _draw_waterfall(decode, report, report.decode, "where a decode step goes (medians)")
    _draw_waterfall(prefill, report, report.prefill, "where the prefill goes (medians)")
    handles, labels = decode.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(PARTS), frameon=False)
    try:
        figure.savefig(path, dpi=DOTS_PER_INCH)
    except OSError as error:
        raise UsageError(f"--plot {path}: can't be written ({error.strerror})") from error


def _title(report: BenchReport) -> str:
    return (
        f"{_plain(report.model)} in {report.dtype}: decode {report.decode_tokens_per_s:.1f} "
        f"tokens/s, prefill {report.prefill_tokens_per_s:.1f} tokens/s"
    )


def _draw_steps(axes: Any, report: BenchReport) -> None:
    """Each step as a point; the runs one after the other."""
    from gptnode.node.bench_report import percentile

    steps_ms = [1000 * step_s for step_s in report.steps_s]
    axes.plot(range(1, len(steps_ms) + 1), steps_ms, ".-", color=COLOURS[1], linewidth=0.8)
    for q, style in PERCENTILES:
        value = percentile(steps_ms, q)
        axes.axhline(value, linestyle=style, color="0.4", linewidth=1, label=f"p{q} {value:.2f}")
    for run in range(1, len(report.runs)):
        axes.axvline(run * report.tokens + 0.5, color="0.8", linewidth=1)
    axes.set_ylim(bottom=0)
    axes.margins(x=0.02)
    title = f"decode steps from {report.context_tokens} tokens of context on"
    axes.set_title(title, fontsize=10, loc="left")
    axes.set_xlabel("step")
    axes.set_ylabel("ms")
    place = {"loc": "lower right", "bbox_to_anchor": (1.0, 1.0), "borderaxespad": 0.2}
    axes.legend(ncols=len(PERCENTILES), fontsize=8, frameon=False, **place)


def _draw_waterfall(axes: Any, report: BenchReport, waterfall: Waterfall, title: str) -> None:
    """A bar for each hop, from where the one before ended."""
    rows = waterfall_rows(report, waterfall)
    begin_ms = 0.0
    for row, (_, _, timing) in enumerate(rows):
        parts = (timing.queue_s, timing.compute_s, timing.serialise_s, timing.wire_s)
        for part, part_s, colour in zip(PARTS, parts, COLOURS, strict=True):
            label = part if row == 0 else None
            axes.barh(row, 1000 * part_s, left=begin_ms, color=colour, label=label)
            begin_ms += 1000 * part_s
        axes.text(begin_ms, row, f" {1000 * timing.total_s:.2f}", va="center", fontsize=8)
    names = [_plain(f"{label} {blocks}".removesuffix(" -")) for label, blocks, _ in rows]
    axes.set_yticks(range(len(rows)), names)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.1 * begin_ms or 1)
    axes.set_title(title, fontsize=10, loc="left")
    axes.set_xlabel("ms")


def _plain(text: str) -> str:
    """Names as they are: matplotlib takes what stands between dollars for mathematics."""
    return printable(text).replace("$", r"\$")
