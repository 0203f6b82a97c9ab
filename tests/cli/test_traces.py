"""`--traces`: a file of spans, a collector, or nothing; and what is missing is said."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from gptnode.cli.traces import open_traces
from gptnode.errors import UsageError
from gptnode.node.meter import NO_METER, HopName
from gptnode.node.timing import HopTiming, TokenTiming

TIMING = TokenTiming(0.1, 5, 1, HopTiming(), (HopTiming(0.01, 0.02, 0.0, 0.03),))
HOPS = (HopName("anna", "0-7"),)


def answer_once(target: str | None, environment: dict[str, str]) -> None:
    with open_traces(target, environment) as meter:
        answer = meter.answer("demo", 5)
        answer.token(TIMING, HOPS)
        answer.ended("end")


def test_a_file_gets_a_line_for_each_span_all_of_one_trace(tmp_path: Path) -> None:
    path = tmp_path / "traces.jsonl"
    for _ in range(2):  # it is added to
        answer_once(str(path), {})
    spans = [json.loads(line) for line in path.read_text().splitlines()]
    assert [span["name"] for span in spans[:4]] == [
        "hop anna 0-7",
        "client",
        "prefill",
        "answer demo",
    ]
    assert len(spans) == 8
    assert len({span["context"]["trace_id"] for span in spans}) == 2
    assert spans[3]["resource"]["attributes"]["service.name"] == "gptnode"


def test_without_a_target_nothing_of_opentelemetry_is_needed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with open_traces(None, {}) as meter:
        assert meter is NO_METER
    wanted_none = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_TRACES_EXPORTER": "none"}
    with open_traces(None, wanted_none) as meter:
        assert meter is NO_METER


def test_without_the_sdk_it_is_said_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(UsageError, match=r"gptnode\[traces\]"), open_traces(str(tmp_path), {}):
        pass


@pytest.mark.parametrize(
    ("target", "environment"),
    [
        ("http://127.0.0.1:1/v1/traces", {}),
        (None, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}),
        (None, {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:1/v1/traces"}),
    ],
)
def test_without_the_exporter_a_collector_is_a_usage_error_that_names_it(
    target: str | None, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    exporter = "opentelemetry.exporter.otlp.proto.http.trace_exporter"
    monkeypatch.setitem(sys.modules, exporter, None)
    with (
        pytest.raises(UsageError, match="opentelemetry-exporter-otlp-proto-http"),
        open_traces(target, environment),
    ):
        pass


def test_a_file_that_can_not_be_written_is_a_usage_error(tmp_path: Path) -> None:
    with (
        pytest.raises(UsageError, match="No such file"),
        open_traces(str(tmp_path / "none" / "traces.jsonl"), {}),
    ):
        pass


@pytest.fixture
def collector() -> Iterator[tuple[str, list[bytes]]]:
    """The URL of something that takes what is posted, and what it got."""
    got: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1/traces", got
        server.shutdown()
        thread.join()


def test_a_collector_gets_the_spans_before_the_program_ends(
    collector: tuple[str, list[bytes]],
) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http.trace_exporter")
    url, got = collector
    answer_once(url, {})
    assert b"hop anna 0-7" in b"".join(got)
