"""What a meter is told comes out under the names of the catalogue, in both forms of the page."""

from __future__ import annotations

import prometheus_client
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.core import Metric
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as openmetrics_families,
)
from prometheus_client.parser import text_string_to_metric_families

from gptnode.node import metric_catalogue as names
from gptnode.node.histogram import Histogram
from gptnode.node.meter import NO_METER, AnswerMeter, HopName, Meter
from gptnode.node.metric_catalogue import CATALOGUE, Described, Reading
from gptnode.node.metrics import Metrics
from gptnode.node.timing import HopTiming, TokenTiming

HOPS = (HopName("anna", "0-3"), HopName("ben", "4-7"))
OPENMETRICS = "application/openmetrics-text; version=1.0.0; q=0.5, text/plain; q=0.1"


def timing(tokens: int = 1, *, hops: int = 2, attempts: int = 1) -> TokenTiming:
    hop = HopTiming(0.001, 0.02, 0.0001, 0.003)
    return TokenTiming(0.06, tokens, attempts, HopTiming(0.002, 0.004), (hop,) * hops)


def value(metrics: Metrics, metric: Described, suffix: str = "", **labels: str) -> float | None:
    return metrics.registry.get_sample_value(metric.name + suffix, labels)


def everything(meter: Meter) -> None:
    """Each thing that a meter may be told."""
    answer = meter.answer("demo", 20)
    answer.token(timing(12), HOPS)
    answer.token(timing(), HOPS)
    answer.token(timing(0, hops=0), HOPS)
    answer.ended("stop")
    meter.guessed("demo", 3, 2)
    meter.hop_failed("ben", "lost", was_open=True)
    meter.hop_failed("ben", "down", was_open=False)
    meter.rerouted("failure")
    meter.refilled("demo", 7)
    meter.map_edited("rejected")
    meter.session_opened("demo")
    meter.session_refused("busy")
    meter.session_ended("lost")
    meter.step("demo", 1, 0.001, 0.01)
    meter.step("demo", 256, 0.001, 0.2)
    meter.batch(3, 5)


def state() -> list[Reading]:
    """A reading of every metric that is read and not counted."""
    counted = {family.name for family in Metrics().registry.collect()}
    return [
        Reading(metric, 5.0, tuple("x" for _ in metric.labels))
        for metric in CATALOGUE
        if metric.name.removesuffix("_total") not in counted
    ]


@pytest.fixture
def full() -> Metrics:
    metrics = Metrics()
    everything(metrics)
    metrics.watch(state)
    metrics.look()
    return metrics


def own(families: list[Metric]) -> dict[str, Metric]:
    return {family.name: family for family in families if family.name.startswith("gptnode_")}


def test_every_metric_of_the_catalogue_is_on_the_page_and_no_other_with_its_type_and_labels(
    full: Metrics,
) -> None:
    shown = own(list(text_string_to_metric_families(full.render().body.decode())))
    shown = {name: family for name, family in shown.items() if not name.endswith("_created")}
    assert set(shown) == {metric.name.removesuffix("_total") for metric in CATALOGUE}
    for metric in CATALOGUE:
        family = shown[metric.name.removesuffix("_total")]
        assert (family.type, family.documentation) == (metric.kind, metric.help)
        assert family.samples, metric.name
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(metric.labels)


def test_a_scraper_that_asks_for_openmetrics_gets_it_with_the_same_values(full: Metrics) -> None:
    page = full.render(OPENMETRICS)
    assert page.content_type.startswith("application/openmetrics-text; version=1.0.0")
    assert page.body.endswith(b"# EOF\n")
    theirs = own(list(openmetrics_families(page.body.decode())))
    plain = full.render("text/plain")
    assert plain.content_type.startswith("text/plain; version=")
    ours = own(list(text_string_to_metric_families(plain.body.decode())))
    for name, family in theirs.items():
        before = {(s.name, tuple(sorted(s.labels.items()))): s.value for s in ours[name].samples}
        for sample in family.samples:
            if not sample.name.endswith("_created"):
                assert before[sample.name, tuple(sorted(sample.labels.items()))] == sample.value


def test_names_follow_the_conventions() -> None:
    for metric in CATALOGUE:
        assert metric.name.startswith("gptnode_")
        assert metric.name.endswith("_total") == (metric.kind == "counter")
        assert bool(metric.buckets) == (metric.kind == "histogram")
        assert metric.help.endswith(".")
        timed = metric.name.endswith("_seconds") or "batch" in metric.name
        assert timed == (metric.kind == "histogram")


def test_a_prompt_is_counted_with_its_first_token_and_what_caches_held_of_it_apart() -> None:
    metrics = Metrics()
    answer = metrics.answer("demo", 20)
    assert value(metrics, names.PROMPT_TOKENS, model="demo") is None
    answer.token(timing(12), HOPS)
    answer.token(timing(), HOPS)
    assert value(metrics, names.PROMPT_TOKENS, model="demo") == 20
    assert value(metrics, names.REUSED_TOKENS, model="demo") == 8
    assert value(metrics, names.COMPLETION_TOKENS, model="demo") == 2
    assert value(metrics, names.FIRST_TOKEN_SECONDS, "_count", model="demo") == 1
    assert value(metrics, names.TOKEN_SECONDS, "_sum", model="demo") == pytest.approx(0.06)


def test_a_prompt_that_took_several_attempts_is_not_taken_for_one_from_caches() -> None:
    metrics = Metrics()
    metrics.answer("demo", 600).token(timing(88, attempts=2), HOPS)
    assert value(metrics, names.PROMPT_TOKENS, model="demo") == 600
    assert value(metrics, names.REUSED_TOKENS, model="demo") is None


def test_each_hop_has_its_parts_by_phase_and_a_guessed_token_has_none() -> None:
    metrics = Metrics()
    everything(metrics)
    for peer in ("anna", "ben"):
        for phase in ("prefill", "decode"):
            labels = {"peer": peer, "phase": phase}
            assert value(metrics, names.HOP_SECONDS, "_count", part="wire", **labels) == 1
            assert value(metrics, names.HOP_SECONDS, "_sum", part="wire", **labels) == 0.003
            assert value(metrics, names.HOP_SECONDS, "_sum", part="compute", **labels) == 0.02
    assert value(metrics, names.COMPLETION_TOKENS, model="demo") == 3


def test_only_the_first_word_on_how_an_answer_ended_counts() -> None:
    metrics = Metrics()
    answer = metrics.answer("demo", 1)
    answer.ended("length")
    answer.ended("cancelled")
    assert value(metrics, names.ANSWERS, model="demo", reason="length") == 1
    assert value(metrics, names.ANSWERS, model="demo", reason="cancelled") is None


def test_traces_hear_of_the_same_answers() -> None:
    heard: list[object] = []

    class Ear(AnswerMeter):
        def token(self, timing: object, hops: object) -> None:
            heard.append("token")

        def ended(self, reason: str) -> None:
            heard.append(reason)

    class Traces(Meter):
        def answer(self, model: str, prompt_tokens: int) -> AnswerMeter:
            heard.append((model, prompt_tokens))
            return Ear()

    everything(Metrics(traces=Traces()))
    assert heard == [("demo", 20), "token", "token", "token", "stop"]


def test_two_nodes_in_a_process_share_nothing() -> None:
    anna, ben = Metrics(), Metrics()
    everything(anna)
    assert value(anna, names.SESSIONS_OPENED, model="demo") == 1
    assert value(ben, names.SESSIONS_OPENED, model="demo") is None


def test_what_is_watched_is_read_anew_with_each_look() -> None:
    metrics = Metrics()
    sessions = [3.0]
    metrics.watch(lambda: [Reading(names.SESSIONS, sessions[0])])
    metrics.look()
    sessions[0] = 4.0
    assert value(metrics, names.SESSIONS) == 3
    metrics.look()
    assert value(metrics, names.SESSIONS) == 4


def test_nobody_is_told_without_a_meter() -> None:
    everything(NO_METER)  # raises nothing
    assert vars(NO_METER) == {}


@given(st.lists(st.one_of(st.floats(0, 100), st.sampled_from(names.STEP_BUCKETS_S))))
def test_a_histogram_has_the_same_buckets_as_prometheus_own(values: list[float]) -> None:
    registry = prometheus_client.CollectorRegistry()
    metric = names.TOKEN_SECONDS
    theirs = prometheus_client.Histogram(
        metric.name, metric.help, metric.labels, buckets=metric.buckets, registry=registry
    ).labels("demo")
    ours = Histogram(metric)
    for one in values:
        theirs.observe(one)
        ours.labels("demo").observe(one)
    (family,) = ours.collect()
    for sample in family.samples:
        expected = registry.get_sample_value(sample.name, sample.labels)
        assert expected is not None
        assert sample.value == pytest.approx(expected)
