"""One trace an answer, across all of its hops, made by the client from what it measured.

No hop sends spans and nothing of a trace goes over the wire: each answer of a peer says how long it
waited and computed, and the client knows the rest. A trace has one span for the answer, below it
one for the prompt and one for decoding, and below each of them one a hop, whose duration is the sum
of its times: a few spans an answer, however long it is.

Names of the answer's attributes are those of OpenTelemetry's conventions for generative AI. Knows
its API, not its SDK: where spans go is the caller's business.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from opentelemetry.trace import Span, Status, StatusCode, Tracer, set_span_in_context
from opentelemetry.util.types import AttributeValue

from gptnode.node.meter import AnswerMeter, HopName, Meter
from gptnode.node.timing import HopTiming, TokenTiming

__all__ = ["Traces"]

NS = 1_000_000_000
MAX_EVENTS = 32
"""Of one answer: failures that it went on after."""


class Traces(Meter):
    """A meter that makes spans of answers."""

    def __init__(self, tracer: Tracer) -> None:
        """Spans begin below the caller's current span, if it has one."""
        self._tracer = tracer

    def answer(self, model: str, prompt_tokens: int) -> AnswerMeter:
        """See `Meter`."""
        span = self._tracer.start_span(
            f"answer {model}",
            attributes={
                "gen_ai.operation.name": "text_completion",
                "gen_ai.provider.name": "gptnode",
                "gen_ai.request.model": model,
                "gen_ai.usage.input_tokens": prompt_tokens,
            },
        )
        return _AnswerTrace(self._tracer, span)


class _Phase:
    """The tokens of a phase, added up."""

    def __init__(self, began_ns: int) -> None:
        self.began_ns = began_ns
        self.ended_ns = began_ns
        self.tokens = 0
        self.computed_tokens = 0
        self.client = HopTiming()
        self.hops: dict[HopName, HopTiming] = {}

    def add(self, now_ns: int, timing: TokenTiming, hops: Sequence[HopName]) -> None:
        self.ended_ns = now_ns
        self.tokens += 1
        self.computed_tokens += timing.tokens
        self.client += timing.client
        for hop, spent in zip(hops, timing.hops, strict=False):
            self.hops[hop] = self.hops.get(hop, HopTiming()) + spent


class _AnswerTrace(AnswerMeter):
    """One answer, until its spans are made."""

    def __init__(self, tracer: Tracer, span: Span) -> None:
        self._tracer = tracer
        self._span = span
        self._began_ns = time.time_ns()
        self._began_s = time.perf_counter()
        self._prefill = _Phase(self._began_ns)
        self._decode: _Phase | None = None
        self._events = 0
        self._ended = False

    def token(self, timing: TokenTiming, hops: Sequence[HopName]) -> None:
        now_ns = self._now_ns()
        if timing.attempts > 1 and self._events < MAX_EVENTS:
            self._events += 1
            failed = {"gptnode.attempts": timing.attempts}
            self._span.add_event("a hop failed, the answer went on", failed, now_ns)
        if not self._prefill.tokens:
            self._prefill.add(now_ns, timing, hops)
        else:
            if self._decode is None:
                self._decode = _Phase(self._prefill.ended_ns)
            self._decode.add(now_ns, timing, hops)

    def ended(self, reason: str) -> None:
        if self._ended:
            return
        self._ended = True
        now_ns = self._now_ns()
        decoded = self._decode.tokens if self._decode is not None else 0
        self._span.set_attribute("gen_ai.usage.output_tokens", self._prefill.tokens + decoded)
        self._span.set_attribute("gen_ai.response.finish_reasons", [reason])
        if reason == "failed":
            self._span.set_status(Status(StatusCode.ERROR, "no live peer, or this node failed"))
        if self._prefill.tokens:
            self._phase("prefill", self._prefill)
        if self._decode is not None:
            self._phase("decode", self._decode)
        self._span.end(now_ns)

    def _phase(self, name: str, phase: _Phase) -> None:
        span = self._child(self._span, name, phase.began_ns)
        span.set_attribute("gptnode.tokens", phase.tokens)
        span.set_attribute("gptnode.computed_tokens", phase.computed_tokens)
        parts: list[tuple[str, HopTiming, dict[str, AttributeValue]]] = [
            (
                f"hop {hop.label} {hop.blocks}",
                spent,
                {"gptnode.peer": hop.label, "gptnode.blocks": hop.blocks},
            )
            for hop, spent in phase.hops.items()
        ]
        parts.append(("client", phase.client, {}))
        # One after the other where that is how it was; the chunks of a prompt are on all hops at
        # the same time.
        whole_ns = phase.ended_ns - phase.began_ns
        overlap = sum(_ns(spent.total_s) for _, spent, _ in parts) > whole_ns
        at_ns = phase.began_ns
        for title, spent, attributes in parts:
            took_ns = _ns(spent.total_s)
            child = self._child(span, title, at_ns)
            child.set_attributes({**attributes, **_parts(spent)})
            child.end(at_ns + took_ns)
            at_ns += 0 if overlap else took_ns
        span.end(phase.ended_ns)

    def _child(self, parent: Span, name: str, began_ns: int) -> Span:
        return self._tracer.start_span(
            name, context=set_span_in_context(parent), start_time=began_ns
        )

    def _now_ns(self) -> int:
        """Of a clock that nobody sets while the answer is made."""
        return self._began_ns + _ns(time.perf_counter() - self._began_s)


def _ns(seconds: float) -> int:
    return int(seconds * NS)


def _parts(spent: HopTiming) -> dict[str, AttributeValue]:
    """Sums over the tokens of the phase, in seconds."""
    return {
        "gptnode.queue_s": spent.queue_s,
        "gptnode.compute_s": spent.compute_s,
        "gptnode.serialise_s": spent.serialise_s,
        "gptnode.wire_s": spent.wire_s,
    }
