"""/metrics, /healthz and /readyz of the API: what the service does, as machines read it."""

from __future__ import annotations

from typing import Any, cast

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from gptnode.api.app import make_app
from gptnode.api.config import ApiConfig
from gptnode.api.health import why_not_ready
from gptnode.demo.bundled import MODEL_NAME, bundled_model_folder
from gptnode.node import metric_catalogue as names
from gptnode.node.config import ClientConfig
from gptnode.node.metrics import Metrics
from gptnode.node.runtime import open_service
from gptnode.node.service import Service, ServiceLimits
from gptnode.node.swarm import HopView
from gptnode.span import Span

from .conftest import BASE, chat_body
from .scripted import ScriptedService

TOKEN = "a token of some length"


def samples(text: str) -> dict[tuple[str, str], float]:
    """Values by name and labels."""
    return {
        (sample.name, ",".join(f"{key}={value}" for key, value in sorted(sample.labels.items()))): (
            sample.value
        )
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def client_of(service: Any, metrics: Metrics, **config: Any) -> httpx.AsyncClient:
    app = make_app(service, ApiConfig(**config), metrics=metrics)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url=BASE)


async def test_an_answer_over_the_api_is_counted_and_the_service_is_idle_again_after_it() -> None:
    config = ClientConfig(model_dir=bundled_model_folder(), model_name=MODEL_NAME, threads=1)
    metrics = Metrics()
    async with (
        open_service(config, ServiceLimits(), report=lambda line: None, meter=metrics) as service,
        client_of(service, metrics) as client,
    ):
        body = chat_body("Who are you?", max_tokens=8)
        usage = (await client.post("/v1/chat/completions", json=body)).json()["usage"]
        found = samples((await client.get("/metrics")).text)
        model = f"model={MODEL_NAME}"
        assert found[names.COMPLETION_TOKENS.name, model] == usage["completion_tokens"] > 0
        assert found[names.PROMPT_TOKENS.name, model] == usage["prompt_tokens"]
        assert found[f"{names.FIRST_TOKEN_SECONDS.name}_count", model] == 1
        assert found[names.SERVICE_ANSWERING.name, ""] == 0
        assert found[names.SERVICE_IDLE.name, ""] == 1
        hop = "part=compute,peer=this node,phase=decode"
        assert found[f"{names.HOP_SECONDS.name}_sum", hop] > 0
        assert (await client.get("/healthz")).text == "alive\n"
        assert (await client.get("/readyz")).text == "ready\n"


def hop(label: str, blocks: str, state: str) -> HopView:
    return HopView(label, label, Span.parse(blocks), state, None, ())


class Hops(ScriptedService):
    """A service whose route is what a test says."""

    def __init__(self, *hops: HopView) -> None:
        super().__init__("Hello.")
        self._hops = hops

    def hops(self) -> tuple[HopView, ...]:  # type: ignore[override]
        return self._hops


@pytest.mark.parametrize("state", ["lost", "down", "busy", "wrong"])
async def test_readyz_says_which_blocks_nobody_has_and_names_no_peer(state: str) -> None:
    service = Hops(hop("anna", "0-3", "idle"), hop("ben", "4-7", state))
    async with client_of(service, Metrics()) as client:
        response = await client.get("/readyz")
        assert response.status_code == 503
        assert "blocks 4-7" in response.text
        assert state in response.text
        assert "ben" not in response.text
        assert "0-3" not in response.text
        assert (await client.get("/healthz")).status_code == 200


@pytest.mark.parametrize("state", ["local", "connected", "idle", "slow"])
def test_a_hop_that_works_or_was_not_asked_yet_is_ready(state: str) -> None:
    assert why_not_ready(cast(Service, Hops(hop("anna", "0-7", state)))) == ()


async def test_metrics_take_the_token_and_what_supervisors_ask_takes_none() -> None:
    async with client_of(Hops(), Metrics(), token=TOKEN) as client:
        assert (await client.get("/metrics")).status_code == 401
        authorised = {"Authorization": f"Bearer {TOKEN}"}
        assert (await client.get("/metrics", headers=authorised)).status_code == 200
        assert (await client.get("/healthz")).status_code == 200
        assert (await client.get("/readyz")).status_code == 200


async def test_a_scraper_that_asks_for_openmetrics_gets_it() -> None:
    async with client_of(Hops(), Metrics()) as client:
        accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
        response = await client.get("/metrics", headers=accept)
        assert response.headers["content-type"].startswith("application/openmetrics-text")
        assert response.text.endswith("# EOF\n")
