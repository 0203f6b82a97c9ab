"""/metrics, /healthz and /readyz of an API server: the pages of `gptnode.node.health_pages`."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from gptnode.node.health_pages import PATHS, HealthPages

if TYPE_CHECKING:
    from gptnode.node.metrics import Metrics
    from gptnode.node.service import Service

__all__ = ["routes", "why_not_ready"]

UNUSABLE = frozenset({"lost", "down", "busy", "wrong"})
"""States of a hop over which no answer can begin now."""


def routes(service: Service, metrics: Metrics) -> list[BaseRoute]:
    """The three pages. ``metrics`` is the meter that ``service`` was opened with."""
    pages = HealthPages(metrics, partial(why_not_ready, service))

    async def answer(request: Request) -> Response:
        page = await pages.page(request.url.path, request.headers.get("accept", ""))
        headers = {"content-type": page.content_type, "cache-control": "no-store"}
        return Response(page.body, page.status, headers)

    return [Route(path, answer, methods=["GET"]) for path in PATHS]


def why_not_ready(service: Service) -> tuple[str, ...]:
    """Which blocks keep answers from beginning now, as far as is known; () if none do.

    Peers aren't named: the page is for supervisors, who need no token.
    """
    return tuple(
        f"blocks {hop.span}: the peer that has them is {hop.state}, and there is no other one"
        for hop in service.hops()
        if hop.state in UNUSABLE
    )
