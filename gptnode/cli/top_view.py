"""`gptnode top` as a person sees it: one table, and a line for everything that is wrong.

Pure: from a snapshot to something that rich can draw. Colour only repeats what the words say.
"""

from __future__ import annotations

from datetime import datetime

from rich import box
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from gptnode.cli.top_data import ClientRow, PeerRow, Snapshot
from gptnode.text.printable import printable

__all__ = ["draw"]

STATES = {
    "serving": ("●", "green"),
    "reachable": ("●", "green"),
    "this node": ("●", "green"),
    "loading": ("◐", "yellow"),
    "leaving": ("◐", "yellow"),
    "not ready": ("◐", "yellow"),
    "unknown": ("○", "dim"),
}
BAD = ("✗", "red")
UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
WIDE_CELLS, NARROW_CELLS = 104, 74
"""Narrower terminals get fewer columns."""
WIDE_REST, REST, NARROW_REST = 82, 61, 41
"""What the columns take that can't be cut, with the space between all of them."""
LEAST_CELLS = 6


def draw(snapshot: Snapshot, width: int, *, keys: bool = False) -> RenderableType:
    """The picture, for a terminal of ``width`` cells; ``keys``: with a word on how to leave."""
    parts: list[RenderableType] = [_headline(snapshot), _table(snapshot, width)]
    parts += [_client(client) for client in snapshot.clients]
    parts += [Text(f"! {_line(problem)}", "red") for problem in snapshot.problems]
    parts += [
        Text(f"! {_line(peer.label)}: {_line(peer.reason)}", "red")
        for peer in snapshot.peers
        if peer.reason
    ]
    if keys:
        parts.append(Text("q to leave", "dim"))
    return Group(*parts)


def _headline(snapshot: Snapshot) -> Text:
    clock = datetime.fromtimestamp(snapshot.at_s).strftime("%H:%M:%S")
    up = sum(peer.state in ("serving", "reachable") for peer in snapshot.peers)
    rates = [peer.tokens_per_s for peer in snapshot.peers if peer.tokens_per_s is not None]
    parts = [
        "gptnode top",
        ", ".join(snapshot.models),
        f"{up} of {len(snapshot.peers)} peers up",
        f"{max(rates):.1f} tokens/s" if rates else "",
        clock,
    ]
    return Text(_line(" │ ".join(part for part in parts if part)), "bold", no_wrap=True)


def _table(snapshot: Snapshot, width: int) -> Table:
    wide, narrow = width >= WIDE_CELLS, width < NARROW_CELLS
    room = max(2 * LEAST_CELLS, width - (WIDE_REST if wide else NARROW_REST if narrow else REST))
    table = Table(box=box.SIMPLE, expand=False, pad_edge=False, padding=(0, 1, 0, 0))
    for title, cells in (("peer", room * 3 // 5), ("blocks", room * 2 // 5)):
        table.add_column(title, no_wrap=True, overflow="ellipsis", max_width=cells)
    table.add_column("state", no_wrap=True)
    numbers = ["round trip", "tokens/s"]
    if not narrow:
        numbers[1:1] = ["sessions"]
        numbers += ["prompt/s", "KV cache"] if wide else ["KV cache"]
    for title in numbers:
        table.add_column(title, no_wrap=True, justify="right")
    for peer in snapshot.peers:
        mark, style = STATES.get(peer.state, BAD)
        cells_of = {
            "round trip": "-"
            if peer.round_trip_s is None
            else f"{1000 * peer.round_trip_s:.1f} ms",
            "sessions": _of(peer.sessions, peer.sessions_limit, wide=wide),
            "tokens/s": _rate(peer.tokens_per_s),
            "prompt/s": _rate(peer.prompt_tokens_per_s),
            "KV cache": _kv(peer, wide=wide),
        }
        table.add_row(
            escape(_line(peer.label)),
            escape(_line(peer.blocks)) or "-",
            Text(f"{mark} {peer.state}", style),
            *(cells_of[title] for title in numbers),
        )
    return table


def _client(client: ClientRow) -> Text:
    parts = [
        f"{client.answering} answering" if client.answering is not None else "",
        f"{client.waiting} waiting" if client.waiting is not None else "",
        f"{client.tokens_per_s:.1f} tokens/s" if client.tokens_per_s is not None else "",
    ]
    return Text(_line(f"{client.source}: {', '.join(part for part in parts if part)}"))


def _of(value: int | None, limit: int | None, *, wide: bool) -> str:
    if value is None:
        return "-"
    return f"{value} / {limit}" if limit is not None and wide else str(value)


def _kv(peer: PeerRow, *, wide: bool) -> str:
    if peer.kv_bytes is None:
        return "-"
    if peer.kv_limit_bytes is None or not wide:
        return _size(peer.kv_bytes)
    return f"{_size(peer.kv_bytes)} / {_size(peer.kv_limit_bytes)}"


def _rate(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _size(n_bytes: float) -> str:
    for unit in UNITS[:-1]:
        if n_bytes < 1024:
            return f"{n_bytes:.0f} {unit}"
        n_bytes /= 1024
    return f"{n_bytes:.0f} {UNITS[-1]}"


def _line(text: str) -> str:
    """Foreign text as one printable line."""
    return " ".join(printable(text).split())
