"""One line of a batch: from OpenAI's request line to OpenAI's result line."""

from __future__ import annotations

import json
from secrets import token_hex
from typing import TYPE_CHECKING, Any

from gptnode.api.chat import answer_chat
from gptnode.api.completions import answer_completion
from gptnode.api.errors import ApiError, from_gptnode, unsupported
from gptnode.api.schemas import ChatRequest, CompletionRequest, convert
from gptnode.errors import GptNodeError, NetworkError, RouteError

if TYPE_CHECKING:
    from gptnode.api.desk import Desk

__all__ = ["answer_line", "failed", "is_lasting", "tokens_of"]

URLS = ("/v1/chat/completions", "/v1/completions")


async def answer_line(desk: Desk, data: bytes) -> dict[str, Any]:
    """The result of a request line; what is wrong with the request is in it.

    Raises:
        NetworkError: the swarm can't answer now. That is no result of a request.
        RouteError: likewise.
    """
    custom_id: str | None = None
    try:
        line = _object(data)
        custom_id = _custom_id(line)
        body = await _answer(desk, line)
    except ApiError as error:
        return _result(custom_id, error.status, error.body(), error)
    except (NetworkError, RouteError):
        raise
    except GptNodeError as error:
        told = from_gptnode(error)
        return _result(custom_id, told.status, told.body(), told)
    return _result(custom_id, 200, body, None)


def failed(result: dict[str, Any]) -> bool:
    """Whether it tells an error."""
    return result["error"] is not None


def is_lasting(result: dict[str, Any]) -> bool:
    """Whether the same request would have the same result again: an answer, or its own fault."""
    return bool(result["response"]["status_code"] < 500)


def tokens_of(result: dict[str, Any]) -> int:
    """How many tokens were made for it."""
    usage = result["response"]["body"].get("usage") or {}
    return int(usage.get("completion_tokens", 0))


async def _answer(desk: Desk, line: dict[str, Any]) -> dict[str, Any]:
    url, body = line.get("url"), line.get("body")
    if line.get("method", "POST") != "POST":
        raise ApiError(405, "method must be POST", param="method", code="method_not_allowed")
    if url not in URLS:
        raise ApiError(
            404, f"url must be one of {', '.join(URLS)}", param="url", code="unknown_url"
        )
    if not isinstance(body, dict):
        raise ApiError(400, "body must be a JSON object", param="body", code="invalid_value")
    if body.get("stream"):
        raise unsupported("stream", "the answers of a batch are written when they are complete")
    if url == URLS[0]:
        return await answer_chat(desk.service, convert(ChatRequest, body), desk=desk)
    return await answer_completion(desk.service, convert(CompletionRequest, body), desk=desk)


def _object(data: bytes) -> dict[str, Any]:
    try:
        line = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ApiError(400, f"the line is not JSON: {error}", code="invalid_json_line") from error
    if not isinstance(line, dict):
        raise ApiError(400, "the line is not a JSON object", code="invalid_json_line")
    return line


def _custom_id(line: dict[str, Any]) -> str:
    custom_id = line.get("custom_id")
    if not isinstance(custom_id, str) or not custom_id:
        raise ApiError(
            400, "custom_id must be a text", param="custom_id", code="missing_required_parameter"
        )
    return custom_id


def _result(
    custom_id: str | None, status: int, body: dict[str, Any], error: ApiError | None
) -> dict[str, Any]:
    told = None if error is None else {"code": error.code, "message": error.message}
    return {
        "id": f"batch_req_{token_hex(12)}",
        "custom_id": custom_id,
        "response": {"status_code": status, "request_id": token_hex(16), "body": body},
        "error": told,
    }
