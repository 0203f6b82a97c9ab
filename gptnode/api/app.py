"""The app: all routes of the API and the page, behind the guard."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from gptnode.api import health, openai_routes, swarm_routes
from gptnode.api.config import ApiConfig
from gptnode.api.desk import Desk
from gptnode.api.errors import ApiError, from_http, internal_error
from gptnode.api.guard import Guard, Watchers
from gptnode.api.page_files import page_routes
from gptnode.api.replies import error_response

if TYPE_CHECKING:
    from gptnode.node.metrics import Metrics
    from gptnode.node.service import Service

__all__ = ["make_app"]


def make_app(service: Service, config: ApiConfig, *, metrics: Metrics | None = None) -> Starlette:
    """The ASGI application over ``service``, which stays the caller's to close.

    ``app.state.watchers`` are the streams that end when the server leaves.

    Args:
        service: Ready to answer.
        config: Who may ask for how much.
        metrics: The meter that the service was opened with; None leaves its pages out.
    """
    watchers = Watchers()
    app = Starlette(
        routes=_routes(service, config, metrics),
        middleware=[Middleware(Guard, config=config, watchers=watchers)],
        exception_handlers={ApiError: _api_error, HTTPException: _http_error, Exception: _bug},
    )
    app.state.watchers = watchers
    return app


def _routes(service: Service, config: ApiConfig, metrics: Metrics | None) -> list[BaseRoute]:
    """Every room's routes."""
    desk = Desk(service, limits=config.limits, defaults=config.defaults)
    return [
        *openai_routes.routes(desk),
        *swarm_routes.routes(service, read_only_map=config.read_only_map),
        *page_routes(),
        *(health.routes(service, metrics) if metrics is not None else ()),
    ]


async def _api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error_response(error)


async def _http_error(request: Request, error: Exception) -> Response:
    """What the router says, such as 404 and 405."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    response = error_response(from_http(status, request.scope["path"]))
    if isinstance(error, HTTPException):
        response.headers.update(error.headers or {})
    return response


async def _bug(request: Request, error: Exception) -> Response:
    """The server logs the traceback; the client isn't shown it."""
    return error_response(internal_error())
