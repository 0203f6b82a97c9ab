"""Writes docs/reference/metrics.md from the catalogue of metrics; ``--check``: is it current?"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from gptnode.node.metric_catalogue import CATALOGUE, Described

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "metrics.md"

HEAD = """\
# Metrics

<!-- Written by scripts/metrics_reference.py (`make docs`) from the code: don't edit. -->

What `/metrics` of `gptnode serve --metrics HOST:PORT` and of `gptnode api` shows, in Prometheus's
text form or, if the request asks for it, in that of OpenMetrics. [Watch a
swarm](../how-to/watch-a-swarm.md) says how to use it.

A label has few values: names of models, names of peers in the BlocksMap, and the words below. A
peer that has no name in the map goes by the ends of its ID. Strangers have no label: they are
counted.
"""

TAIL = """\
## The process

`process_cpu_seconds_total`, `process_resident_memory_bytes`, `process_open_fds` and the others of
Prometheus's own client for Python, with `python_info` and `python_gc_*`.

## Pages beside it

| page | says |
|---|---|
| `/healthz` | 200 as long as the process is alive and its event loop turns |
| `/readyz` | 200 when the node can do all that its map asks of it, else 503 with a reason\
 a line: blocks that are still loading or can't be, a server that leaves; for an API a hop that\
 nobody can take |
"""

SECTIONS = (
    ("A server", "gptnode_server_"),
    ("A client", "gptnode_client_"),
    ("An API server", "gptnode_service_"),
)


def page() -> str:
    """The reference page."""
    starts = tuple(start for _, start in SECTIONS)
    common = [one for one in CATALOGUE if not one.name.startswith(starts)]
    parts = [HEAD, _section("Any node", common)]
    for title, start in SECTIONS:
        parts.append(_section(title, [one for one in CATALOGUE if one.name.startswith(start)]))
    return "\n".join([*parts, TAIL])


def _section(title: str, rows: Sequence[Described]) -> str:
    lines = [f"## {title}", "", "| metric | type | labels | |", "|---|---|---|---|"]
    lines += [
        f"| `{one.name}` | {one.kind} | {', '.join(f'`{label}`' for label in one.labels)} |"
        f" {one.help} |"
        for one in rows
    ]
    buckets: dict[tuple[float, ...], list[str]] = {}
    for one in rows:
        if one.buckets:
            buckets.setdefault(one.buckets, []).append(f"`{one.name}`")
    for bounds, of in buckets.items():
        lines += ["", f"Buckets of {', '.join(of)}: {', '.join(f'{bound:g}' for bound in bounds)}."]
    return "\n".join([*lines, ""])


def main() -> int:
    """Write the page, or compare it; the exit code."""
    if sys.argv[1:] == ["--check"]:
        current = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
        if current != page():
            print(f"{PAGE.name} is not what the code says: run `make docs`", file=sys.stderr)
            return 1
        return 0
    if sys.argv[1:]:
        print("usage: metrics_reference.py [--check]", file=sys.stderr)
        return 2
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
