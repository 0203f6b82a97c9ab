"""One trace an answer, with a span for each hop, made from what the client measured."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode, Tracer

from gptnode.model.sampler import Sampling
from gptnode.node.answer import Answering, AnswerSettings
from gptnode.node.meter import HopName
from gptnode.node.timing import HopTiming, TokenTiming
from gptnode.node.traces import MAX_EVENTS, Traces
from gptnode.text.tokenizer import Tokenizer

from .benches import PROMPT, SwarmOf
from .conftest import MemoryHost

HOPS = (HopName("anna", "0-3"), HopName("ben", "4-7"))
MS = 1_000_000


class Exported:
    """A tracer, and the spans that came out of it."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self._provider = TracerProvider(shutdown_on_exit=False)
        self._provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer: Tracer = self._provider.get_tracer("test")

    @property
    def spans(self) -> Sequence[ReadableSpan]:
        return self._exporter.get_finished_spans()

    def one(self, *path: str) -> ReadableSpan:
        """The span at the end of ``path`` from a root, by the beginnings of names."""
        parent: int | None = None
        for name in path:
            (found,) = (
                span
                for span in self.spans
                if span.name.startswith(name)
                and (span.parent.span_id if span.parent is not None else None) == parent
            )
            assert found.context is not None
            parent = found.context.span_id
        return found


@pytest.fixture
def exported() -> Exported:
    return Exported()


def timing(tokens: int = 1, *, attempts: int = 1, hop_s: float = 0.0) -> TokenTiming:
    hop = HopTiming(hop_s / 4, hop_s / 4, hop_s / 4, hop_s / 4)
    return TokenTiming(2 * hop_s, tokens, attempts, HopTiming(), (hop, hop))


def lasted(span: ReadableSpan) -> int:
    assert span.start_time is not None
    assert span.end_time is not None
    return span.end_time - span.start_time


def test_an_answer_is_one_trace_with_a_span_for_each_hop_of_each_phase(exported: Exported) -> None:
    answer = Traces(exported.tracer).answer("demo", 20)
    answer.token(timing(20), HOPS)
    for _ in range(500):
        answer.token(timing(), HOPS)
    answer.ended("length")
    assert len({span.context.trace_id for span in exported.spans if span.context}) == 1
    for phase in ("prefill", "decode"):
        for below in ("hop anna 0-3", "hop ben 4-7", "client"):
            exported.one("answer demo", phase, below)
    assert len(exported.spans) == 1 + 2 * (1 + 3)  # however many tokens
    attributes = exported.one("answer").attributes or {}
    assert attributes["gen_ai.request.model"] == "demo"
    assert attributes["gen_ai.usage.input_tokens"] == 20
    assert attributes["gen_ai.usage.output_tokens"] == 501
    assert attributes["gen_ai.response.finish_reasons"] == ("length",)
    assert (exported.one("answer", "decode").attributes or {})["gptnode.tokens"] == 500


def test_a_hop_lasts_as_long_as_all_its_parts_together_and_says_each(exported: Exported) -> None:
    answer = Traces(exported.tracer).answer("demo", 1)
    answer.token(timing(), HOPS)
    answer.token(timing(hop_s=0.004), HOPS)
    answer.token(timing(hop_s=0.008), HOPS)
    answer.ended("end")
    hop = exported.one("answer", "decode", "hop ben")
    assert lasted(hop) == pytest.approx(12 * MS, rel=0.01)
    attributes = hop.attributes or {}
    assert (attributes["gptnode.peer"], attributes["gptnode.blocks"]) == ("ben", "4-7")
    for part in ("queue", "compute", "serialise", "wire"):
        assert attributes[f"gptnode.{part}_s"] == pytest.approx(0.003)


def test_hops_that_worked_at_the_same_time_begin_together(exported: Exported) -> None:
    answer = Traces(exported.tracer).answer("demo", 1000)
    answer.token(timing(1000, hop_s=3600.0), HOPS)  # more than can have passed
    answer.ended("end")
    anna, ben = (exported.one("answer", "prefill", f"hop {name}") for name in ("anna", "ben"))
    assert anna.start_time == ben.start_time


def test_an_answer_that_failed_says_so_and_one_without_tokens_has_no_phases(
    exported: Exported,
) -> None:
    Traces(exported.tracer).answer("demo", 5).ended("failed")
    (root,) = exported.spans
    assert root.status.status_code is StatusCode.ERROR


def test_failures_that_an_answer_survived_are_events_of_it_but_not_without_end(
    exported: Exported,
) -> None:
    answer = Traces(exported.tracer).answer("demo", 5)
    for _ in range(3 * MAX_EVENTS):
        answer.token(timing(attempts=2), HOPS)
    answer.ended("end")
    assert len(exported.one("answer").events) == MAX_EVENTS


def test_spans_are_made_once_whatever_is_said_after_the_end(exported: Exported) -> None:
    answer = Traces(exported.tracer).answer("demo", 5)
    answer.ended("end")
    answer.ended("cancelled")
    assert len(exported.spans) == 1


def test_a_trace_goes_on_below_the_callers_span(exported: Exported) -> None:
    with exported.tracer.start_as_current_span("request"):
        Traces(exported.tracer).answer("demo", 5).ended("end")
    exported.one("request", "answer demo")


async def test_a_real_answer_over_two_peers_with_a_failover_is_one_whole_trace(
    swarm_of: SwarmOf, host: MemoryHost, exported: Exported, tiny_model: object
) -> None:
    bench = swarm_of(("0-1", ("anna",)), ("2-3", ("ben", "cleo")), meter=Traces(exported.tracer))
    tokenizer = Tokenizer.from_folder(tiny_model)  # type: ignore[arg-type]
    settings = AnswerSettings(Sampling(temperature=0.0), max_tokens=6)
    answer = Answering(bench.generator, tokenizer, frozenset(), PROMPT, settings)
    seen = 0
    async for _ in answer:
        seen += 1
        if seen == 2:
            host.kill("ben")
    root = exported.one("answer tiny")
    assert (root.attributes or {})["gen_ai.usage.output_tokens"] == 6
    for path in (
        ("prefill", "hop anna 0-1"),
        ("prefill", "hop ben 2-3"),
        ("decode", "hop anna 0-1"),
        ("decode", "hop ben 2-3"),
        ("decode", "hop cleo 2-3"),
    ):
        hop = exported.one("answer", *path)
        assert lasted(hop) > 0
    decode = exported.one("answer", "decode")
    assert lasted(decode) <= lasted(root)
