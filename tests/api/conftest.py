"""The app over a real model of this process, and over scripted answers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from gptnode.api.app import make_app
from gptnode.api.config import ApiConfig
from gptnode.demo.bundled import MODEL_NAME, bundled_model_folder
from gptnode.node.config import ClientConfig
from gptnode.node.runtime import open_service
from gptnode.node.service import Service, ServiceLimits

from .scripted import ScriptedService

BASE = "http://127.0.0.1:8000"

MakeClient = Callable[..., httpx.AsyncClient]


def over(service: Any, config: ApiConfig | None = None, **options: Any) -> httpx.AsyncClient:
    """A client of an app over ``service``; it gets whole responses."""
    app = make_app(service, config or ApiConfig())
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url=BASE, **options)


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    """The bundled model, all of it here."""
    config = ClientConfig(model_dir=bundled_model_folder(), model_name=MODEL_NAME, threads=1)
    async with open_service(config, ServiceLimits(), report=lambda line: None) as service:
        yield service


@pytest.fixture
async def client(service: Service) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the bundled model."""
    async with over(service) as client:
        yield client


@pytest.fixture
async def scripted() -> ScriptedService:
    """Says hello."""
    return ScriptedService("Hel", "lo.")


def chat_body(*messages: str | dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A chat request; a plain string is a user's message."""
    return {
        "model": MODEL_NAME,
        "messages": [
            {"role": "user", "content": message} if isinstance(message, str) else message
            for message in messages
        ],
        "temperature": 0,
        **fields,
    }


def events(response: httpx.Response) -> list[dict[str, Any]]:
    """The objects of a stream that ended as it should."""
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    *lines, done, nothing = response.text.split("\n\n")
    assert (done, nothing) == ("data: [DONE]", "")
    return [json.loads(line.removeprefix("data: ")) for line in lines if not line.startswith(":")]
