"""Writes docs/grafana-dashboard.json, a dashboard for Grafana over Prometheus."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[1] / "docs" / "grafana-dashboard.json"

COLUMNS, WIDTH, HEIGHT = 3, 8, 8
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
HERE = 'instance=~"$instance"'
EVERY = "[$__rate_interval]"


@dataclass(frozen=True, slots=True)
class Panel:
    """A graph: its queries with their legends."""

    title: str
    unit: str
    about: str
    queries: tuple[tuple[str, str], ...]
    stacked: bool = False


def per_second(metric: str, by: str, where: str = "") -> str:
    """How fast a counter grows, added up by labels."""
    return f"sum by ({by}) (rate({metric}{{{HERE}{where}}}{EVERY}))"


def quantile(q: float, metric: str, by: str = "", where: str = "") -> str:
    """Of a histogram."""
    buckets = f"rate({metric}_bucket{{{HERE}{where}}}{EVERY})"
    return f"histogram_quantile({q}, sum by ({f'le, {by}' if by else 'le'}) ({buckets}))"


def mean(metric: str, by: str, where: str = "") -> str:
    """Of a histogram."""
    return f"{per_second(metric + '_sum', by, where)} / {per_second(metric + '_count', by, where)}"


def half_and_most(metric: str) -> tuple[tuple[str, str], ...]:
    """What half of all and what nearly all don't exceed."""
    return (quantile(0.5, metric), "half"), (quantile(0.95, metric), "95 of 100")


PREFILL, DECODE = ',phase="prefill"', ',phase="decode"'

ROWS: dict[str, tuple[Panel, ...]] = {
    "Answers": (
        Panel(
            "Tokens a second",
            "short",
            "What clients got, and how much of their prompts needn't be computed.",
            (
                (
                    per_second("gptnode_client_completion_tokens_total", "model"),
                    "answers {{model}}",
                ),
                (per_second("gptnode_client_prompt_tokens_total", "model"), "prompts {{model}}"),
                (
                    per_second("gptnode_client_reused_tokens_total", "model"),
                    "from caches {{model}}",
                ),
            ),
        ),
        Panel(
            "Time to the first token",
            "s",
            "From a prompt to the first token of its answer.",
            half_and_most("gptnode_client_first_token_seconds"),
        ),
        Panel(
            "Time of a token",
            "s",
            "Of each after the first one.",
            half_and_most("gptnode_client_token_seconds"),
        ),
        Panel(
            "Requests",
            "short",
            "Of API servers: who is answered, who waits, which contexts are kept for later.",
            (
                (f"gptnode_service_answering{{{HERE}}}", "answering {{instance}}"),
                (f"gptnode_service_waiting{{{HERE}}}", "waiting {{instance}}"),
                (f"gptnode_service_idle_contexts{{{HERE}}}", "idle {{instance}}"),
            ),
        ),
        Panel(
            "What ended answers",
            "short",
            "A second. Those that failed had no live peer for some blocks.",
            ((per_second("gptnode_client_answers_total", "reason"), "{{reason}}"),),
        ),
        Panel(
            "Guesses that were right",
            "percentunit",
            "Of the tokens that were guessed ahead.",
            (
                (
                    per_second("gptnode_client_accepted_tokens_total", "model")
                    + " / "
                    + per_second("gptnode_client_guessed_tokens_total", "model"),
                    "{{model}}",
                ),
            ),
        ),
    ),
    "Where the time goes": (
        Panel(
            "A token, hop by hop",
            "s",
            "Means, as the client sees them: what hops waited and computed, and the network took.",
            (
                (mean("gptnode_client_hop_seconds", "peer, part", DECODE), "{{peer}} {{part}}"),
                (mean("gptnode_client_own_seconds", "part", DECODE), "client {{part}}"),
            ),
            stacked=True,
        ),
        Panel(
            "A prompt, hop by hop",
            "s",
            "Means. Hops work on a long prompt at the same time: together it is more than passed.",
            (
                (mean("gptnode_client_hop_seconds", "peer, part", PREFILL), "{{peer}} {{part}}"),
                (mean("gptnode_client_own_seconds", "part", PREFILL), "client {{part}}"),
            ),
            stacked=True,
        ),
        Panel(
            "The wire",
            "s",
            "What 95 of 100 tokens didn't exceed, by peer: a bad link shows here.",
            (
                (
                    quantile(0.95, "gptnode_client_hop_seconds", "peer", DECODE + ',part="wire"'),
                    "{{peer}}",
                ),
            ),
        ),
    ),
    "Servers": (
        Panel(
            "Tokens a second",
            "short",
            "Through the blocks of each server.",
            (
                (
                    per_second("gptnode_server_tokens_total", "instance, phase"),
                    "{{instance}} {{phase}}",
                ),
            ),
        ),
        Panel(
            "A step",
            "s",
            "What 95 of 100 didn't exceed. The queue grows when a server has too much to do.",
            (
                (
                    quantile(0.95, "gptnode_server_step_seconds", "instance, part", DECODE),
                    "{{instance}} {{part}}",
                ),
            ),
        ),
        Panel(
            "Steps in a batch",
            "short",
            "Means: how many sessions share a reading of the weights.",
            (
                (mean("gptnode_server_batch_steps", "instance"), "steps {{instance}}"),
                (mean("gptnode_server_batch_rows", "instance"), "tokens {{instance}}"),
            ),
        ),
        Panel(
            "Sessions",
            "short",
            "Open now, and how many there may be.",
            (
                (f"gptnode_server_sessions{{{HERE}}}", "{{instance}}"),
                (f"gptnode_server_sessions_limit{{{HERE}}}", "limit {{instance}}"),
            ),
        ),
        Panel(
            "Cache memory",
            "bytes",
            "Reserved by open sessions, and how much there may be.",
            (
                (f"gptnode_server_kv_bytes{{{HERE}}}", "{{instance}}"),
                (f"gptnode_server_kv_limit_bytes{{{HERE}}}", "limit {{instance}}"),
            ),
        ),
        Panel(
            "Ready, and blocks",
            "short",
            "1 while a server is ready; the blocks that it has loaded.",
            (
                (f"gptnode_server_ready{{{HERE}}}", "ready {{instance}}"),
                (f"gptnode_server_blocks_loaded{{{HERE}}}", "blocks {{instance}} {{model}}"),
            ),
        ),
    ),
    "Trouble": (
        Panel(
            "Failovers",
            "short",
            "Hops in use that failed, and sessions that could not be opened.",
            (
                (
                    "sum by (peer, cause)"
                    f" (increase(gptnode_client_failovers_total{{{HERE}}}{EVERY}))",
                    "{{peer}} {{cause}}",
                ),
                (
                    "sum by (peer, cause)"
                    f" (increase(gptnode_client_open_failures_total{{{HERE}}}{EVERY}))",
                    "{{peer}} {{cause}}, at opening",
                ),
            ),
        ),
        Panel(
            "Sessions refused and ended",
            "short",
            "A second, with the code that the client was told.",
            (
                (
                    per_second("gptnode_server_sessions_refused_total", "reason"),
                    "refused {{reason}}",
                ),
                (per_second("gptnode_server_sessions_ended_total", "how"), "ended {{how}}"),
            ),
        ),
        Panel(
            "At the door",
            "short",
            "Peers that aren't in the BlocksMap, and edits of the map.",
            (
                (f"increase(gptnode_refused_peers_total{{{HERE}}}{EVERY})", "refused {{instance}}"),
                (f"increase(gptnode_map_edits_total{{{HERE}}}{EVERY})", "{{outcome}} {{instance}}"),
            ),
        ),
    ),
    "Machines": (
        Panel(
            "Network",
            "Bps",
            "Bytes a second with peers and clients; those that are sent count downwards.",
            (
                (per_second("gptnode_received_bytes_total", "instance"), "received {{instance}}"),
                ("-" + per_second("gptnode_sent_bytes_total", "instance"), "sent {{instance}}"),
            ),
        ),
        Panel(
            "Processor",
            "percentunit",
            "Of one core.",
            ((per_second("process_cpu_seconds_total", "instance"), "{{instance}}"),),
        ),
        Panel(
            "Memory",
            "bytes",
            "Resident.",
            ((f"process_resident_memory_bytes{{{HERE}}}", "{{instance}}"),),
        ),
    ),
}


def dashboard() -> dict[str, Any]:
    """The whole dashboard, as Grafana imports it."""
    panels: list[dict[str, Any]] = []
    top = 0
    for title, row in ROWS.items():
        place = {"x": 0, "y": top, "w": COLUMNS * WIDTH, "h": 1}
        panels.append(
            {"type": "row", "title": title, "gridPos": place, "panels": [], "collapsed": False}
        )
        top += 1
        for i, panel in enumerate(row):
            x, y = i % COLUMNS * WIDTH, top + i // COLUMNS * HEIGHT
            panels.append(_graph(panel, {"x": x, "y": y, "w": WIDTH, "h": HEIGHT}))
        top += -(-len(row) // COLUMNS) * HEIGHT
    for number, one in enumerate(panels, start=1):
        one["id"] = number
    return {
        "title": "gptnode",
        "uid": "gptnode",
        "tags": ["gptnode"],
        "description": "A swarm of gptnode: answers, hops, servers, trouble.",
        "schemaVersion": 39,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": "now-30m", "to": "now"},
        "templating": {"list": [_datasource(), _instance()]},
        "panels": panels,
    }


def _graph(panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    custom: dict[str, Any] = {"fillOpacity": 10, "lineWidth": 1}
    if panel.stacked:
        custom |= {"fillOpacity": 40, "stacking": {"mode": "normal", "group": "A"}}
    return {
        "type": "timeseries",
        "title": panel.title,
        "description": panel.about,
        "datasource": DATASOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": panel.unit, "custom": custom}, "overrides": []},
        "options": {
            "legend": {"displayMode": "list", "placement": "bottom"},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        "targets": [
            {
                "refId": chr(ord("A") + i),
                "datasource": DATASOURCE,
                "expr": query,
                "legendFormat": legend,
            }
            for i, (query, legend) in enumerate(panel.queries)
        ],
    }


def _datasource() -> dict[str, Any]:
    return {
        "name": "datasource",
        "type": "datasource",
        "query": "prometheus",
        "label": "Prometheus",
    }


def _instance() -> dict[str, Any]:
    return {
        "name": "instance",
        "label": "node",
        "type": "query",
        "datasource": DATASOURCE,
        "query": "label_values(gptnode_node_info, instance)",
        "refresh": 2,
        "includeAll": True,
        "multi": True,
        "current": {"text": "All", "value": "$__all"},
    }


def text() -> str:
    """The file."""
    return json.dumps(dashboard(), indent=1) + "\n"


def main() -> int:
    """Write the file, or compare it; the exit code."""
    if sys.argv[1:] == ["--check"]:
        current = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
        if current != text():
            print(f"{PAGE.name} is not what its script says: run `make docs`", file=sys.stderr)
            return 1
        return 0
    if sys.argv[1:]:
        print("usage: grafana_dashboard.py [--check]", file=sys.stderr)
        return 2
    PAGE.write_text(text(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
