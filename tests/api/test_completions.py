from __future__ import annotations

from typing import Any

import httpx
import pytest

from gptnode.demo.bundled import MODEL_NAME

from .conftest import events, over
from .scripted import TOKENIZER, ScriptedService

URL = "/v1/completions"
PROMPT = "A BlocksMap says"


async def complete(client: httpx.AsyncClient, prompt: Any, **fields: Any) -> dict[str, Any]:
    body = {"model": MODEL_NAME, "prompt": prompt, "temperature": 0, **fields}
    response = await client.post(URL, json=body)
    assert response.status_code == 200, response.text
    found = response.json()
    assert isinstance(found, dict)
    return found


async def test_text_and_token_ids_are_the_same_prompt(client: httpx.AsyncClient) -> None:
    ids = TOKENIZER.encode(PROMPT)
    one = await complete(client, PROMPT, max_tokens=6)
    two = await complete(client, ids, max_tokens=6)
    both = await complete(client, [PROMPT, PROMPT], max_tokens=6)
    lists = await complete(client, [ids, ids], max_tokens=6)
    assert one["object"] == "text_completion"
    assert one["choices"] == two["choices"]
    assert both["choices"] == lists["choices"]
    assert [choice["index"] for choice in both["choices"]] == [0, 1]
    assert {choice["text"] for choice in both["choices"]} == {one["choices"][0]["text"]}
    assert both["usage"]["prompt_tokens"] == 2 * len(ids)


async def test_without_max_tokens_there_are_sixteen(client: httpx.AsyncClient) -> None:
    body = await complete(client, PROMPT, stop="\x00")
    assert body["usage"]["completion_tokens"] <= 16


async def test_an_echo_stands_before_the_answer(client: httpx.AsyncClient) -> None:
    plain = await complete(client, PROMPT, max_tokens=5)
    echoed = await complete(client, PROMPT, max_tokens=5, echo=True)
    assert echoed["choices"][0]["text"] == PROMPT + plain["choices"][0]["text"]
    nothing = await complete(client, PROMPT, max_tokens=0, echo=True)
    assert nothing["choices"][0]["text"] == PROMPT
    assert nothing["usage"]["completion_tokens"] == 0


async def test_a_stream_says_the_same_as_the_whole(client: httpx.AsyncClient) -> None:
    asked = {"max_tokens": 7, "n": 2, "echo": True}
    whole = await complete(client, PROMPT, **asked)
    body = {"model": MODEL_NAME, "prompt": PROMPT, "temperature": 0, "stream": True, **asked}
    body["stream_options"] = {"include_usage": True}
    *chunks, usage = events(await client.post(URL, json=body))
    texts = ["", ""]
    for chunk in chunks:
        (choice,) = chunk["choices"]
        texts[choice["index"]] += choice["text"]
    assert texts == [choice["text"] for choice in whole["choices"]]
    assert usage["usage"]["completion_tokens"] == whole["usage"]["completion_tokens"]


async def test_logprobs_have_the_older_form(client: httpx.AsyncClient) -> None:
    (choice,) = (await complete(client, PROMPT, max_tokens=5, logprobs=2))["choices"]
    logprobs = choice["logprobs"]
    assert "".join(logprobs["tokens"]) == choice["text"]
    for token, offset in zip(logprobs["tokens"], logprobs["text_offset"], strict=True):
        assert choice["text"][offset:].startswith(token)
    assert all(len(top) == 2 for top in logprobs["top_logprobs"])
    assert logprobs["token_logprobs"][0] == max(logprobs["top_logprobs"][0].values())


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"suffix": "end"}, "suffix"),
        ({"best_of": 4}, "best_of"),
        ({"echo": True, "logprobs": 1}, "logprobs"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [1, "a"]}, "prompt"),
        ({"prompt": [999_999]}, "prompt"),
        ({"prompt": ["a", [999_999]]}, "prompt[1]"),
        ({"prompt": ["a"] * 17}, "prompt"),
        ({"logit_bias": {"5": 1}}, "logit_bias"),
        ({"messages": []}, "messages"),
    ],
)
async def test_what_cant_be_done_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    scripted = ScriptedService("ok")
    async with over(scripted) as client:
        body = {"model": "scripted", "prompt": "x", **fields}
        response = await client.post(URL, json=body)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param
    assert scripted.prompts == []
