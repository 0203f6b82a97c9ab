from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import trio
import trio.testing

from gptnode.api.app import make_app
from gptnode.api.config import Address, ApiConfig, ApiLimits

from .conftest import chat_body, over
from .scripted import ScriptedService

CHAT = "/v1/chat/completions"
TOKEN = "a-token-of-sixteen-and-more"
BODY = chat_body("Hello.", model="scripted")


async def get(config: ApiConfig, path: str = "/v1/models", **headers: str) -> httpx.Response:
    async with over(ScriptedService("ok"), config) as client:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await client.get(path, headers=named)


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8000", "localhost:8000", "LOCALHOST:8000", "[::1]:8000"]
)
async def test_the_names_of_this_machine_are_answered(host: str) -> None:
    assert (await get(ApiConfig(), host=host)).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example:8000",
        "evil.example",
        "127.0.0.1:80",
        "127.0.0.1",
        "localhost.evil.example:8000",
        "127.0.0.1:8000.evil.example",
        "192.168.0.1:8000",
        "",
    ],
)
async def test_other_names_are_not(host: str) -> None:
    response = await get(ApiConfig(), host=host)
    assert response.status_code == 403
    assert response.json()["error"]["code"] == "host_not_allowed"


async def test_in_a_network_addresses_and_given_names_are_answered() -> None:
    config = ApiConfig(
        address=Address("0.0.0.0", 8000), token=TOKEN, hosts=frozenset({"swarm.example"})
    )
    bearer = f"Bearer {TOKEN}"
    for host in ("192.168.0.7:8000", "[fe80::1]:8000", "swarm.example", "swarm.example:443"):
        assert (await get(config, host=host, authorization=bearer)).status_code == 200, host
    response = await get(config, host="evil.example:8000", authorization=bearer)
    assert response.status_code == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://localhost:3000"},
        {"origin": "https://127.0.0.1:8000"},
        {"origin": ""},
        {"sec_fetch_site": "cross-site", "sec_fetch_mode": "no-cors"},
        {"sec_fetch_site": "same-site", "sec_fetch_mode": "no-cors"},
    ],
)
async def test_pages_of_other_sites_are_turned_away(headers: dict[str, str]) -> None:
    response = await get(ApiConfig(), **headers)
    assert response.status_code == 403
    assert response.json()["error"]["code"] == "origin_not_allowed"
    assert "access-control-allow-origin" not in response.headers


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://127.0.0.1:8000", "sec_fetch_site": "same-origin"},
        {"sec_fetch_site": "none"},
        {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate"},  # a link to the page
    ],
)
async def test_the_own_page_is_let_in(headers: dict[str, str]) -> None:
    assert (await get(ApiConfig(), **headers)).status_code == 200


async def test_behind_a_proxy_that_was_named_the_own_page_may_come_over_tls() -> None:
    config = ApiConfig(hosts=frozenset({"swarm.example"}))
    for scheme in ("http", "https"):
        response = await get(config, host="swarm.example", origin=f"{scheme}://swarm.example")
        assert response.status_code == 200
    response = await get(config, host="swarm.example", origin="https://127.0.0.1:8000")
    assert response.status_code == 403


async def test_a_site_that_was_named_gets_cors_and_no_other() -> None:
    site = "https://chat.example"
    config = ApiConfig(origins=frozenset({site}), token=TOKEN)
    async with over(ScriptedService("ok"), config) as client:
        preflight = await client.options(
            CHAT,
            headers={
                "origin": site,
                "access-control-request-method": "POST",
                "access-control-request-headers": "authorization,content-type,x-stainless-os",
            },
        )
        assert preflight.status_code == 204
        assert preflight.headers["access-control-allow-origin"] == site
        assert "x-stainless-os" in preflight.headers["access-control-allow-headers"]
        headers = {"origin": site, "authorization": f"Bearer {TOKEN}"}
        answered = await client.post(CHAT, json=BODY, headers=headers)
        assert answered.status_code == 200
        assert answered.headers["access-control-allow-origin"] == site
        assert "Origin" in answered.headers["vary"]
        refused = await client.post(CHAT, json=BODY, headers=headers | {"origin": site + ".evil"})
        assert refused.status_code == 403
        # An error can be read there too.
        del headers["authorization"]
        assert (await client.get("/v1/models", headers=headers)).status_code == 401


@pytest.mark.parametrize(
    "given", ["", "Bearer", "Bearer wrong", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x", "Bearer é"]
)
async def test_without_the_token_nothing_is_answered(given: str) -> None:
    config = ApiConfig(token=TOKEN)
    headers = {"authorization": given.encode()} if given else {}
    service = ScriptedService("ok")
    async with over(service, config) as client:
        for path in ("/v1/models", "/api/swarm", "/nowhere"):
            response = await client.get(path, headers=headers)
            assert response.status_code == 401, path
        assert response.headers["www-authenticate"] == "Bearer"
        response = await client.post(CHAT, json=BODY, headers=headers)
        assert response.status_code == 401
        assert response.json()["error"]["code"] == "invalid_api_key"
    assert service.prompts == []


async def test_the_page_itself_needs_no_token() -> None:
    config = ApiConfig(token=TOKEN)
    assert (await get(config, "/")).status_code == 200
    assert (await get(config, "/page/../v1/models")).status_code in (401, 404)


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
async def test_a_body_that_a_form_could_send_is_refused(kind: str) -> None:
    async with over(ScriptedService("ok")) as client:
        response = await client.post(CHAT, content=b"{}", headers={"content-type": kind})
    assert response.status_code == 415


async def test_a_body_is_as_large_as_the_limit_and_no_larger() -> None:
    config = ApiConfig(limits=ApiLimits(max_body_bytes=2000))
    async with over(ScriptedService("ok"), config) as client:
        headers = {"content-type": "application/json"}

        async def chunks(n: int) -> AsyncIterator[bytes]:
            for _ in range(n):
                yield b" " * 1000

        for content in (b" " * 2001, chunks(3)):
            response = await client.post(CHAT, content=content, headers=headers)
            assert response.status_code == 413
        response = await client.post(CHAT, content=chunks(2), headers=headers)
        assert response.json()["error"]["code"] == "invalid_json"


async def raw(app: Any, scope: dict[str, Any], messages: list[dict[str, Any]]) -> list[Any]:
    """What an app sends for a request that arrives in ``messages`` and then goes silent."""
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        if not messages:
            await trio.sleep_forever()
        return messages.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"host", b"127.0.0.1:8000"), *scope.pop("headers", [])]
    path = scope.pop("path", CHAT)
    await app(
        {
            "type": "http",
            "method": "POST",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "scheme": "http",
            "http_version": "1.1",
            "headers": headers,
            "server": ("127.0.0.1", 8000),
            "client": ("127.0.0.1", 5),
            **scope,
        },
        receive,
        send,
    )
    return sent


JSON = (b"content-type", b"application/json")


async def test_a_body_that_drips_is_given_up(autojump_clock: trio.testing.MockClock) -> None:
    app = make_app(ScriptedService("ok"), ApiConfig())  # type: ignore[arg-type]
    part = {"type": "http.request", "body": b"{", "more_body": True}
    sent = await raw(app, {"headers": [JSON, (b"content-length", b"50")]}, [part])
    assert sent[0]["status"] == 408
    assert trio.current_time() > 0


async def test_two_hosts_are_none() -> None:
    app = make_app(ScriptedService("ok"), ApiConfig())  # type: ignore[arg-type]
    sent = await raw(app, {"method": "GET", "headers": [(b"host", b"127.0.0.1:8000")]}, [])
    assert sent[0]["status"] == 403


async def test_headers_are_limited() -> None:
    response = await get(ApiConfig(), x_padding="a" * 17000)
    assert response.status_code == 431


async def test_another_http_is_refused() -> None:
    app = make_app(ScriptedService("ok"), ApiConfig())  # type: ignore[arg-type]
    sent = await raw(app, {"method": "GET", "http_version": "2"}, [])
    assert sent[0]["status"] == 505


async def test_a_client_that_goes_before_its_body_is_not_answered() -> None:
    app = make_app(ScriptedService("ok"), ApiConfig())  # type: ignore[arg-type]
    gone = {"type": "http.disconnect"}
    assert await raw(app, {"headers": [JSON, (b"content-length", b"50")]}, [gone]) == []


async def test_more_requests_than_the_limit_get_429(nursery: trio.Nursery) -> None:
    config = ApiConfig(limits=ApiLimits(max_requests=2))
    service = ScriptedService("ok", pace_s=1000)
    async with over(service, config, timeout=None) as client:
        for _ in range(2):
            nursery.start_soon(lambda: client.post(CHAT, json=BODY))
        await trio.testing.wait_all_tasks_blocked()
        response = await client.get("/v1/models")
        assert response.status_code == 429
        assert int(response.headers["retry-after"]) >= 1
        nursery.cancel_scope.cancel()


async def test_every_response_has_an_id_and_is_not_sniffed() -> None:
    for path in ("/v1/models", "/nowhere"):
        response = await get(ApiConfig(), path)
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["x-request-id"].startswith("req_")


async def test_streams_that_only_watch_end_when_the_server_leaves(nursery: trio.Nursery) -> None:
    app = make_app(ScriptedService("ok"), ApiConfig())  # type: ignore[arg-type]
    done = trio.Event()

    async def watch() -> None:
        empty = {"type": "http.request", "body": b"", "more_body": False}
        await raw(app, {"method": "GET", "path": "/api/swarm/events"}, [empty])
        done.set()

    nursery.start_soon(watch)
    await trio.testing.wait_all_tasks_blocked(0.1)
    assert not done.is_set()
    app.state.watchers.leave()
    with trio.fail_after(5):
        await done.wait()
