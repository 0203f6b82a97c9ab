"""HTTP for the page's picture of the swarm and its map: ``/api/swarm`` and ``/api/map``.

Who may ask (Host, Origin, token) is decided before a request comes here. The map travels as it is
in its file: a body of text, not wrapped.
"""

from __future__ import annotations

import json
from typing import Any

import anyio
import anyio.to_thread
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gptnode.api.event_stream import SwarmEvents, Viewers
from gptnode.api.live_swarm import LiveSwarm, ServiceLike
from gptnode.api.map_desk import MapCheck, MapDesk, Outcome, RouteHop, Surroundings
from gptnode.errors import GptNodeError, MapError
from gptnode.routing.blocks_map import MAX_FILE_BYTES

__all__ = ["MAX_VIEWERS", "routes"]

MAX_VIEWERS = 64
HEADERS = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
DOWN = frozenset({"down", "lost", "wrong"})


def routes(service: ServiceLike, *, read_only_map: bool = False) -> list[Route]:
    """The routes of one service.

    Args:
        service: Whose swarm is shown; it follows the file of its map by itself.
        read_only_map: The map can be read and checked, not written.

    Returns:
        Routes for ``/api/swarm``, ``/api/swarm/events`` and, where the service has a map file,
        ``/api/map`` and ``/api/map/check``.
    """
    live = LiveSwarm(service, read_only_map=read_only_map)
    viewers = Viewers(MAX_VIEWERS)

    async def swarm(request: Request) -> Response:
        return Response(live.latest()[1], media_type="application/json", headers=HEADERS)

    async def swarm_events(request: Request) -> Response:
        if viewers.full:
            return _error(503, "viewers", "too many viewers", {"retry-after": "5"})
        # A proxy must not gather events.
        return SwarmEvents(live, viewers, HEADERS | {"x-accel-buffering": "no"})

    found = [
        Route("/api/swarm", swarm, methods=["GET"]),
        Route("/api/swarm/events", swarm_events, methods=["GET"]),
    ]
    if service.map_path is not None:
        pages = _MapPages(service, MapDesk(service.map_path))
        found += [
            Route("/api/map", pages.read, methods=["GET"]),
            Route("/api/map/check", pages.check, methods=["POST"]),
        ]
        if not read_only_map:
            found.append(Route("/api/map", pages.replace, methods=["PUT"]))
    return found


class _MapPages:
    """The requests about one map."""

    def __init__(self, service: ServiceLike, desk: MapDesk) -> None:
        self._service = service
        self._desk = desk
        self._one_edit = anyio.Lock()

    async def read(self, request: Request) -> Response:
        """GET: the text, its tag, and what is wrong with it, if anything is."""
        around = self._around()
        try:
            now = await anyio.to_thread.run_sync(self._desk.read)
            check = await anyio.to_thread.run_sync(self._desk.check, now.text, around)
        except MapError as error:
            return _map_error(409, error)
        body = {"name": self._desk.path.name, "text": now.text, "tag": now.tag}
        return _json(body | self._seen(check), {"etag": f'"{now.tag}"'})

    async def check(self, request: Request) -> Response:
        """POST: what would come of a text. Nothing is written."""
        text = await _body(request)
        if isinstance(text, Response):
            return text
        check = await anyio.to_thread.run_sync(self._desk.check, text, self._around())
        return _json(self._seen(check))

    async def replace(self, request: Request) -> Response:
        """PUT with If-Match: write a right text, if nobody changed the file meanwhile."""
        wanted = request.headers.get("if-match")
        if wanted is None:
            return _error(428, "if_match", "say with If-Match which version you edited")
        text = await _body(request)
        if isinstance(text, Response):
            return text
        tags = [tag.strip().strip('"') for tag in wanted.split(",")]
        try:
            async with self._one_edit:
                with anyio.CancelScope(shield=True):
                    outcome: Outcome = await anyio.to_thread.run_sync(
                        self._desk.replace, text, tags, self._around()
                    )
        except MapError as error:
            return _map_error(409, error)
        etag = {"etag": f'"{outcome.now.tag}"'}
        if outcome.conflict:
            message = "the map was changed meanwhile: look at it again"
            return _error(412, "changed", message, etag)
        if not outcome.check.ok:
            first = outcome.check.problems[0]
            where = f"line {first.line}: " if first.line is not None else ""
            path = f"{first.path}: " if first.path else ""
            more = self._seen(outcome.check)
            return _error(422, "invalid_map", f"{where}{path}{first.message}", etag, more)
        return _json({"tag": outcome.now.tag} | self._seen(outcome.check), etag)

    def _around(self) -> Surroundings:
        service = self._service
        return Surroundings(
            service.model_name,
            service.model_config.n_blocks,
            service.peer_id,
            frozenset(peer.peer_id for peer in service.peers() if peer.state in DOWN),
            service.blocks_map,
        )

    def _seen(self, check: MapCheck) -> dict[str, Any]:
        """A check beside the route that is in force now."""
        return {
            "ok": check.ok,
            "problems": [
                {
                    "path": problem.path,
                    "line": problem.line,
                    "column": problem.column,
                    "message": problem.message,
                }
                for problem in check.problems
            ],
            "before": [
                _hop(RouteHop(hop.label, hop.span.start, hop.span.stop, hop.replicas))
                for hop in self._service.hops()
            ],
            "after": [_hop(hop) for hop in check.route],
            "changes": list(check.changes),
            "orders": [
                {
                    "blocks": order.blocks,
                    "model": order.model,
                    "peers": [
                        {"label": label, "start": place.start, "stop": place.stop}
                        for label, place in order.peers
                    ],
                }
                for order in check.orders
            ],
        }


async def _body(request: Request) -> str | Response:
    """The text of a request, or the answer to one that has none; the guard bounds what arrives."""
    data = await request.body()
    if len(data) > MAX_FILE_BYTES:
        return _error(413, "too_large", "larger than any BlocksMap is")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return _error(400, "not_text", f"not UTF-8 text (byte {error.start})")


def _hop(hop: RouteHop) -> dict[str, Any]:
    return {
        "label": hop.label,
        "start": hop.start,
        "stop": hop.stop,
        "replicas": list(hop.replicas),
    }


def _map_error(status: int, error: GptNodeError) -> Response:
    return _error(status, "map_file", error.detail)


def _error(
    status: int,
    code: str,
    message: str,
    headers: dict[str, str] | None = None,
    more: dict[str, Any] | None = None,
) -> Response:
    """An error in the form that the rest of the API has."""
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    return _json({"error": error, **(more or {})}, headers, status)


def _json(
    body: dict[str, Any], headers: dict[str, str] | None = None, status: int = 200
) -> Response:
    return Response(
        json.dumps(body, ensure_ascii=False),
        status_code=status,
        media_type="application/json",
        headers=HEADERS | (headers or {}),
    )
