"""The page of all metrics and the dashboard are what the code says, and drift is noticed."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from gptnode.node.metric_catalogue import CATALOGUE
from gptnode.node.metrics import Metrics

ROOT = Path(__file__).parents[2]
SUFFIXES = ("_bucket", "_sum", "_count")


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


@pytest.fixture(params=["metrics_reference", "grafana_dashboard"])
def script(request: pytest.FixtureRequest) -> ModuleType:
    """Each of the two scripts."""
    return load(str(request.param))


def run(script: ModuleType, monkeypatch: pytest.MonkeyPatch, *argv: str) -> int:
    monkeypatch.setattr(sys, "argv", ["script", *argv])
    code = script.main()
    assert isinstance(code, int)
    return code


def test_the_file_is_current(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(script, monkeypatch, "--check") == 0, "run `make docs`"


def test_a_file_that_says_something_else_is_noticed_and_written_anew(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    page = tmp_path / "page"
    monkeypatch.setattr(script, "PAGE", page)
    assert run(script, monkeypatch, "--check") == 1
    assert run(script, monkeypatch) == 0
    assert run(script, monkeypatch, "--check") == 0
    page.write_text(page.read_text().replace("gptnode_server_sessions", "gptnode_sessions"))
    assert run(script, monkeypatch, "--check") == 1


def test_every_metric_has_a_row_of_the_page() -> None:
    page = (ROOT / "docs" / "reference" / "metrics.md").read_text()
    for metric in CATALOGUE:
        assert page.count(f"\n| `{metric.name}` | {metric.kind} | ") == 1, metric.name


@pytest.fixture(scope="module")
def dashboard() -> dict[str, Any]:
    found = json.loads((ROOT / "docs" / "grafana-dashboard.json").read_text())
    assert isinstance(found, dict)
    return found


def queries(dashboard: dict[str, Any]) -> list[str]:
    exprs = [t["expr"] for panel in dashboard["panels"] for t in panel.get("targets", [])]
    return exprs + [one["query"] for one in dashboard["templating"]["list"]]


def test_every_metric_that_the_dashboard_names_is_one_that_nodes_show(
    dashboard: dict[str, Any],
) -> None:
    shown = {metric.name for metric in CATALOGUE}
    for metric in CATALOGUE:
        if metric.kind == "histogram":
            shown |= {metric.name + suffix for suffix in SUFFIXES}
    of_process = {s.name for family in Metrics().registry.collect() for s in family.samples}
    named = re.findall(r"\b(?:gptnode|process|python)_\w+", " ".join(queries(dashboard)))
    assert len(named) > 30
    assert set(named) <= shown | of_process


def test_every_label_that_a_query_names_is_one_of_its_metric(dashboard: dict[str, Any]) -> None:
    labels = {metric.name: {*metric.labels, "instance", "le"} for metric in CATALOGUE}
    for query in queries(dashboard):
        for name, body in re.findall(r"(gptnode_\w+)\{([^}]*)\}", query):
            metric = next(
                known for known in labels if name in (known, *(known + end for end in SUFFIXES))
            )
            assert set(re.findall(r"(\w+)=", body)) <= labels[metric], query
            for group in re.findall(r"by \(([^)]*)\)", query):
                assert set(group.replace(" ", "").split(",")) <= labels[metric], query


def test_every_metric_of_servers_and_clients_that_matters_has_a_panel(
    dashboard: dict[str, Any],
) -> None:
    text = " ".join(queries(dashboard))
    left_out = {metric.name for metric in CATALOGUE if metric.name not in text}
    assert left_out == {
        "gptnode_connections",
        "gptnode_server_peer_sessions",
        "gptnode_server_sessions_opened_total",
        "gptnode_client_refilled_tokens_total",
        "gptnode_client_reroutes_total",
        "gptnode_service_own_kv_bytes",
    }


def test_panels_have_ids_of_their_own_and_none_lies_on_another(dashboard: dict[str, Any]) -> None:
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in cells
                cells.add((x, y))
