"""Errors as OpenAI's API has them: a status, and a JSON object that says what and where.

The body is ``{"error": {"message", "type", "param", "code"}}``. What gptnode itself raises is
translated in `from_gptnode`; nothing here sends anything.
"""

from __future__ import annotations

import math
from typing import Any

from gptnode.errors import (
    ContextError,
    GptNodeError,
    NetworkError,
    PeerBusyError,
    RouteError,
    ServiceBusyError,
    TextError,
    UsageError,
)

__all__ = ["ApiError", "from_gptnode", "from_http", "internal_error", "unsupported"]

INVALID = "invalid_request_error"
SERVER = "server_error"
RATE = "rate_limit_error"
NO_PEER_RETRY_S = 5.0
MAX_PATH_CHARS = 100

HTTP_CODES = {
    404: ("unknown_url", "there is nothing at this address"),
    405: ("method_not_allowed", "this address doesn't take that method"),
}


class ApiError(Exception):
    """A request that is answered by an error.

    Attributes:
        status: Of HTTP.
        message: For people: what is wrong with what.
        type: OpenAI's kind of error, such as ``invalid_request_error``.
        param: Where in the request, as ``messages[2].content``; None where that makes no sense.
        code: For programs, such as ``model_not_found``.
        retry_after_s: When it may be tried again; None where that changes nothing.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str = INVALID,  # noqa: A002 - the name that it has in the body
        param: str | None = None,
        code: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        """As the attributes say."""
        super().__init__(message)
        self.status = status
        self.message = message
        self.type = type
        self.param = param
        self.code = code
        self.retry_after_s = retry_after_s

    def body(self) -> dict[str, Any]:
        """The JSON object of the response."""
        error = {
            "message": self.message,
            "type": self.type,
            "param": self.param,
            "code": self.code,
        }
        return {"error": error}

    def headers(self) -> dict[str, str]:
        """What the response's headers say besides."""
        headers: dict[str, str] = {}
        if self.retry_after_s is not None:
            headers["retry-after"] = str(max(1, math.ceil(self.retry_after_s)))
        if self.status == 401:
            headers["www-authenticate"] = "Bearer"
        return headers


def unsupported(param: str, why: str) -> ApiError:
    """A parameter that is known and can't be honoured."""
    return ApiError(400, f"{param}: {why}", param=param, code="unsupported_parameter")


def from_gptnode(error: GptNodeError) -> ApiError:
    """What an error of gptnode is over HTTP.

    A full node is 429 and a swarm with missing peers 503, both with Retry-After; a request that
    can't be carried out is 400; the rest is the server's fault.
    """
    match error:
        case ServiceBusyError():
            return ApiError(
                429,
                error.detail,
                type=RATE,
                code="rate_limit_exceeded",
                retry_after_s=error.retry_after_s,
            )
        case ContextError():
            return ApiError(400, error.detail, code="context_length_exceeded")
        case UsageError():
            return ApiError(400, error.detail, code="invalid_value")
        case TextError():
            return ApiError(400, error.detail, param="messages", code="template_error")
        case PeerBusyError():
            return ApiError(
                503,
                error.for_user(),
                type=SERVER,
                code="peers_busy",
                retry_after_s=error.retry_after_s,
            )
        case RouteError() | NetworkError():
            return ApiError(
                503,
                error.detail,
                type=SERVER,
                code="no_live_peer",
                retry_after_s=NO_PEER_RETRY_S,
            )
    return ApiError(500, error.detail, type=SERVER, code=_snake(type(error).__name__))


def from_http(status: int, path: str) -> ApiError:
    """What the router raises: an address that isn't there, or not with that method."""
    code, text = HTTP_CODES.get(status, ("http_error", "the request can't be answered"))
    shown = path if len(path) <= MAX_PATH_CHARS else f"{path[:MAX_PATH_CHARS]}…"
    return ApiError(status, f"{shown}: {text}", code=code)


def internal_error() -> ApiError:
    """A bug of ours: the log has it, the response says no more than that."""
    return ApiError(500, "internal error; the server's log has it", type=SERVER, code="bug")


def _snake(name: str) -> str:
    """``MismatchError`` as ``mismatch_error``."""
    return "".join(f"_{char.lower()}" if char.isupper() else char for char in name).lstrip("_")
