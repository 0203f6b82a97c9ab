"""The pages over real HTTP: what is asked is answered, and nothing asked does any harm."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import pytest
import trio

from gptnode.errors import NetworkError
from gptnode.node import metrics_endpoint
from gptnode.node.health_pages import HealthPages
from gptnode.node.metrics import Metrics
from gptnode.node.metrics_endpoint import serve_pages


class Node:
    """What is served, and where."""

    def __init__(self, address: str = "127.0.0.1") -> None:
        self.reasons: list[str] = []
        self.pages = HealthPages(Metrics(), lambda: self.reasons)
        self.address = address
        self.port = 0

    async def ask(self, request: bytes) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the answer to raw bytes; status 0 for no answer."""
        stream = await trio.open_tcp_stream(self.address, self.port)
        async with stream:
            await stream.send_all(request)
            answer = b""
            with trio.fail_after(20):
                while data := await stream.receive_some(65536):
                    answer += data
        head, _, body = answer.partition(b"\r\n\r\n")
        if not head:
            return 0, {}, b""
        status, *lines = head.decode().split("\r\n")
        pairs = (line.partition(": ") for line in lines)
        headers = {name.lower(): text for name, _, text in pairs}
        return int(status.split()[1]), headers, body

    async def get(self, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
        lines = {"Host": f"localhost:{self.port}", **headers}
        text = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        return await self.ask(f"GET {path} HTTP/1.1\r\n{text}\r\n".encode())


@asynccontextmanager
async def serving(node: Node) -> AsyncIterator[Node]:
    async with trio.open_nursery() as nursery:
        url = await nursery.start(serve_pages, (node.address, 0), node.pages)
        node.port = urlsplit(url).port or 0
        assert urlsplit(url).path == "/metrics"
        yield node
        nursery.cancel_scope.cancel()


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    async with serving(Node()) as node:
        yield node


async def test_metrics_are_served_in_the_form_that_is_asked_for(node: Node) -> None:
    status, headers, body = await node.get("/metrics?format=any")
    assert (status, headers["content-type"][:24]) == (200, "text/plain; version=0.0.")
    assert b"process_cpu_seconds_total" in body
    accept = "application/openmetrics-text; version=1.0.0"
    status, headers, body = await node.get("/metrics", Accept=accept)
    assert (status, headers["content-type"][:27]) == (200, "application/openmetrics-tex")
    assert body.endswith(b"# EOF\n")


async def test_healthz_answers_whether_ready_or_not(node: Node) -> None:
    node.reasons = ["loading"]
    assert (await node.get("/healthz"))[0] == 200


async def test_readyz_is_503_with_the_reasons_in_words_until_there_are_none(node: Node) -> None:
    node.reasons = ["blocks 0-3 are loading", "and 4-7"]
    assert (await node.get("/readyz"))[::2] == (503, b"blocks 0-3 are loading\nand 4-7\n")
    node.reasons = []
    assert (await node.get("/readyz"))[::2] == (200, b"ready\n")


async def test_any_other_page_is_404_and_any_other_method_405(node: Node) -> None:
    assert (await node.get("/"))[0] == 404
    assert (await node.get("/metrics/"))[0] == 404
    request = b"POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc"
    assert (await node.ask(request))[0] == 405


async def test_head_gets_the_headers_alone(node: Node) -> None:
    status, headers, body = await node.ask(b"HEAD /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert (status, body) == (200, b"")
    assert int(headers["content-length"]) > 1000


@pytest.mark.parametrize("host", ["127.0.0.1:9100", "localhost", "LOCALHOST:80", "[::1]:9100"])
async def test_on_loopback_its_own_names_are_answered(node: Node, host: str) -> None:
    assert (await node.get("/healthz", Host=host))[0] == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "10.0.0.1:9100", "[fe80::1]"]
)
async def test_on_loopback_a_foreign_name_is_not_answered(node: Node, host: str) -> None:
    status, _, body = await node.get("/metrics", Host=host)
    assert status == 421
    assert b"gptnode" not in body


async def test_what_is_no_request_or_too_large_is_refused_and_the_next_one_is_served(
    node: Node,
) -> None:
    assert (await node.ask(b"\x16\x03\x01 hello\r\n\r\n"))[0] == 400
    assert (await node.get("/metrics", Cookie="x" * 40_000))[0] == 431
    assert (await node.ask(b"GET /metrics HTTP/1.1\r\n\r\n"))[0] == 400  # without a host
    assert (await node.get("/healthz"))[0] == 200


async def test_who_says_nothing_is_cut_off_and_keeps_nobody_else_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(metrics_endpoint, "REQUEST_S", 0.3)
    async with serving(Node()) as node:
        idle = [
            await trio.open_tcp_stream(node.address, node.port)
            for _ in range(metrics_endpoint.MAX_CONNECTIONS)
        ]
        assert (await node.get("/healthz"))[0] == 0  # one too many
        with trio.fail_after(20):
            for stream in idle:
                assert await stream.receive_some() == b""
                await stream.aclose()
        assert (await node.get("/healthz"))[0] == 200


async def test_a_page_that_fails_costs_that_request_only(node: Node) -> None:
    def fails() -> list[str]:
        raise ValueError("broken")

    node.pages = HealthPages(Metrics(), lambda: [])
    broken = Node()
    broken.pages = HealthPages(Metrics(), fails)
    async with serving(broken):
        assert (await broken.get("/readyz"))[0] == 0
        assert (await broken.get("/healthz"))[0] == 200


async def test_a_port_that_is_taken_is_a_network_error_that_names_it(node: Node) -> None:
    with pytest.raises(NetworkError, match=rf"127\.0\.0\.1:{node.port}: the port is in use"):
        await serve_pages(("127.0.0.1", node.port), node.pages)
