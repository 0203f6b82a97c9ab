from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from gptnode.api.forms import FREE, answer_form
from gptnode.api.schemas import ChatRequest, convert
from gptnode.api.tool_calls import CallStyle
from gptnode.node.service import Service
from gptnode.text.template import ChatTemplate

from .conftest import chat_body, events, over
from .scripted import HERMES, LLAMA, MISTRAL, ScriptedService
from .test_chat import TOOL

CHAT = "/v1/chat/completions"
SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"enum": ["Bonn", "Kiel"]},
        "days": {"type": "integer", "minimum": 1, "maximum": 9},
    },
    "required": ["city", "days"],
    "additionalProperties": False,
}
SHAPE = {"type": "json_schema", "json_schema": {"name": "trip", "schema": SCHEMA}}
TRIP = {"type": "function", "function": {"name": "trip", "parameters": SCHEMA}}


def fits(text: str) -> bool:
    value = json.loads(text)
    return (
        set(value) == {"city", "days"}
        and value["city"] in ("Bonn", "Kiel")
        and value["days"] in range(1, 10)
    )


async def choices(client: httpx.AsyncClient, **fields: Any) -> list[dict[str, Any]]:
    response = await client.post(CHAT, json=chat_body("Where to?", max_tokens=200, **fields))
    assert response.status_code == 200, response.text
    found: list[dict[str, Any]] = response.json()["choices"]
    return found


async def test_an_answer_fits_its_schema_however_it_is_sampled(client: httpx.AsyncClient) -> None:
    for fields in ({}, {"temperature": 1.5, "n": 4, "seed": 5}):
        for choice in await choices(client, response_format=SHAPE, **fields):
            assert choice["finish_reason"] == "stop"
            assert fits(choice["message"]["content"])


async def test_a_stream_fits_too(client: httpx.AsyncClient) -> None:
    body = chat_body("Where to?", response_format=SHAPE, stream=True, max_tokens=200)
    chunks = events(await client.post(CHAT, json=body))
    assert fits("".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks))


async def test_a_json_object_is_one(client: httpx.AsyncClient) -> None:
    shape = {"type": "json_object"}
    (choice,) = await choices(client, response_format=shape, temperature=1, seed=3)
    # The bundled model may well fill its 200 tokens before it comes to the brace.
    assert choice["message"]["content"].lstrip().startswith("{")
    if choice["finish_reason"] == "stop":
        assert isinstance(json.loads(choice["message"]["content"]), dict)


def as_json(**schema: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "x", **schema}}


@pytest.mark.parametrize(
    ("shape", "param"),
    [
        ({"type": "json_schema"}, "response_format.json_schema.schema"),
        (as_json(), "response_format.json_schema.schema"),
        (as_json(schema={"type": "nothing"}), "response_format"),
        (as_json(schema={"$ref": "http://x/y"}), "response_format"),
        (as_json(schema={"description": "x" * 300_000}), "response_format"),
        ({"type": "yaml"}, "response_format.type"),
    ],
)
async def test_a_form_that_cant_be_used_is_refused(
    shape: Any, param: str, client: httpx.AsyncClient
) -> None:
    response = await client.post(CHAT, json=chat_body("Where to?", response_format=shape))
    assert response.status_code == 400, response.text
    assert response.json()["error"]["param"] == param


@pytest.mark.parametrize("template", [HERMES, LLAMA, MISTRAL], ids=["hermes", "llama", "mistral"])
@pytest.mark.parametrize(
    "choice", ["required", {"type": "function", "function": {"name": "trip"}}], ids=["any", "named"]
)
async def test_a_call_that_is_required_is_made(
    template: str, choice: Any, service: Service
) -> None:
    service.template = ChatTemplate("calling", template)
    tools = [TRIP] if choice == "required" else [TOOL, TRIP]
    async with over(service) as client:
        (found,) = await choices(client, tools=tools, tool_choice=choice)
        assert found["finish_reason"] == "tool_calls", found
        (call,) = found["message"]["tool_calls"]
        assert call["function"]["name"] == "trip"
        assert fits(call["function"]["arguments"])
        assert found["message"]["content"] is None
        result = {"role": "tool", "tool_call_id": call["id"], "content": "booked"}
        body = chat_body("Where to?", found["message"], result, tools=tools, max_tokens=3)
        assert (await client.post(CHAT, json=body)).status_code == 200


def form(**fields: Any) -> Any:
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], **fields}
    return answer_form(convert(ChatRequest, body), CallStyle.HERMES)


def test_definitions_of_tools_move_to_where_references_look_for_them() -> None:
    def tool(name: str, definition: Any) -> dict[str, Any]:
        parameters = {
            "type": "object",
            "properties": {"x": {"$ref": "#/$defs/X"}},
            "$defs": {"X": definition},
        }
        return {"type": "function", "function": {"name": name, "parameters": parameters}}

    same = [tool("f", {"type": "string"}), tool("g", {"type": "string"})]
    schema = json.loads(form(tools=same, tool_choice="required").grammar.source)
    assert schema["$defs"] == {"X": {"type": "string"}}
    assert "$defs" not in json.dumps(schema["anyOf"]).replace("#/$defs/X", "")
    other = [same[0], tool("g", {"type": "integer"})]
    with pytest.raises(Exception, match="differently"):
        form(tools=other, tool_choice="required")


def test_what_is_free_has_no_form() -> None:
    assert form() is form(tools=[TOOL]) is form(tools=[TOOL], tool_choice="auto") is FREE


@pytest.mark.parametrize(
    "choice", ["always", {"type": "function", "function": {"name": "nobody"}}, 7, "required"]
)
async def test_a_choice_of_no_tool_is_refused(choice: Any) -> None:
    async with over(ScriptedService("ok")) as client:
        tools = None if choice == "required" else [TOOL]
        body = chat_body("Hi", model="scripted", tool_choice=choice, tools=tools)
        response = await client.post(CHAT, json=body)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "tool_choice"


async def test_json_and_tools_at_once_are_refused() -> None:
    async with over(ScriptedService("ok")) as client:
        body = chat_body("Hi", model="scripted", tools=[TOOL], response_format=SHAPE)
        response = await client.post(CHAT, json=body)
    assert response.json()["error"]["param"] == "response_format"
