"""The files of the web page, as they are in the package: ``/`` and ``/page/NAME``.

They hold no secret, so they need no token; everything that they then ask for does. The headers
forbid whatever the page doesn't use: other hosts, inline scripts and styles, frames, forms.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import resources

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

__all__ = ["PAGE_HEADERS", "page_routes"]

TYPES = {
    "css": "text/css",
    "html": "text/html",
    "js": "text/javascript",
    "svg": "image/svg+xml",
}
INDEX = "index.html"
POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self'",
    "connect-src": "'self'",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
    "require-trusted-types-for": "'script'",
    "trusted-types": "'none'",
}
PAGE_HEADERS = {
    "cache-control": "no-cache",
    "content-security-policy": "; ".join(f"{name} {value}" for name, value in POLICY.items()),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


@dataclass(frozen=True, slots=True)
class _File:
    data: bytes
    media_type: str
    etag: str


def page_routes() -> list[Route]:
    """Routes that answer out of memory: the page is a few dozen kilobytes."""
    files = _files()

    async def index(request: Request) -> Response:
        return _answer(files[INDEX], request)

    async def file(request: Request) -> Response:
        found = files.get(request.path_params["name"])
        if found is None:
            return Response("not found", 404, PAGE_HEADERS, "text/plain")
        return _answer(found, request)

    return [Route("/", index, methods=["GET"]), Route("/page/{name}", file, methods=["GET"])]


def _files() -> dict[str, _File]:
    """All files of the folder, by name."""
    found: dict[str, _File] = {}
    for entry in (resources.files("gptnode.api") / "page").iterdir():
        media_type = TYPES.get(entry.name.rpartition(".")[2])
        if media_type is not None and entry.is_file():
            data = entry.read_bytes()
            etag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
            found[entry.name] = _File(data, media_type, etag)
    return found


def _answer(file: _File, request: Request) -> Response:
    """The file, or that the browser has it already."""
    headers = PAGE_HEADERS | {"etag": file.etag}
    known = [
        tag.strip().removeprefix("W/")
        for tag in request.headers.get("if-none-match", "").split(",")
    ]
    if file.etag in known or "*" in known:
        return Response(status_code=304, headers=headers)
    return Response(file.data, headers=headers, media_type=file.media_type)
