"""Answers over HTTP: as one JSON object, or as server-sent events while they are made.

Either way the client is watched: when it goes away, the answer is cancelled at once, and with it
what peers keep for it. Knows what an answer costs, not what it says.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import trio
from starlette.types import Receive, Scope, Send

from gptnode.api.config import ApiLimits
from gptnode.api.errors import ApiError, from_gptnode, internal_error
from gptnode.api.replies import encode, error_response, json_response
from gptnode.errors import GptNodeError

__all__ = ["send_events", "send_whole"]

SSE_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # a proxy must not gather events
]
KEEP_ALIVE = b": keep-alive\n\n"
DONE = b"data: [DONE]\n\n"
QUEUED_EVENTS = 32

Emit = Callable[[dict[str, Any]], Awaitable[None]]

log = logging.getLogger("gptnode.api")


async def send_whole(
    scope: Scope, receive: Receive, send: Send, compute: Callable[[], Awaitable[dict[str, Any]]]
) -> None:
    """Answer with the JSON object that ``compute`` makes, or with its error."""

    async with trio.open_nursery() as nursery:
        nursery.start_soon(_cancel_when_gone, receive, nursery.cancel_scope)
        response = None
        try:
            response = json_response(await compute())
        except Exception as error:
            response = error_response(_as_api_error(error))
        await response(scope, receive, send)
        nursery.cancel_scope.cancel()


async def send_events(
    scope: Scope,
    receive: Receive,
    send: Send,
    produce: Callable[[Emit], Awaitable[None]],
    limits: ApiLimits,
) -> None:
    """Answer with an event for each object that ``produce`` emits, then ``[DONE]``.

    The status is sent with the first event, so that an error before it has a status of its own.
    When there is none for a while, comments keep the connection alive; an error is an event then.
    A client that doesn't read for ``limits.stalled_s`` loses its answer.
    """
    into, out = trio.open_memory_channel[dict[str, Any] | ApiError](QUEUED_EVENTS)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_cancel_when_gone, receive, nursery.cancel_scope)
        nursery.start_soon(_produce, produce, into, limits.stalled_s, nursery.cancel_scope)
        async with out:
            await _write(out, scope, receive, send, limits)
        nursery.cancel_scope.cancel()


async def _produce(
    produce: Callable[[Emit], Awaitable[None]],
    into: trio.MemorySendChannel[dict[str, Any] | ApiError],
    stalled_s: float,
    everything: trio.CancelScope,
) -> None:
    """Put what ``produce`` makes into the channel; its error last."""

    async def emit(event: dict[str, Any]) -> None:
        with trio.move_on_after(stalled_s) as waiting:
            await into.send(event)
        if waiting.cancelled_caught:
            everything.cancel()
            await trio.lowlevel.checkpoint()

    async with into:
        try:
            await produce(emit)
        except Exception as error:
            await into.send(_as_api_error(error))


async def _write(
    out: trio.MemoryReceiveChannel[dict[str, Any] | ApiError],
    scope: Scope,
    receive: Receive,
    send: Send,
    limits: ApiLimits,
) -> None:
    """Write events as they come."""
    started = False
    wait_s = limits.status_patience_s
    while True:
        event: dict[str, Any] | ApiError | None = None
        ended = False
        with trio.move_on_after(wait_s):
            try:
                event = await out.receive()
            except trio.EndOfChannel:
                ended = True
        if isinstance(event, ApiError) and not started:
            await error_response(event)(scope, receive, send)
            return
        if not started:
            await send({"type": "http.response.start", "status": 200, "headers": SSE_HEADERS})
            started, wait_s = True, limits.keep_alive_s
        failed = isinstance(event, ApiError)
        body = KEEP_ALIVE if event is None else _event(event)
        await send(
            {
                "type": "http.response.body",
                "body": DONE if ended else body,
                "more_body": not (ended or failed),
            }
        )
        if ended or failed:
            return


def _event(event: dict[str, Any] | ApiError) -> bytes:
    value = event.body() if isinstance(event, ApiError) else event
    return b"data: " + encode(value) + b"\n\n"


async def _cancel_when_gone(receive: Receive, scope: trio.CancelScope) -> None:
    """Cancel ``scope`` when the client has gone away."""
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


def _as_api_error(error: Exception) -> ApiError:
    """What a client is told of ``error``; a bug goes to the log."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, GptNodeError):
        return from_gptnode(error)
    log.error("a request failed", exc_info=error)
    return internal_error()
