from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing

from gptnode.api.app import make_app
from gptnode.api.config import ApiConfig, ApiLimits
from gptnode.errors import MismatchError, PeerBusyError, RouteError, ServiceBusyError, TextError

from .conftest import chat_body, over
from .scripted import ScriptedService

CHAT = "/v1/chat/completions"


class Conversation:
    """One request to an app, with a client that can go away and read slowly."""

    def __init__(self, service: Any, config: ApiConfig | None = None, *, stream: bool) -> None:
        self.sent: list[dict[str, Any]] = []
        self.gone = trio.Event()
        self.ended = trio.Event()
        self.reading = True
        self._app = make_app(service, config or ApiConfig())
        body = json.dumps(chat_body("Hello.", model="scripted", stream=stream)).encode()
        self._body = [{"type": "http.request", "body": body, "more_body": False}]

    async def run(self) -> None:
        scope = {
            "type": "http",
            "method": "POST",
            "path": CHAT,
            "query_string": b"",
            "scheme": "http",
            "http_version": "1.1",
            "headers": [(b"host", b"localhost:8000"), (b"content-type", b"application/json"),
                        (b"content-length", b"1")],
        }  # fmt: skip
        await self._app(scope, self._receive, self._send)
        self.ended.set()

    @property
    def text(self) -> str:
        return b"".join(message.get("body", b"") for message in self.sent).decode()

    async def _receive(self) -> dict[str, Any]:
        if self._body:
            return self._body.pop()
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        await trio.lowlevel.checkpoint()
        if not self.reading and message["type"] == "http.response.body":
            await trio.sleep_forever()
        self.sent.append(message)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_goes_away_ends_its_answer(
    stream: bool, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    service = ScriptedService(*["word "] * 1000, pace_s=1.0)
    talk = Conversation(service, stream=stream)
    nursery.start_soon(talk.run)
    await trio.sleep(5.5)
    assert (service.open, service.cancelled) == (1, 0)
    talk.gone.set()
    await talk.ended.wait()
    assert trio.current_time() < 6
    assert (service.open, service.cancelled) == (0, 1)
    assert bool(talk.sent) == stream


async def test_a_client_that_doesnt_read_loses_its_answer(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    service = ScriptedService(*["word "] * 1000)
    talk = Conversation(service, ApiConfig(limits=ApiLimits(stalled_s=60)), stream=True)
    talk.reading = False
    nursery.start_soon(talk.run)
    await trio.sleep(59)
    assert service.open == 1
    await talk.ended.wait()
    assert service.open == 0
    assert trio.current_time() < 70


async def test_silence_is_filled_with_comments(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    service = ScriptedService("one", pace_s=25.0)
    talk = Conversation(service, stream=True)
    nursery.start_soon(talk.run)
    await trio.sleep(4)
    assert talk.sent[0]["status"] == 200  # the headers don't wait for ever
    await talk.ended.wait()
    assert talk.text.startswith(": keep-alive\n\n: keep-alive\n\n")
    assert talk.text.endswith("data: [DONE]\n\n")


ERRORS: list[tuple[Callable[[], Exception], int, str]] = [
    (lambda: RouteError("blocks 4-7 have no live peer"), 503, "no_live_peer"),
    (lambda: PeerBusyError("ben is full", 7.2), 503, "peers_busy"),
    (lambda: MismatchError("other weights"), 500, "mismatch_error"),
    (lambda: TextError("the template fails"), 400, "template_error"),
    (lambda: RuntimeError("a secret of the server"), 500, "bug"),
]


@pytest.mark.parametrize(("make", "status", "code"), ERRORS)
@pytest.mark.parametrize("stream", [True, False])
async def test_an_error_before_the_first_word_is_a_status(
    make: Callable[[], Exception], status: int, code: str, stream: bool
) -> None:
    service = ScriptedService("one")
    service.error = make()
    async with over(service) as client:
        response = await client.post(CHAT, json=chat_body("Hi", model="scripted", stream=stream))
    assert response.status_code == status
    assert response.json()["error"]["code"] == code
    assert "secret" not in response.text
    assert ("retry-after" in response.headers) == (status == 503)
    assert service.open == 0


async def test_an_error_in_the_middle_is_an_event_and_there_is_no_done() -> None:
    service = ScriptedService("one", "two")
    service.error, service.error_after = RouteError("nobody has blocks 4-7"), 1
    async with over(service) as client:
        response = await client.post(CHAT, json=chat_body("Hi", model="scripted", stream=True))
    *_, last, nothing = response.text.split("\n\n")
    assert nothing == ""
    error = json.loads(last.removeprefix("data: "))["error"]
    assert error["code"] == "no_live_peer"
    assert "[DONE]" not in response.text


async def test_a_full_service_is_429_with_a_time() -> None:
    error = ServiceBusyError("64 wait already", 2.3)
    async with over(ScriptedService("x", queue_error=error)) as client:
        for stream in (True, False):
            body = chat_body("Hi", model="scripted", stream=stream)
            response = await client.post(CHAT, json=body)
            assert response.status_code == 429
            assert response.headers["retry-after"] == "3"


async def test_one_of_several_choices_that_fails_ends_the_others(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    service = ScriptedService("one", "two", pace_s=1.0)
    service.error, service.error_after = RouteError("gone"), 1
    async with over(service) as client:
        response = await client.post(CHAT, json=chat_body("Hi", model="scripted", n=3))
    assert response.status_code == 503
    assert service.open == 0
