"""The addresses of OpenAI's API: ``/v1/chat/completions`` and those around it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from gptnode.api.chat import prepare_chat
from gptnode.api.completions import prepare_completion
from gptnode.api.desk import Desk
from gptnode.api.errors import ApiError
from gptnode.api.replies import error_response, json_response
from gptnode.api.schemas import ChatRequest, CompletionRequest, EmbeddingRequest, decode
from gptnode.api.streaming import send_events, send_whole

__all__ = ["routes"]


class _Job(Protocol):
    """A completion of either kind."""

    async def whole(self) -> dict[str, Any]: ...

    async def chunks(self, emit: Callable[[dict[str, Any]], Awaitable[None]]) -> None: ...


def routes(desk: Desk) -> list[Route]:
    """The routes of OpenAI's API, answered at ``desk``."""
    models = _Models(desk)
    return [
        Route("/v1/chat/completions", _Chat(desk), methods=["POST"]),
        Route("/v1/completions", _Completions(desk), methods=["POST"]),
        Route("/v1/embeddings", partial(_embeddings, desk), methods=["POST"]),
        Route("/v1/models", models.all, methods=["GET"]),
        Route("/v1/models/{name:path}", models.one, methods=["GET"]),
    ]


class _Chat:
    """ASGI: a chat completion."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = decode(ChatRequest, await _body(receive))
        job = partial(prepare_chat, self._desk, request)
        await _answer(job, bool(request.stream), self._desk, scope, receive, send)


class _Completions:
    """ASGI: a text completion."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = decode(CompletionRequest, await _body(receive))
        job = partial(prepare_completion, self._desk, request)
        await _answer(job, bool(request.stream), self._desk, scope, receive, send)


async def _answer(
    prepare: Callable[[], Awaitable[_Job]],
    stream: bool,
    desk: Desk,
    scope: Scope,
    receive: Receive,
    send: Send,
) -> None:
    """Compute a job while its client is there."""

    async def whole() -> dict[str, Any]:
        return await (await prepare()).whole()

    async def chunks(emit: Callable[[dict[str, Any]], Awaitable[None]]) -> None:
        await (await prepare()).chunks(emit)

    if stream:
        await send_events(scope, receive, send, chunks, desk.limits)
    else:
        await send_whole(scope, receive, send, whole)


async def _embeddings(desk: Desk, request: Request) -> Response:
    """A clear no: what a chat model's last block makes is no embedding worth having."""
    desk.check_model(decode(EmbeddingRequest, await request.body()).model)
    raise ApiError(
        400,
        f"{desk.service.model_name} is a language model: it makes no embeddings worth having;"
        " use an embedding model for them",
        param="model",
        code="unsupported_endpoint",
    )


class _Models:
    """The one model that a swarm's client has."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def all(self, request: Request) -> Response:
        """GET /v1/models."""
        return json_response({"object": "list", "data": [self._model()]})

    async def one(self, request: Request) -> Response:
        """GET /v1/models/NAME."""
        try:
            self._desk.check_model(request.path_params["name"])
        except ApiError as error:
            return error_response(error)
        return json_response(self._model())

    def _model(self) -> dict[str, Any]:
        service = self._desk.service
        return {
            "id": service.model_name,
            "object": "model",
            "created": self._desk.started_s,
            "owned_by": "gptnode",
            "context_tokens": service.context_limit_tokens,
            "dtype": service.dtype_name,
            "fingerprint": service.fingerprint,
        }


async def _body(receive: Receive) -> bytes:
    """The body, which the guard has put into one message."""
    pieces: list[bytes] = []
    while True:
        message = await receive()
        pieces.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(pieces)
