"""A node's metrics: counts what it is told, reads what it is asked to watch, renders both.

The one place that knows prometheus_client. Each `Metrics` has a registry of its own, so that two
nodes in a process share nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

from prometheus_client import CollectorRegistry, Counter, GCCollector
from prometheus_client import PlatformCollector as OfPlatform
from prometheus_client import ProcessCollector as OfProcess
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from gptnode.node import metric_catalogue as names
from gptnode.node.histogram import Histogram, Observed
from gptnode.node.meter import NO_METER, AnswerMeter, HopName, Meter
from gptnode.node.metric_catalogue import Described, Reading
from gptnode.node.timing import HopTiming, TokenTiming

__all__ = ["DECODE_TOKENS", "Metrics", "Rendered"]

DECODE_TOKENS = 32
"""A served step of more tokens is a piece of a prompt."""

PARTS = ("queue", "compute", "serialise", "wire")

Read = Callable[[], Iterable[Reading]]


class Rendered(NamedTuple):
    """A page of metrics, as an HTTP body."""

    content_type: str
    body: bytes


class Metrics(Meter):
    """A meter that counts, and the page of what it counted."""

    def __init__(self, *, traces: Meter = NO_METER) -> None:
        """Nothing happened yet. ``traces`` hears of answers, too."""
        self.registry = CollectorRegistry()
        self._traces = traces
        self._state = _State()
        self._models: dict[str, _Model] = {}
        self._hops: dict[tuple[str, str], _Parts] = {}
        self._steps: dict[tuple[str, bool], _Steps] = {}
        self.registry.register(self._state)
        OfProcess(registry=self.registry)
        OfPlatform(registry=self.registry)
        GCCollector(registry=self.registry)

        counter, histogram = self._counter, self._histogram
        self._map_edits = counter(names.MAP_EDITS)
        self._sessions_opened = counter(names.SESSIONS_OPENED)
        self._sessions_refused = counter(names.SESSIONS_REFUSED)
        self._sessions_ended = counter(names.SESSIONS_ENDED)
        self._server_tokens = counter(names.SERVER_TOKENS)
        self._step_s = histogram(names.SERVER_STEP_SECONDS)
        self._batch_steps = histogram(names.BATCH_STEPS).labels()
        self._batch_rows = histogram(names.BATCH_ROWS).labels()
        self.prompt_tokens = counter(names.PROMPT_TOKENS)
        self.reused_tokens = counter(names.REUSED_TOKENS)
        self.completion_tokens = counter(names.COMPLETION_TOKENS)
        self._guessed_tokens = counter(names.GUESSED_TOKENS)
        self._accepted_tokens = counter(names.ACCEPTED_TOKENS)
        self._refilled_tokens = counter(names.REFILLED_TOKENS)
        self.answers = counter(names.ANSWERS)
        self.first_token_s = histogram(names.FIRST_TOKEN_SECONDS)
        self.token_s = histogram(names.TOKEN_SECONDS)
        self._hop_s = histogram(names.HOP_SECONDS)
        self._own_s = histogram(names.OWN_SECONDS)
        self._failovers = counter(names.FAILOVERS)
        self._open_failures = counter(names.OPEN_FAILURES)
        self._reroutes = counter(names.REROUTES)

    def watch(self, read: Read) -> None:
        """See `Meter`."""
        self._state.sources.append(read)

    def look(self) -> None:
        """Read all that is watched, for the next ``render``; on trio's thread."""
        self._state.look()

    def render(self, accept: str = "") -> Rendered:
        """The page, in OpenMetrics' form if ``accept`` (the HTTP header) asks for it.

        Takes some milliseconds, and may run in any thread.
        """
        encode, content_type = choose_encoder(accept)
        return Rendered(content_type, encode(self.registry))

    def answer(self, model: str, prompt_tokens: int) -> AnswerMeter:
        """See `Meter`."""
        return _AnswerMetrics(
            self, self._model(model), prompt_tokens, self._traces.answer(model, prompt_tokens)
        )

    def guessed(self, model: str, tokens: int, right: int) -> None:
        """See `Meter`."""
        if tokens:
            self._guessed_tokens.labels(model).inc(tokens)
            self._accepted_tokens.labels(model).inc(right)

    def hop_failed(self, peer: str, cause: str, *, was_open: bool) -> None:
        """See `Meter`."""
        (self._failovers if was_open else self._open_failures).labels(peer, cause).inc()

    def rerouted(self, cause: Literal["failure", "map_edit"]) -> None:
        """See `Meter`."""
        self._reroutes.labels(cause).inc()

    def refilled(self, model: str, tokens: int) -> None:
        """See `Meter`."""
        self._refilled_tokens.labels(model).inc(tokens)

    def map_edited(self, outcome: Literal["taken", "rejected"]) -> None:
        """See `Meter`."""
        self._map_edits.labels(outcome).inc()

    def session_opened(self, model: str) -> None:
        """See `Meter`."""
        self._sessions_opened.labels(model).inc()

    def session_refused(self, reason: str) -> None:
        """See `Meter`."""
        self._sessions_refused.labels(reason).inc()

    def session_ended(self, how: str) -> None:
        """See `Meter`."""
        self._sessions_ended.labels(how).inc()

    def step(self, model: str, tokens: int, queue_s: float, compute_s: float) -> None:
        """See `Meter`."""
        key = model, tokens <= DECODE_TOKENS
        steps = self._steps.get(key)
        if steps is None:
            phase = "decode" if key[1] else "prefill"
            steps = self._steps[key] = _Steps(
                self._server_tokens.labels(model, phase),
                self._step_s.labels(model, phase, "queue"),
                self._step_s.labels(model, phase, "compute"),
            )
        steps.tokens.inc(tokens)
        steps.queue_s.observe(queue_s)
        steps.compute_s.observe(compute_s)

    def batch(self, steps: int, rows: int) -> None:
        """See `Meter`."""
        self._batch_steps.observe(steps)
        self._batch_rows.observe(rows)

    def hop(self, label: str, phase: str) -> _Parts:
        """The histograms of a hop, found once."""
        found = self._hops.get((label, phase))
        if found is None:
            found = _Parts(*(self._hop_s.labels(label, phase, part) for part in PARTS))
            self._hops[label, phase] = found
        return found

    def _model(self, model: str) -> _Model:
        found = self._models.get(model)
        if found is None:
            own = [
                _Own(self._own_s.labels(phase, "queue"), self._own_s.labels(phase, "compute"))
                for phase in ("prefill", "decode")
            ]
            found = self._models[model] = _Model(
                model, self.completion_tokens.labels(model), self.token_s.labels(model), *own
            )
        return found

    def _counter(self, metric: Described) -> Counter:
        return Counter(metric.name, metric.help, metric.labels, registry=self.registry)

    def _histogram(self, metric: Described) -> Histogram:
        histogram = Histogram(metric)
        self.registry.register(histogram)
        return histogram


class _Parts(NamedTuple):
    queue_s: Observed
    compute_s: Observed
    serialise_s: Observed
    wire_s: Observed


class _Own(NamedTuple):
    queue_s: Observed
    compute_s: Observed


class _Steps(NamedTuple):
    tokens: Counter
    queue_s: Observed
    compute_s: Observed


class _Model(NamedTuple):
    name: str
    tokens: Counter
    token_s: Observed
    prefill: _Own
    decode: _Own


class _AnswerMetrics(AnswerMeter):
    """One answer, on the way into the histograms."""

    def __init__(
        self, metrics: Metrics, model: _Model, prompt_tokens: int, traces: AnswerMeter
    ) -> None:
        self._metrics = metrics
        self._model = model
        self._prompt_tokens = prompt_tokens
        self._traces = traces
        self._began_s = time.perf_counter()
        self._tokens = 0
        self._ended = False

    def token(self, timing: TokenTiming, hops: Sequence[HopName]) -> None:
        self._tokens += 1
        self._model.tokens.inc()
        if self._tokens == 1:
            self._first(timing)
            self._parts("prefill", self._model.prefill, timing, hops)
        else:
            self._model.token_s.observe(timing.total_s)
            if timing.hops:  # else it was guessed with the one before
                self._parts("decode", self._model.decode, timing, hops)
        self._traces.token(timing, hops)

    def ended(self, reason: str) -> None:
        if not self._ended:
            self._ended = True
            self._metrics.answers.labels(self._model.name, reason).inc()
            self._traces.ended(reason)

    def _first(self, timing: TokenTiming) -> None:
        metrics, name = self._metrics, self._model.name
        metrics.first_token_s.labels(name).observe(time.perf_counter() - self._began_s)
        metrics.prompt_tokens.labels(name).inc(self._prompt_tokens)
        if timing.attempts == 1:  # else some of it was computed in an earlier one
            reused = max(0, self._prompt_tokens - timing.tokens)
            metrics.reused_tokens.labels(name).inc(reused)

    def _parts(self, phase: str, own: _Own, timing: TokenTiming, hops: Sequence[HopName]) -> None:
        own.queue_s.observe(timing.client.queue_s)
        own.compute_s.observe(timing.client.compute_s)
        for hop, spent in zip(hops, timing.hops, strict=False):
            _observe(self._metrics.hop(hop.label, phase), spent)


def _observe(parts: _Parts, spent: HopTiming) -> None:
    parts.queue_s.observe(spent.queue_s)
    parts.compute_s.observe(spent.compute_s)
    parts.serialise_s.observe(spent.serialise_s)
    parts.wire_s.observe(spent.wire_s)


class _State(Collector):
    """What is read when somebody looks, and not counted."""

    def __init__(self) -> None:
        self.sources: list[Read] = []
        self._readings: tuple[Reading, ...] = ()

    def look(self) -> None:
        self._readings = tuple(reading for read in self.sources for reading in read())

    def describe(self) -> Iterator[Metric]:
        """Nothing: the registry would have to ask, before there is anything to read."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """The last look."""
        families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
        for reading in self._readings:
            metric = reading.metric
            if metric.name not in families:
                make = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
                families[metric.name] = make(metric.name, metric.help, labels=metric.labels)
            families[metric.name].add_metric(list(reading.labels), reading.value)
        yield from families.values()
