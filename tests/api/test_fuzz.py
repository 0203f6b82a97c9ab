"""Bodies of every kind: an answer or an error of the client's, and never one of ours."""

from __future__ import annotations

import json
from typing import Any

import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from .conftest import chat_body, over
from .scripted import HERMES, ScriptedService
from .test_chat import TOOL

FIELDS = [
    "messages", "model", "stream", "n", "max_tokens", "max_completion_tokens", "temperature",
    "top_p", "top_k", "min_p", "repetition_penalty", "seed", "stop", "logprobs", "top_logprobs",
    "tools", "tool_choice", "parallel_tool_calls", "response_format", "stream_options", "user",
    "metadata", "logit_bias", "store", "audio", "modalities", "prompt", "suffix", "echo", "best_of",
]  # fmt: skip
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
    | st.sampled_from(["user", "assistant", "tool", "text", "function", "auto", "scripted"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["role", "content", "type", "name"]) | st.text(), inner)
    ),
    max_leaves=12,
)
MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "user", "assistant", "tool", "developer"])},
    optional={
        "content": st.text() | st.none() | st.lists(JSON, max_size=2),
        "tool_calls": st.lists(
            st.fixed_dictionaries(
                {"function": st.fixed_dictionaries({"name": st.text(), "arguments": st.text()})}
            ),
            max_size=2,
        ),
        "tool_call_id": st.text(max_size=9),
    },
)


def post(path: str, content: bytes) -> tuple[int, str]:
    async def run() -> tuple[int, str]:
        async with over(ScriptedService("Hel", "lo.", template=HERMES)) as client:
            headers = {"content-type": "application/json"}
            response = await client.post(path, content=content, headers=headers)
            return response.status_code, response.text

    return trio.run(run)


def check(path: str, body: Any) -> None:
    status, text = post(path, json.dumps(body).encode())
    assert status in (200, 400, 404), text
    if status != 200:
        error = json.loads(text)["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert error["message"]


@settings(max_examples=150)
@given(changes=st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=3))
def test_no_chat_body_is_an_error_of_the_server(changes: dict[str, Any]) -> None:
    check("/v1/chat/completions", chat_body("Hi", model="scripted") | changes)


@settings(max_examples=100)
@given(messages=st.lists(MESSAGE, max_size=4), tools=st.booleans())
def test_no_messages_are_an_error_of_the_server(messages: list[Any], tools: bool) -> None:
    extra = {"tools": [TOOL]} if tools else {}
    check("/v1/chat/completions", chat_body(*messages, model="scripted") | extra)


@settings(max_examples=100)
@given(changes=st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=3))
def test_no_completion_body_is_an_error_of_the_server(changes: dict[str, Any]) -> None:
    check("/v1/completions", {"model": "scripted", "prompt": "Hi"} | changes)


@settings(max_examples=60)
@given(content=st.binary(max_size=200) | st.just(b"[" * 100_000))
def test_bytes_that_are_no_json_are_an_error_of_the_client(content: bytes) -> None:
    status, text = post("/v1/chat/completions", content)
    assert status in (400, 404, 415), text
