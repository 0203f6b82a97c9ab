"""`--traces`: where the spans of answers go, a file or a collector.

The one place that knows OpenTelemetry's SDK and reads its environment. Without --traces, and
without an endpoint in the environment, nothing of it is imported.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gptnode import __version__
from gptnode.errors import UsageError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor

    from gptnode.node.meter import Meter

__all__ = ["open_traces", "traces_option"]

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
FLUSH_MS = 3000

traces_option = click.option(
    "--traces",
    metavar="FILE|URL",
    envvar="GPTNODE_TRACES",
    show_envvar=True,
    help="Write an OpenTelemetry trace of each answer, with a span for each hop: to a file, one"
    " span a line, or to the OTLP/HTTP endpoint of a collector, e.g. http://127.0.0.1:4318/v1/traces."
    "  [default: the collector that OTEL_EXPORTER_OTLP_ENDPOINT names, if it is set]",
)


@contextmanager
def open_traces(
    target: str | None, environment: Mapping[str, str] | None = None
) -> Iterator[Meter]:
    """A meter that makes spans and sends them to ``target``; one that does nothing without.

    *Resource handling*: what wasn't sent when the block ends is sent then, for 3 seconds at most.

    Raises:
        UsageError: the SDK or the exporter isn't installed, or the file can't be written.
    """
    settings = os.environ if environment is None else environment
    from_environment = any(settings.get(name) for name in ENDPOINTS)
    if not target and (not from_environment or settings.get("OTEL_TRACES_EXPORTER") == "none"):
        from gptnode.node.meter import NO_METER

        yield NO_METER
        return
    try:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
    except ImportError:
        raise UsageError("traces need OpenTelemetry's SDK: pip install 'gptnode[traces]'") from None
    from gptnode.node.traces import Traces

    resource = {"service.version": __version__}
    if not settings.get("OTEL_SERVICE_NAME"):
        resource["service.name"] = "gptnode"
    provider = TracerProvider(resource=Resource.create(resource), shutdown_on_exit=False)
    with ExitStack() as stack:
        provider.add_span_processor(_processor(target, stack))
        stack.callback(provider.shutdown)
        stack.callback(provider.force_flush, FLUSH_MS)
        yield Traces(provider.get_tracer("gptnode", __version__))


def _processor(target: str | None, stack: ExitStack) -> SpanProcessor:
    """Sends spans to a URL, to a file that ``stack`` closes, or where the environment says."""
    from opentelemetry.sdk.trace.export import (
        BatchSpanProcessor,
        ConsoleSpanExporter,
        SimpleSpanProcessor,
    )

    if target is not None and not target.startswith(("http://", "https://")):
        try:
            file = Path(target).open("a", encoding="utf-8")  # noqa: SIM115 (the stack closes it)
        except OSError as error:
            raise UsageError(f"--traces {target}: {error.strerror}") from error
        stack.callback(file.close)
        lines = ConsoleSpanExporter(
            out=file, formatter=lambda span: span.to_json(indent=None) + "\n"
        )
        return SimpleSpanProcessor(lines)  # a few lines at the end of an answer
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError:
        raise UsageError(
            "traces to a collector need its exporter: pip install"
            " opentelemetry-exporter-otlp-proto-http; --traces FILE works without"
        ) from None
    return BatchSpanProcessor(OTLPSpanExporter(endpoint=target))
