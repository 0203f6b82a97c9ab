"""JSON responses: values and errors, encoded by msgspec."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.responses import Response

from gptnode.api.errors import ApiError

__all__ = ["encode", "error_response", "json_response"]

encode = msgspec.json.Encoder().encode


def json_response(
    value: Any, *, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    """``value`` as JSON; browsers and proxies keep no copy."""
    return Response(
        encode(value),
        status_code=status,
        headers={"cache-control": "no-store", **(headers or {})},
        media_type="application/json",
    )


def error_response(error: ApiError) -> Response:
    """``error`` with its status and headers."""
    return json_response(error.body(), status=error.status, headers=error.headers())
