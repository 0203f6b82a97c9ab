"""The `openai` package, as it is, against `gptnode api` over a swarm of two processes."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit
from urllib.request import urlopen

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

from gptnode.demo.bundled import MODEL_NAME, bundled_model_folder
from gptnode.demo.layout import lay_out_swarm
from gptnode.demo.swarm import LocalSwarm
from tests.e2e.api_server import ApiServer, api_server, over, seconds_until, sessions
from tests.e2e.conftest import DEADLINE_S, environment

QUESTION = [{"role": "user", "content": "What is a BlocksMap?"}]
COUNT = [{"role": "user", "content": "Count from 1 to 50"}]  # some hundred tokens
LONG = {"type": "string", "minLength": 4000}
ENDLESS = {  # until the context is full
    "response_format": {
        "type": "json_schema",
        "json_schema": {
            "name": "long",
            "schema": {"type": "object", "properties": {"text": LONG}, "required": ["text"]},
        },
    }
}


@pytest.fixture(scope="module")
def api(two_servers: LocalSwarm) -> Iterator[ApiServer]:
    """Keeps no caches after an answer, so that a session is one of an answer that runs; and guesses
    nothing, so that an answer that repeats itself takes its time."""
    options = ("--max-idle", "0", "--max-answers", "4", "--no-speculation")
    with api_server(*over(two_servers), *options) as api:
        yield api


@pytest.fixture(scope="module")
def client(api: ApiServer) -> Iterator[OpenAI]:
    with OpenAI(base_url=api.url, api_key="none", max_retries=0) as client:
        yield client


def ask(client: OpenAI, **options: object) -> str:
    asked = {"model": MODEL_NAME, "messages": QUESTION, "temperature": 0, **options}
    done = client.chat.completions.create(**asked)
    return done.choices[0].message.content or ""


def test_a_chat_completion(client: OpenAI) -> None:
    done = client.chat.completions.create(
        model=MODEL_NAME, messages=QUESTION, temperature=0, n=2, seed=1, user="me"
    )
    assert [choice.finish_reason for choice in done.choices] == ["stop", "stop"]
    assert "JSON file" in (done.choices[0].message.content or "")
    assert done.usage is not None
    assert done.usage.prompt_tokens_details is not None


def test_a_stream_of_chunks(client: OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model=MODEL_NAME,
            messages=QUESTION,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    *spoken, usage = chunks
    assert usage.usage is not None
    assert usage.usage.completion_tokens > 5
    said = "".join(chunk.choices[0].delta.content or "" for chunk in spoken)
    assert said == ask(client)
    assert len(spoken) > 5


def test_the_helper_for_streams_gathers_the_same(client: OpenAI) -> None:
    with client.chat.completions.stream(
        model=MODEL_NAME, messages=QUESTION, temperature=0, logprobs=True
    ) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    assert "content.delta" in kinds
    assert final.choices[0].message.content == ask(client)


def test_a_text_completion_and_its_stream(client: OpenAI) -> None:
    asked = {"model": MODEL_NAME, "prompt": "A BlocksMap", "temperature": 0, "max_tokens": 8}
    whole = client.completions.create(**asked, logprobs=1)
    assert whole.choices[0].logprobs is not None
    streamed = client.completions.create(**asked, stream=True)
    assert "".join(chunk.choices[0].text for chunk in streamed) == whole.choices[0].text


def test_an_answer_is_parsed_into_a_model(client: OpenAI) -> None:
    class Trip(BaseModel):
        city: Literal["Bonn", "Kiel"]
        by_train: bool

    done = client.chat.completions.parse(
        model=MODEL_NAME, messages=QUESTION, temperature=0, max_tokens=200, response_format=Trip
    )
    assert isinstance(done.choices[0].message.parsed, Trip)


def test_models(client: OpenAI) -> None:
    (model,) = client.models.list()
    assert model.id == MODEL_NAME
    assert client.models.retrieve(MODEL_NAME).owned_by == "gptnode"


def test_errors_have_the_classes_of_openai(client: OpenAI, api: ApiServer) -> None:
    with pytest.raises(openai.NotFoundError) as not_found:
        client.models.retrieve("gpt-9")
    assert not_found.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as bad:
        ask(client, logit_bias={"1": 2})
    assert bad.value.param == "logit_bias"
    with pytest.raises(openai.BadRequestError) as long:
        client.chat.completions.create(
            model=MODEL_NAME, messages=[{"role": "user", "content": "a " * 9999}], stream=True
        )
    assert long.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError, match="embedding"):
        client.embeddings.create(model=MODEL_NAME, input="hello")
    page = client.with_options(default_headers={"Origin": "http://evil.example"})
    with pytest.raises(openai.PermissionDeniedError):
        page.models.list()


def test_many_at_once_over_the_async_client(api: ApiServer, client: OpenAI) -> None:
    alone = ask(client)

    async def many() -> list[str]:
        async with AsyncOpenAI(base_url=api.url, api_key="none", max_retries=0) as client:

            async def one(*, stream: bool) -> str:
                if not stream:
                    done = await client.chat.completions.create(
                        model=MODEL_NAME, messages=QUESTION, temperature=0
                    )
                    return done.choices[0].message.content or ""
                chunks = await client.chat.completions.create(
                    model=MODEL_NAME, messages=QUESTION, temperature=0, stream=True
                )
                return "".join([chunk.choices[0].delta.content or "" async for chunk in chunks])

            return await asyncio.gather(*(one(stream=i % 2 == 0) for i in range(12)))

    assert asyncio.run(many()) == [alone] * 12


def test_a_stream_that_is_closed_frees_the_caches_of_all_peers(
    client: OpenAI, two_servers: LocalSwarm
) -> None:
    places = [server.place for server in two_servers.servers]
    stream = client.chat.completions.create(
        model=MODEL_NAME, messages=QUESTION, temperature=0, stream=True, extra_body=ENDLESS
    )
    iterator = iter(stream)
    for _ in range(3):
        next(iterator)
    # The status that this looks at is written twice a second.
    seconds_until(lambda: all(sessions(place) == 1 for place in places))
    stream.close()
    assert seconds_until(lambda: all(sessions(place) == 0 for place in places)) < 5


def test_a_client_that_gives_up_waiting_frees_them_too(
    api: ApiServer, two_servers: LocalSwarm
) -> None:
    places = [server.place for server in two_servers.servers]
    body = json.dumps(
        {"model": MODEL_NAME, "messages": QUESTION, "n": 4, "temperature": 0, **ENDLESS}
    )
    where = urlsplit(api.url)
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: {where.netloc}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection((where.hostname or "", where.port or 0)) as connection:
        connection.sendall((head + body).encode())
        seconds_until(lambda: all(sessions(place) >= 1 for place in places))
    assert seconds_until(lambda: all(sessions(place) == 0 for place in places)) < 5


def test_a_server_that_is_killed_in_the_middle_of_a_stream_is_replaced(tmp_path: Path) -> None:
    layout = lay_out_swarm(tmp_path, 2, MODEL_NAME, bundled_model_folder())
    document = json.loads(layout.map_path.read_text())
    for route in document["routes"]:
        route["peers"] = [route["peers"][0], *(p["name"] for p in document["peers"])]
        route["peers"] = list(dict.fromkeys(route["peers"]))
    layout.map_path.write_text(json.dumps(document))
    servers = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "gptnode", "serve", "--threads", "1"),
                *("--map", str(layout.map_path), "--identity", str(place.identity_path)),
                *("--listen", place.addr),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment(),
        )
        for place in layout.servers
    ]
    try:
        for server in servers:
            assert server.stdout is not None
            assert server.stdout.readline().startswith("ready")
        with (
            api_server(*over(layout)) as api,
            OpenAI(base_url=api.url, api_key="none", max_retries=0) as client,
        ):
            undisturbed = ask(client, messages=COUNT)
            stream = client.chat.completions.create(
                model=MODEL_NAME, messages=COUNT, temperature=0, stream=True
            )
            said = ""
            for chunk in stream:
                said += chunk.choices[0].delta.content or ""
                if said and servers[1].poll() is None:
                    os.kill(servers[1].pid, signal.SIGKILL)
                    servers[1].wait(DEADLINE_S)
            assert said == undisturbed
            with urlopen(api.url.removesuffix("/v1") + "/metrics") as response:
                metrics = response.read().decode()
            assert re.search(
                r"^gptnode_client_failovers_total\{.*\} [1-9]", metrics, re.MULTILINE
            ), metrics

            os.kill(servers[0].pid, signal.SIGKILL)
            servers[0].wait(DEADLINE_S)
        with (
            api_server(*over(layout), "--wait-s", "0") as api,
            OpenAI(base_url=api.url, api_key="none", max_retries=0) as client,
            pytest.raises(openai.APIStatusError) as gone,
        ):
            ask(client)
        assert gone.value.status_code == 503
        assert "retry-after" in gone.value.response.headers
    finally:
        for server in servers:
            server.kill()
            server.communicate()


def test_a_token_opens_the_server_and_sigterm_lets_answers_end(tmp_path: Path) -> None:
    token = tmp_path / "api.token"
    local = ("--model-dir", bundled_model_folder(), "--model", MODEL_NAME, "--threads", "1")
    with api_server(*local, "--token-file", token, "--create-token") as api:
        assert token.stat().st_mode & 0o777 == 0o600
        with (
            OpenAI(base_url=api.url, api_key="wrong", max_retries=0) as stranger,
            pytest.raises(openai.AuthenticationError),
        ):
            stranger.models.list()
        key = token.read_text().strip()
        with OpenAI(base_url=api.url, api_key=key, max_retries=0) as client:
            stream = client.chat.completions.create(
                model=MODEL_NAME, messages=QUESTION, temperature=0, stream=True
            )
            iterator = iter(stream)
            next(iterator)
            api.process.send_signal(signal.SIGTERM)
            rest = list(iterator)
            assert rest[-1].choices[0].finish_reason == "stop"
        assert api.process.wait(DEADLINE_S) == 0
