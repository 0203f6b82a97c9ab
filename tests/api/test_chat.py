from __future__ import annotations

from typing import Any

import httpx
import pytest

from gptnode.demo.bundled import MODEL_NAME
from gptnode.node.service import Service

from .conftest import chat_body, events, over
from .scripted import HERMES, ScriptedService

CHAT = "/v1/chat/completions"


async def say(client: httpx.AsyncClient, *messages: Any, **fields: Any) -> dict[str, Any]:
    response = await client.post(CHAT, json=chat_body(*messages, **fields))
    assert response.status_code == 200, response.text
    found = response.json()
    assert isinstance(found, dict)
    return found


async def test_an_answer_has_the_fields_of_openai(client: httpx.AsyncClient) -> None:
    body = await say(client, "Hello.", max_tokens=8)
    assert body["object"] == "chat.completion"
    assert body["id"].startswith("chatcmpl-")
    assert body["model"] == MODEL_NAME
    (choice,) = body["choices"]
    assert choice["message"]["role"] == "assistant"
    assert choice["message"]["content"]
    assert choice["finish_reason"] in ("stop", "length")
    usage = body["usage"]
    assert 0 < usage["completion_tokens"] <= 8
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["prompt_tokens_details"] == {"cached_tokens": 0}


async def test_a_stream_says_the_same_as_the_whole(client: httpx.AsyncClient) -> None:
    whole = await say(client, "What is a BlocksMap?", max_tokens=24)
    body = chat_body("What is a BlocksMap?", max_tokens=24, stream=True)
    body["stream_options"] = {"include_usage": True}
    chunks = events(await client.post(CHAT, json=body))
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in chunks}) == 1
    first, *middle, last, usage = chunks
    assert first["choices"][0]["delta"]["role"] == "assistant"
    assert last["choices"][0]["finish_reason"] == whole["choices"][0]["finish_reason"]
    assert last["choices"][0]["delta"] == {}
    assert all(chunk["choices"][0]["finish_reason"] is None for chunk in (first, *middle))
    text = "".join(chunk["choices"][0]["delta"]["content"] for chunk in middle)
    assert text == whole["choices"][0]["message"]["content"]
    assert all(chunk["usage"] is None for chunk in (first, *middle, last))
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == whole["usage"]["completion_tokens"]


async def test_a_stream_without_options_says_nothing_of_usage(client: httpx.AsyncClient) -> None:
    response = await client.post(CHAT, json=chat_body("Hello.", stream=True, max_tokens=2))
    assert all("usage" not in chunk for chunk in events(response))


async def test_a_conversation_that_goes_on_finds_its_beginning_in_the_caches(
    client: httpx.AsyncClient,
) -> None:
    question = {"role": "user", "content": "What is a BlocksMap?"}
    first = await say(client, question, max_tokens=20)
    assert first["choices"][0]["finish_reason"] == "length"  # its ids end in the middle
    answer = {"role": "assistant", "content": first["choices"][0]["message"]["content"]}
    again = await say(client, question, answer, "And then?", max_tokens=4)
    usage = first["usage"]
    # All but the last token that was sampled, which no step has computed.
    assert again["usage"]["prompt_tokens_details"]["cached_tokens"] >= (
        usage["prompt_tokens"] + usage["completion_tokens"] - 1
    )


async def test_an_edited_answer_is_encoded_anew(client: httpx.AsyncClient) -> None:
    question = {"role": "user", "content": "What is a BlocksMap?"}
    first = await say(client, question, max_tokens=20)
    answer = {"role": "assistant", "content": "Something else."}
    again = await say(client, question, answer, "And then?", max_tokens=4)
    cached = again["usage"]["prompt_tokens_details"]["cached_tokens"]
    assert cached <= first["usage"]["prompt_tokens"]


async def test_n_answers_have_an_index_each_and_one_prompt(client: httpx.AsyncClient) -> None:
    body = await say(client, "Hello.", n=3, max_tokens=6, temperature=1.5, seed=7)
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2]
    texts = {choice["message"]["content"] for choice in body["choices"]}
    assert len(texts) > 1
    assert body["usage"]["prompt_tokens"] < 40
    again = await say(client, "Hello.", n=3, max_tokens=6, temperature=1.5, seed=7)
    assert again["choices"] == body["choices"]


async def test_streams_of_n_answers_are_told_apart_by_index(client: httpx.AsyncClient) -> None:
    body = chat_body("Hello.", n=2, max_tokens=4, stream=True)
    chunks = events(await client.post(CHAT, json=body))
    texts = ["", ""]
    for chunk in chunks:
        (choice,) = chunk["choices"]
        texts[choice["index"]] += choice["delta"].get("content", "")
    assert texts[0] == texts[1] != ""
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in chunks]
    assert sum(reason is not None for reason in reasons) == 2


async def test_the_same_seed_says_the_same(client: httpx.AsyncClient) -> None:
    asked = {"temperature": 1.2, "max_tokens": 12}
    one, two, other = [
        (await say(client, "Tell me more.", seed=seed, **asked))["choices"][0]["message"]["content"]
        for seed in (1, 1, 2)
    ]
    assert one == two != other


async def test_a_stop_text_ends_an_answer_and_is_not_shown(client: httpx.AsyncClient) -> None:
    whole = (await say(client, "What is a BlocksMap?", max_tokens=30))["choices"][0]["message"]
    word = whole["content"].split()[3]
    body = await say(client, "What is a BlocksMap?", max_tokens=30, stop=[word, "never"])
    (choice,) = body["choices"]
    assert choice["message"]["content"] == whole["content"].partition(word)[0]
    assert choice["finish_reason"] == "stop"


async def test_logprobs_are_those_of_the_text(client: httpx.AsyncClient) -> None:
    body = await say(client, "Hello.", max_tokens=6, logprobs=True, top_logprobs=2)
    (choice,) = body["choices"]
    content = choice["logprobs"]["content"]
    assert "".join(token["token"] for token in content) == choice["message"]["content"]
    for token in content:
        assert bytes(token["bytes"]).decode() == token["token"]
        assert len(token["top_logprobs"]) == 2
        # Greedy: the token is the likeliest.
        assert token["top_logprobs"][0]["token"] == token["token"]
        assert token["logprob"] == token["top_logprobs"][0]["logprob"] <= 0


async def test_logprobs_of_a_stream_are_those_of_the_whole(client: httpx.AsyncClient) -> None:
    asked = {"max_tokens": 9, "logprobs": True, "stop": ["zzz"]}
    whole = (await say(client, "Hello.", **asked))["choices"][0]["logprobs"]["content"]
    chunks = events(await client.post(CHAT, json=chat_body("Hello.", stream=True, **asked)))
    streamed: list[Any] = []
    for chunk in chunks:
        logprobs = chunk["choices"][0]["logprobs"]
        streamed.extend(logprobs["content"] if logprobs else ())
    assert streamed == whole


async def test_text_parts_are_one_text(service: Service) -> None:
    scripted = ScriptedService("ok")
    async with over(scripted) as client:
        parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
        body = chat_body({"role": "user", "content": parts}, model="scripted")
        assert (await client.post(CHAT, json=body)).status_code == 200
    assert "one\ntwo" in scripted.prompts[0]


async def test_a_developer_is_the_system(scripted: ScriptedService) -> None:
    async with over(scripted) as client:
        body = chat_body({"role": "developer", "content": "Be kind."}, "Hello.", model="scripted")
        assert (await client.post(CHAT, json=body)).status_code == 200
    assert scripted.prompts[0].startswith("<|im_start|>system\nBe kind.")


async def test_a_message_that_the_template_drops_is_an_error() -> None:
    service = ScriptedService("ok", template="{{ messages[-1].content }}")
    async with over(service) as client:
        body = chat_body("first", "second", model="scripted")
        error = (await client.post(CHAT, json=body)).json()["error"]
    assert error["param"] == "messages[0]"


async def test_a_system_text_that_the_template_has_no_place_for_is_said_with_the_question() -> None:
    template = "{% for m in messages if m.role != 'system' %}<{{ m.content }}>{% endfor %}"
    service = ScriptedService("ok", template=template)
    async with over(service) as client:
        body = chat_body({"role": "system", "content": "Be kind."}, "Hello.", model="scripted")
        assert (await client.post(CHAT, json=body)).status_code == 200
    assert service.prompts == ["<Be kind.\n\nHello.>"]


REFUSED = {
    "logit_bias": {"1": 5},
    "frequency_penalty": 0.5,
    "presence_penalty": -1,
    "audio": {"voice": "x", "format": "wav"},
    "modalities": ["text", "audio"],
    "functions": [{"name": "f"}],
    "reasoning_effort": "high",
    "store": True,
    "web_search_options": {},
    "prediction": {"type": "content", "content": "x"},
    "tool_choice": "required",
    "n": 17,
    "top_logprobs": 3,
    "temperature": 3,
    "top_p": -0.1,
    "max_tokens": 0,
    "stop": ["a", "b", "c", "d", "e"],
    "stream_options": {"include_usage": True},
    "model": "other",
    "made_up": 1,
}


@pytest.mark.parametrize("param", REFUSED)
async def test_what_cant_be_done_is_refused_by_name(param: str, scripted: ScriptedService) -> None:
    async with over(scripted) as client:
        body = chat_body("Hello.", model="scripted") | {param: REFUSED[param]}
        response = await client.post(CHAT, json=body)
    assert response.status_code == (404 if param == "model" else 400)
    assert response.json()["error"]["param"] == param
    assert scripted.prompts == []


HARMLESS = {
    "user": "me",
    "metadata": {"a": "b"},
    "store": False,
    "service_tier": "auto",
    "frequency_penalty": 0,
    "presence_penalty": 0.0,
    "logit_bias": {},
    "modalities": ["text"],
    "parallel_tool_calls": True,
    "response_format": {"type": "text"},
    "prompt_cache_key": "x",
    "safety_identifier": "x",
    "stop": None,
    "seed": None,
    "tools": None,
    "stream_options": None,
}


@pytest.mark.parametrize("param", HARMLESS)
async def test_what_changes_nothing_is_accepted(param: str, scripted: ScriptedService) -> None:
    async with over(scripted) as client:
        body = chat_body("Hello.", model="scripted") | {param: HARMLESS[param]}
        response = await client.post(CHAT, json=body)
    assert response.status_code == 200, response.text


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"role": "user", "content": [{"type": "image_url", "image_url": {}}]}, "[0].content[0]"),
        ({"role": "user", "content": [{"type": "text"}]}, "[0].content[0]"),
        ({"role": "user"}, "[0].content"),
        ({"role": "nobody", "content": "x"}, "[0].role"),
        ({"role": "user", "content": 7}, "[0].content"),
        ({"content": "x"}, "[0].role"),
        ({"role": "tool", "content": "x"}, "[0].tool_call_id"),
    ],
)
async def test_a_wrong_message_is_named_by_its_place(
    message: dict[str, Any], param: str, scripted: ScriptedService
) -> None:
    async with over(scripted) as client:
        response = await client.post(CHAT, json=chat_body(message, model="scripted"))
    assert response.status_code == 400
    assert response.json()["error"]["param"] == f"messages{param}"
    assert response.json()["error"]["type"] == "invalid_request_error"


async def test_a_prompt_that_is_too_long_is_told_as_openai_does(client: httpx.AsyncClient) -> None:
    response = await client.post(CHAT, json=chat_body("word " * 9000))
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "context_length_exceeded"


TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "of a place",
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}}},
    },
}
CALL = '<tool_call>\n{"name": "weather", "arguments": {"place": "Köln"}}\n</tool_call>'


async def test_tools_reach_the_template_and_calls_come_back(scripted: ScriptedService) -> None:
    service = ScriptedService("Let me see.\n", *CALL, template=HERMES)
    async with over(service) as client:
        body = chat_body("Rain?", model="scripted", tools=[TOOL])
        (choice,) = (await client.post(CHAT, json=body)).json()["choices"]
        assert choice["finish_reason"] == "tool_calls"
        assert choice["message"]["content"] == "Let me see."
        (call,) = choice["message"]["tool_calls"]
        assert call["type"] == "function"
        assert call["function"] == {"name": "weather", "arguments": '{"place": "Köln"}'}
        assert '"description": "of a place"' in service.prompts[0]

        result = {"role": "tool", "content": "Sun.", "tool_call_id": call["id"]}
        body = chat_body("Rain?", choice["message"], result, model="scripted", tools=[TOOL])
        assert (await client.post(CHAT, json=body)).status_code == 200
        assert "<|im_start|>tool\nSun." in service.prompts[1]
        assert '"arguments": {"place": "Köln"}' in service.prompts[1]


async def test_a_stream_has_calls_as_deltas() -> None:
    service = ScriptedService("Hm", *CALL, *CALL)
    async with over(service) as client:
        body = chat_body("Rain?", model="scripted", tools=[TOOL], stream=True)
        chunks = events(await client.post(CHAT, json=body))
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert "".join(delta.get("content") or "" for delta in deltas) == "Hm"
    calls = [call for delta in deltas for call in delta.get("tool_calls", ())]
    assert [call["index"] for call in calls] == [0, 1]
    assert calls[0]["id"] != calls[1]["id"]
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


async def test_an_answer_that_was_cut_says_so_though_it_called() -> None:
    service = ScriptedService(CALL, stop_reason="length")
    async with over(service) as client:
        body = chat_body("Rain?", model="scripted", tools=[TOOL])
        (choice,) = (await client.post(CHAT, json=body)).json()["choices"]
    assert choice["finish_reason"] == "length"
    assert len(choice["message"]["tool_calls"]) == 1


async def test_without_parallel_calls_there_is_one() -> None:
    service = ScriptedService(CALL, CALL)
    async with over(service) as client:
        body = chat_body("Rain?", model="scripted", tools=[TOOL], parallel_tool_calls=False)
        (choice,) = (await client.post(CHAT, json=body)).json()["choices"]
    assert len(choice["message"]["tool_calls"]) == 1


async def test_what_looks_like_a_call_is_text_where_no_tools_were_offered() -> None:
    for fields in ({}, {"tools": [TOOL], "tool_choice": "none"}):
        async with over(ScriptedService(CALL)) as client:
            body = chat_body("Rain?", model="scripted", **fields)
            (choice,) = (await client.post(CHAT, json=body)).json()["choices"]
        assert choice["message"]["content"] == CALL
        assert choice["finish_reason"] == "stop"


async def test_a_template_without_tools_refuses_them(client: httpx.AsyncClient) -> None:
    response = await client.post(CHAT, json=chat_body("Rain?", tools=[TOOL]))
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "tools"
    assert response.json()["error"]["code"] == "unsupported_parameter"


async def test_the_models_own_sampling_is_the_default(scripted: ScriptedService) -> None:
    from gptnode.api.config import ApiConfig, Defaults

    config = ApiConfig(defaults=Defaults(temperature=0.3, top_k=5))
    async with over(scripted, config) as client:
        for fields in ({}, {"temperature": 0.9, "top_k": -1, "seed": -1}):
            body = {**chat_body("Hello.", model="scripted"), "temperature": None, **fields}
            assert (await client.post(CHAT, json=body)).status_code == 200
    first, second = (settings.sampling for settings in scripted.settings)
    assert (first.temperature, first.top_k, first.top_p) == (0.3, 5, 1.0)
    assert (second.temperature, second.top_k, second.seed) == (0.9, 0, 2**63 - 1)
