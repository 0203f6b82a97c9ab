"""A real port, and the `openai` package against answers that were written beforehand."""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import openai
import pytest
import trio
from openai import OpenAI
from pydantic import BaseModel

from gptnode.api.config import Address, ApiConfig
from gptnode.api.serving import bind, serve_api
from gptnode.errors import RouteError, ServiceBusyError, UsageError

from .scripted import HERMES, ScriptedService
from .test_chat import CALL, TOOL

ANY_PORT = ApiConfig(address=Address("127.0.0.1", 0))
RAIN: list[Any] = [{"role": "user", "content": "Rain in Köln?"}]


@contextmanager
def serving(service: Any, config: ApiConfig = ANY_PORT) -> Iterator[str]:
    """A server in a thread; its URL with ``/v1``."""
    started: queue.Queue[tuple[trio.lowlevel.TrioToken, trio.Event]] = queue.Queue()
    bound = bind(config.address)
    port = int(bound.getsockname()[1])
    config = replace(config, address=replace(config.address, port=port))

    async def run() -> None:
        leave = trio.Event()
        token = trio.lowlevel.current_trio_token()
        await serve_api(
            service, config, bound, ready=lambda: started.put((token, leave)), leave=leave
        )

    thread = threading.Thread(target=trio.run, args=(run,))
    thread.start()
    token, leave = started.get(timeout=30)
    try:
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        token.run_sync_soon(leave.set)
        thread.join(60)
        assert not thread.is_alive()


@contextmanager
def client_of(service: Any, **options: Any) -> Iterator[OpenAI]:
    with (
        serving(service) as url,
        OpenAI(base_url=url, api_key="none", **{"max_retries": 0, **options}) as client,
    ):
        yield client


def test_a_tool_is_called_and_its_result_goes_back() -> None:
    service = ScriptedService(CALL, template=HERMES)
    with client_of(service) as client:
        asked = client.chat.completions.create(model="scripted", messages=RAIN, tools=[TOOL])
        assert asked.choices[0].finish_reason == "tool_calls"
        message = asked.choices[0].message
        assert message.tool_calls is not None
        (call,) = message.tool_calls
        assert json.loads(call.function.arguments) == {"place": "Köln"}
        service.pieces = ["No", " rain."]
        result = {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
        answered = client.chat.completions.create(
            model="scripted", messages=[*RAIN, message, result], tools=[TOOL]
        )
    assert answered.choices[0].message.content == "No rain."
    assert "<|im_start|>tool\nsunny" in service.prompts[1]


def test_the_helper_for_streams_gathers_calls() -> None:
    with (
        client_of(ScriptedService("Let me see. ", *CALL, *CALL)) as client,
        client.chat.completions.stream(model="scripted", messages=RAIN, tools=[TOOL]) as stream,
    ):
        kinds = {event.type for event in stream}
        message = stream.get_final_completion().choices[0].message
    assert "tool_calls.function.arguments.done" in kinds
    assert [call.function.name for call in message.tool_calls or ()] == ["weather", "weather"]


def test_answers_are_parsed_into_models() -> None:
    class Weather(BaseModel):
        rain: bool

    service = ScriptedService('{"rain": ', "true}")
    with client_of(service) as client:
        done = client.chat.completions.parse(
            model="scripted", messages=RAIN, response_format=Weather
        )
    assert done.choices[0].message.parsed == Weather(rain=True)
    grammar = service.settings[0].grammar
    assert grammar is not None
    assert json.loads(grammar.source)["required"] == ["rain"]


def test_a_client_comes_back_when_it_is_told_to() -> None:
    service = ScriptedService("here", queue_error=ServiceBusyError("full", 1.0))

    def free() -> None:
        time.sleep(0.5)
        service.queue_error = None

    with client_of(service, max_retries=3) as client:
        threading.Thread(target=free).start()
        done = client.chat.completions.create(model="scripted", messages=RAIN)
    assert done.choices[0].message.content == "here"


def test_an_error_in_the_middle_of_a_stream_is_raised() -> None:
    service = ScriptedService("one", "two")
    service.error, service.error_after = RouteError("blocks 4-7 have nobody"), 1
    with client_of(service) as client:
        stream = client.chat.completions.create(model="scripted", messages=RAIN, stream=True)
        with pytest.raises(openai.APIError, match="blocks 4-7 have nobody"):
            list(stream)


def test_answers_that_run_may_end_when_the_server_leaves() -> None:
    service = ScriptedService(*["word "] * 20, pace_s=0.05)
    with serving(service) as url:
        client = OpenAI(base_url=url, api_key="none", max_retries=0)
        stream = client.chat.completions.create(model="scripted", messages=RAIN, stream=True)
        first = next(iter(stream))
        said: list[Any] = []
        reader = threading.Thread(target=lambda: said.extend(stream))
        reader.start()
    reader.join(30)
    client.close()
    assert first.choices[0].delta.role == "assistant"
    assert said[-1].choices[0].finish_reason == "stop"
    assert len(said) == 21


def test_an_answer_that_doesnt_end_is_cut_off() -> None:
    service = ScriptedService(*["word "] * 1000, pace_s=0.05)
    with serving(service, replace(ANY_PORT, graceful_s=0.3)) as url:
        client = OpenAI(base_url=url, api_key="none", max_retries=0)
        next(iter(client.chat.completions.create(model="scripted", messages=RAIN, stream=True)))
    client.close()
    assert service.open == 0


def test_a_port_that_is_taken_is_said() -> None:
    with (
        serving(ScriptedService()) as url,
        pytest.raises(UsageError, match="another program listens there"),
    ):
        bind(Address("127.0.0.1", int(url.split(":")[2].split("/")[0])))


def test_tls_takes_both_files(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--certificate and --key"):
        replace(ANY_PORT, certificate=tmp_path / "a.pem")
