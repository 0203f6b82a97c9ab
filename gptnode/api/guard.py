"""The guard before all routes: who may ask, from where, and how much may arrive.

In this order: the number of requests at once, the size of headers, Host (a page that rebinds its
name to this machine is turned away), Origin (so are pages of other sites, unless they were named),
the token, and the body, which is read here as a whole, within its limits. Knows no routes but those
that need no token.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from secrets import token_hex

import trio
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gptnode.api.config import ApiConfig
from gptnode.api.errors import RATE, ApiError
from gptnode.api.replies import error_response

__all__ = ["MAX_HEADER_BYTES", "Guard", "Watchers"]

OPEN_PATHS = frozenset({"/", "/favicon.ico", "/healthz", "/readyz"})
"""What a browser or a supervisor asks for without being able to send a token. They tell nothing."""

OPEN_FOLDER = "/page/"
BODILESS = frozenset({"GET", "HEAD", "OPTIONS"})
JSON_TYPE = "application/json"
JSON_FOLDER = "/v1/"
CORS_METHODS = "GET, POST, PUT, OPTIONS"
PREFLIGHT_AGE_S = 600
MAX_HEADER_BYTES = 16 * 1024


class Watchers:
    """Responses that only watch: they would never end by themselves."""

    def __init__(self) -> None:
        """None yet."""
        self._scopes: set[trio.CancelScope] = set()

    def leave(self) -> None:
        """End them all; answers go on."""
        for scope in tuple(self._scopes):
            scope.cancel()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Inside the block, `leave` cancels."""
        with trio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                yield
            finally:
                self._scopes.discard(scope)


class Guard:
    """ASGI middleware; see the module."""

    def __init__(self, app: ASGIApp, config: ApiConfig, watchers: Watchers) -> None:
        """A guard before ``app``; what is a GET becomes one of ``watchers``."""
        self._app = app
        self._config = config
        self._token = config.token.encode() if config.token is not None else None
        self._running = 0
        self._watchers = watchers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, or the lifespan."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            self._running += 1
            try:
                await self._request(scope, receive, send)
            finally:
                self._running -= 1
        else:
            await send({"type": "websocket.close", "code": 1008})

    async def _request(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        send = _with_headers(send, self._response_headers(headers))
        try:
            self._check(scope, headers)
            if scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
                await Response(status_code=204)(scope, receive, send)
                return
            body = await self._body(scope, headers, receive)
        except ApiError as error:
            await _refuse(error, scope, receive, send)
            return
        if body is None:
            return  # the client went away before it had said what it wants
        await self._serve(scope, _replayed(body, receive), send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The app itself. What only watches ends when the server leaves."""
        if scope["method"] != "GET":
            await self._app(scope, receive, send)
            return
        with self._watchers.watching():
            await self._app(scope, receive, send)

    def _check(self, scope: Scope, headers: Headers) -> None:
        """All that can be said before the body is read.

        Raises:
            ApiError: the request is turned away.
        """
        if self._running > self._config.limits.max_requests:
            raise ApiError(
                429,
                f"{self._config.limits.max_requests} requests are under way already",
                type=RATE,
                code="rate_limit_exceeded",
                retry_after_s=1.0,
            )
        if not scope["http_version"].startswith("1."):
            raise ApiError(505, "this server speaks HTTP/1.1", code="http_version")
        n_bytes = len(scope["path"]) + sum(len(name) + len(value) for name, value in headers.raw)
        if n_bytes > MAX_HEADER_BYTES:
            raise ApiError(
                431,
                f"the headers have more than {MAX_HEADER_BYTES:,} bytes",
                code="headers_too_large",
            )
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self._config.knows_host(hosts[0]):
            raise ApiError(
                403,
                "this server isn't called by that Host; --allow-host NAME adds a name",
                code="host_not_allowed",
            )
        self._check_origin(headers, hosts[0], scope["scheme"])
        preflight = scope["method"] == "OPTIONS" and "origin" in headers
        if self._token is not None and not preflight and not _is_open(scope):
            scheme, _, given = headers.get("authorization", "").partition(" ")
            right = hmac.compare_digest(given.strip().encode(), self._token)
            if scheme.lower() != "bearer" or not right:
                raise ApiError(
                    401,
                    "this server wants its token: Authorization: Bearer TOKEN",
                    code="invalid_api_key",
                )

    def _check_origin(self, headers: Headers, host: str, scheme: str) -> None:
        """A page of another site must have been named; other programs send no Origin.

        Raises:
            ApiError: the page's site wasn't named.
        """
        origin = headers.get("origin")
        if origin is None:
            # An image or a script that another page loads: no Origin, but the browser tells.
            site, mode = headers.get("sec-fetch-site"), headers.get("sec-fetch-mode")
            allowed = site in (None, "none", "same-origin") or mode == "navigate"
        else:
            own = self._config.own_origins(host, scheme)
            allowed = origin.lower() in own | self._config.origins
        if not allowed:
            raise ApiError(
                403,
                "web pages of other sites may not use this server; --allow-origin names those"
                " that may",
                code="origin_not_allowed",
            )

    def _response_headers(self, headers: Headers) -> dict[str, str]:
        """What every response says."""
        said = {"x-content-type-options": "nosniff", "x-request-id": f"req_{token_hex(12)}"}
        origin = headers.get("origin", "").lower()
        if self._config.origins:
            said["vary"] = "Origin"
        if origin in self._config.origins:
            said |= {
                "access-control-allow-origin": headers["origin"],
                "access-control-allow-methods": CORS_METHODS,
                "access-control-allow-headers": headers.get(
                    "access-control-request-headers", "authorization, content-type"
                ),
                "access-control-expose-headers": "x-request-id, retry-after",
                "access-control-max-age": str(PREFLIGHT_AGE_S),
            }
        return said

    async def _body(self, scope: Scope, headers: Headers, receive: Receive) -> bytes | None:
        """The whole body; None if the client went away.

        Raises:
            ApiError: it is too large, too slow, or of the wrong kind.
        """
        length = headers.get("content-length", "0")
        has_body = length != "0" or "transfer-encoding" in headers
        if scope["method"] in BODILESS and has_body:
            raise ApiError(400, f"{scope['method']} takes no body", code="invalid_body")
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if has_body and scope["path"].startswith(JSON_FOLDER) and kind != JSON_TYPE:
            raise ApiError(
                415,
                f"bodies are application/json here, not {kind[:80] or 'of no type'}:"
                " set the header Content-Type",
                code="unsupported_media_type",
            )
        limit = self._config.limits.max_body_bytes
        if length.isdigit() and (len(length) > 18 or int(length) > limit):
            raise _too_large(limit)
        pieces: list[bytes] = []
        n_bytes = 0
        with trio.move_on_after(self._config.limits.body_timeout_s):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return None
                pieces.append(message.get("body", b""))
                n_bytes += len(pieces[-1])
                if n_bytes > limit:
                    raise _too_large(limit)
                if not message.get("more_body", False):
                    return b"".join(pieces)
        raise ApiError(
            408,
            f"the body took longer than {self._config.limits.body_timeout_s:g} s",
            code="request_timeout",
        )


def _is_open(scope: Scope) -> bool:
    """Whether a path needs no token."""
    path: str = scope["path"]
    return scope["method"] in BODILESS and (path in OPEN_PATHS or path.startswith(OPEN_FOLDER))


def _too_large(limit: int) -> ApiError:
    return ApiError(413, f"the body has more than {limit:,} bytes", code="request_too_large")


def _with_headers(send: Send, headers: dict[str, str]) -> Send:
    """``send`` that adds ``headers`` to the response, where it doesn't have them itself."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            own = MutableHeaders(scope=message)
            for name, value in headers.items():
                own.setdefault(name, value)
        await send(message)

    return sending


def _replayed(body: bytes, receive: Receive) -> Callable[[], Awaitable[Message]]:
    """``receive`` as if the body were still to be read, in one piece."""
    unread = [body]

    async def receiving() -> Message:
        if unread:
            return {"type": "http.request", "body": unread.pop(), "more_body": False}
        return await receive()

    return receiving


async def _refuse(error: ApiError, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with ``error``, and read on meanwhile.

    What nobody reads fills the server's queue, and the response could then never be ended.
    """

    async def drain() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    async with trio.open_nursery() as nursery:
        nursery.start_soon(drain)
        await error_response(error)(scope, receive, send)
        nursery.cancel_scope.cancel()
