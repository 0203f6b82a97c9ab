"""A whole server that is watched: what its pages say while things happen to it."""

from __future__ import annotations

import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families

from gptnode.errors import GptNodeError
from gptnode.net.client_channel import ClientChannel
from gptnode.net.host import Host
from gptnode.net.identity import create_identity
from gptnode.node import metric_catalogue as names
from gptnode.node.loading import ModelSource
from gptnode.node.metric_catalogue import Described
from gptnode.node.serving import ReadyInfo
from gptnode.node.status_file import read_status
from gptnode.span import Span

from .test_block_server import hidden, open_for, step
from .test_serving import Place, dialler, gets_in, serving, session


@pytest.fixture
def place(tmp_path: Path, tiny_model: Path) -> Place:
    place = Place(tmp_path, tiny_model)
    for name in ("anna", "ben", "laptop", "phone"):
        place.ids[name] = create_identity(tmp_path / f"{name}.key")
    place.write_map(["laptop"])
    return place


class Pages:
    """Asks a server over HTTP."""

    def __init__(self, url: str) -> None:
        self._base = url.removesuffix("/metrics")

    async def get(self, path: str) -> tuple[int, str]:
        return await trio.to_thread.run_sync(self._get, path)

    def _get(self, path: str) -> tuple[int, str]:
        try:
            with urlopen(self._base + path, timeout=20) as answer:
                return answer.status, answer.read().decode()
        except HTTPError as error:
            with error:
                return error.code, error.read().decode()

    async def value(self, metric: Described, suffix: str = "", **labels: str) -> float:
        """Of one sample; 0 if it isn't there."""
        status, text = await self.get("/metrics")
        assert status == 200
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == metric.name + suffix and sample.labels == labels:
                    return float(sample.value)
        return 0.0

    async def until_ready(self, status: int) -> str:
        """What /readyz says once it has that status."""
        with trio.fail_after(20):
            while True:
                found, text = await self.get("/readyz")
                if found == status:
                    return text
                await trio.sleep(0.02)

    async def until(self, wanted: float, metric: Described, **labels: str) -> None:
        with trio.fail_after(20):
            while await self.value(metric, **labels) != wanted:  # noqa: ASYNC110 (HTTP has no event)
                await trio.sleep(0.02)


@asynccontextmanager
async def watched(
    place: Place, **changes: int
) -> AsyncIterator[tuple[ReadyInfo, trio.Event, Pages]]:
    config = replace(place.config, metrics=("127.0.0.1", 0), **changes)  # type: ignore[arg-type]
    async with serving(config) as (info, leave, _):
        status = read_status(config.identity_path)
        yield info, leave, Pages(status["metrics"])


async def is_refused(host: Host, info: ReadyInfo, source: ModelSource, span: Span) -> None:
    channel = ClientChannel(await host.open_stream(info.peer_id))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(channel.run)
        with pytest.raises(GptNodeError):
            await channel.request(open_for(source, span), timeout_s=5)
        await channel.aclose()


class Gate:
    """Blocks are loaded only while it is open."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    gate = Gate()
    load = ModelSource.load_blocks

    def load_at_the_gate(self: ModelSource, span: Span) -> object:
        gate.open.wait(30)
        return load(self, span)

    monkeypatch.setattr(ModelSource, "load_blocks", load_at_the_gate)
    yield gate
    gate.open.set()


async def test_a_session_and_its_steps_are_counted_and_its_memory_is_shown_while_it_lives(
    place: Place, source: ModelSource
) -> None:
    async with watched(place) as (info, _, pages), dialler(place, "laptop") as host:
        assert await pages.value(names.NODE_INFO, peer_id=info.peer_id, version="0.1.0") == 1
        assert await pages.value(names.READY) == 1
        assert await pages.value(names.BLOCKS_LOADED, model="tiny") == 2
        assert await gets_in(host, info)
        async with session(host, info, source) as channel:
            await step(channel, 0, hidden(40))
            await step(channel, 40, hidden(1))
            assert await pages.value(names.SESSIONS) == 1
            assert await pages.value(names.PEER_SESSIONS, peer="laptop") == 1
            assert await pages.value(names.KV_BYTES) > 0
            assert await pages.value(names.KV_LIMIT_BYTES) == place.config.kv_bytes
            assert await pages.value(names.CONNECTIONS) == 1
        for phase, tokens in (("prefill", 40), ("decode", 1)):
            labels = {"model": "tiny", "phase": phase}
            assert await pages.value(names.SERVER_TOKENS, **labels) == tokens
            labels["part"] = "compute"
            assert await pages.value(names.SERVER_STEP_SECONDS, "_count", **labels) == 1
        await pages.until(0, names.SESSIONS)
        assert await pages.value(names.KV_BYTES) == 0
        assert await pages.value(names.SESSIONS_OPENED, model="tiny") == 1
        assert await pages.value(names.SESSIONS_ENDED, how="closed") == 1
        assert await pages.value(names.RECEIVED_BYTES) > 41 * hidden(1).shape[2] * 4
        assert await pages.value(names.SENT_BYTES) > 41 * hidden(1).shape[2] * 4


async def test_traffic_of_connections_that_ended_stays_counted(place: Place) -> None:
    async with watched(place) as (info, _, pages):
        before = 0.0
        for _ in range(2):
            async with dialler(place, "laptop") as host:
                assert await gets_in(host, info)
            await pages.until(0, names.CONNECTIONS)
            received = await pages.value(names.RECEIVED_BYTES)
            assert received > before
            before = received


async def test_a_peer_that_the_map_does_not_list_is_counted_and_not_named(place: Place) -> None:
    async with watched(place) as (info, _, pages), dialler(place, "phone") as host:
        assert await pages.value(names.REFUSED_PEERS) == 0
        assert not await gets_in(host, info)
        assert await pages.value(names.REFUSED_PEERS) == 1
        assert not await gets_in(host, info)
        assert await pages.value(names.REFUSED_PEERS) == 2
        assert place.ids["phone"].peer_id not in (await pages.get("/metrics"))[1]


async def test_a_refused_session_is_counted_by_what_the_client_was_told(
    place: Place, source: ModelSource
) -> None:
    async with watched(place, max_sessions=1) as (info, _, pages):
        async with dialler(place, "laptop") as host:
            assert await gets_in(host, info)
            async with session(host, info, source):
                await is_refused(host, info, source, Span(0, 2))
            await pages.until(0, names.SESSIONS)
            await is_refused(host, info, source, Span(2, 4))
        assert await pages.value(names.SESSIONS_REFUSED, reason="busy") == 1
        assert await pages.value(names.SESSIONS_REFUSED, reason="no_span") == 1
        assert await pages.value(names.SESSIONS_OPENED, model="tiny") == 1


async def test_edits_of_the_map_are_counted_by_what_came_of_them(place: Place) -> None:
    async with watched(place) as (_, _, pages):
        place.write_map(["laptop", "phone"])
        await pages.until(1, names.MAP_EDITS, outcome="taken")
        place.config.map_path.write_text("{")
        await pages.until(1, names.MAP_EDITS, outcome="rejected")
        assert await pages.value(names.MAP_EDITS, outcome="taken") == 1
        assert (await pages.get("/readyz"))[0] == 200  # the map before is served on


async def test_readyz_says_which_blocks_are_still_loading_and_healthz_answers_meanwhile(
    place: Place, gate: Gate
) -> None:
    async with watched(place) as (_, _, pages):
        assert await pages.get("/readyz") == (200, "ready\n")
        gate.open.clear()
        document = json.loads(place.config.map_path.read_text())
        document["routes"][1]["blocks"] = "0-3"
        place.config.map_path.write_text(json.dumps(document))
        text = await pages.until_ready(503)
        assert text == "loading: blocks 0-3 of tiny\n"
        assert await pages.value(names.READY) == 0
        assert await pages.get("/healthz") == (200, "alive\n")
        gate.open.set()
        await pages.until_ready(200)
        assert await pages.value(names.BLOCKS_LOADED, model="tiny") == 4


async def test_readyz_says_what_can_not_be_served_and_is_ready_when_it_was_mended(
    place: Place,
) -> None:
    async with watched(place) as (_, _, pages):
        document = json.loads(place.config.map_path.read_text())
        document["models"][0]["path"] = "nowhere"
        place.config.map_path.write_text(json.dumps(document))
        with trio.fail_after(20):
            while "can't serve" not in (text := (await pages.get("/readyz"))[1]):  # noqa: ASYNC110
                await trio.sleep(0.02)
        assert "nowhere" in text
        assert "loading" not in text
        place.write_map(["laptop"])
        await pages.until_ready(200)


async def test_a_server_that_the_map_gives_nothing_is_not_ready(place: Place) -> None:
    async with watched(place) as (_, _, pages):
        place.write_map(["laptop"], routes=[{"blocks": "0-3", "peers": ["ben"]}])
        assert await pages.until_ready(503) == "the BlocksMap gives this node no blocks\n"


async def test_an_end_that_the_map_gives_a_server_is_loaded_before_it_is_ready(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, load = threading.Event(), ModelSource.load_embedding

    def load_at_the_gate(self: ModelSource) -> object:
        gate.wait(30)
        return load(self)

    monkeypatch.setattr(ModelSource, "load_embedding", load_at_the_gate)
    async with watched(place) as (_, _, pages):
        document = json.loads(place.config.map_path.read_text())
        for route in document["routes"]:
            route["embed"] = True
        place.config.map_path.write_text(json.dumps(document))
        assert await pages.until_ready(503) == "loading: the embedding of tiny\n"
        gate.set()
        await pages.until_ready(200)


async def test_readyz_says_that_a_server_leaves_until_it_is_gone(
    place: Place, gate: Gate, source: ModelSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gptnode.node.serving.DRAIN_S", 30.0)
    async with watched(place) as (info, leave, pages), dialler(place, "laptop") as host:
        assert await gets_in(host, info)
        async with session(host, info, source) as channel, trio.open_nursery() as nursery:
            # A step that waits for the lane, which loads: the server can't leave at once.
            gate.open.clear()
            document = json.loads(place.config.map_path.read_text())
            document["routes"][1]["blocks"] = "0-3"
            place.config.map_path.write_text(json.dumps(document))
            await pages.until_ready(503)

            async def one_step() -> None:
                with pytest.raises(GptNodeError):
                    while True:
                        await step(channel, 0, hidden(1))

            nursery.start_soon(one_step)
            await trio.sleep(0.2)
            leave.set()
            with trio.fail_after(20):
                while "leaving" not in (await pages.get("/readyz"))[1]:  # noqa: ASYNC110
                    await trio.sleep(0.01)
            gate.open.set()


async def test_a_server_without_the_option_serves_no_pages(place: Place) -> None:
    async with serving(place.config):
        assert read_status(place.config.identity_path)["metrics"] is None
