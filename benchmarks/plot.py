"""A line and points as an SVG picture, without a plotting library."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["Points", "line_plot", "round_ticks"]

WIDTH, HEIGHT = 640, 360
LEFT, RIGHT, TOP, BOTTOM = 64, 24, 44, 52
N_TICKS = 5
HEAD = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img"'
    ' font-family="sans-serif" font-size="12">'
)


@dataclass(frozen=True, slots=True)
class Points:
    """Positive x and y of the same length."""

    xs: Sequence[float]
    ys: Sequence[float]


@dataclass(frozen=True, slots=True)
class _Scale:
    """From values, which begin at 0, to pixels."""

    greatest: float
    start: float
    stop: float

    def at(self, value: float) -> float:
        return self.start + value / self.greatest * (self.stop - self.start)


def line_plot(title: str, axes: tuple[str, str], measured: Points, fitted: Points) -> str:
    """The text of an SVG file: ``measured`` as dots, ``fitted`` as a line, both axes from 0.

    Args:
        title: stands above it.
        axes: names of x and y with their units.
        measured: the dots.
        fitted: the line.
    """
    x_ticks = round_ticks(max((*measured.xs, *fitted.xs)))
    y_ticks = round_ticks(max((*measured.ys, *fitted.ys)))
    x = _Scale(x_ticks[-1], LEFT, WIDTH - RIGHT)
    y = _Scale(y_ticks[-1], HEIGHT - BOTTOM, TOP)
    way = " ".join(
        f"{x.at(a):.1f},{y.at(b):.1f}" for a, b in zip(fitted.xs, fitted.ys, strict=True)
    )
    parts = [
        HEAD.format(width=WIDTH, height=HEIGHT),
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        _text(WIDTH / 2, TOP / 2, title, size=15),
        *(_grid_x(x.at(tick), f"{tick:,.0f}") for tick in x_ticks),
        *(_grid_y(y.at(tick), f"{tick:g}") for tick in y_ticks),
        _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12, axes[0]),
        _text(LEFT - 8, TOP - 10, axes[1], anchor="end"),
        f'<polyline points="{way}" fill="none" stroke="#888" stroke-dasharray="5 4"/>',
        *(
            f'<circle cx="{x.at(a):.1f}" cy="{y.at(b):.1f}" r="4" fill="#06c">'
            f"<title>{a:,.0f}: {b:.4g}</title></circle>"
            for a, b in zip(measured.xs, measured.ys, strict=True)
        ),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def round_ticks(greatest: float) -> list[float]:
    """From 0 in round steps until ``greatest`` is covered; about five of them.

    Raises:
        ValueError: ``greatest`` is not above 0.
    """
    if greatest <= 0:
        raise ValueError(f"an axis from 0 to {greatest}")
    rough = greatest / N_TICKS
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * magnitude for unit in (1, 2, 2.5, 5, 10) if unit * magnitude >= rough)
    return [number * step for number in range(math.ceil(greatest / step - 1e-9) + 1)]


def _text(x: float, y: float, text: str, *, anchor: str = "middle", size: int = 12) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">'
        f"{escape(text)}</text>"
    )


def _grid_x(x: float, label: str) -> str:
    line = f'<line x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{HEIGHT - BOTTOM}" stroke="#ddd"/>'
    return line + _text(x, HEIGHT - BOTTOM + 18, label)


def _grid_y(y: float, label: str) -> str:
    line = f'<line x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}" stroke="#ddd"/>'
    return line + _text(LEFT - 8, y + 4, label, anchor="end")
