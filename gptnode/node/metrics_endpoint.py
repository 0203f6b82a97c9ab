"""The pages of `health_pages` over HTTP/1.1, for a block server: small, bounded, read-only.

One request a connection, GET and HEAD only. Nothing that comes in here can end the server or keep
it busy: requests are small, few at a time, and answered within seconds or not at all. On loopback
only requests that name it are answered, so that no web page can read what is there through a name
that it bends to this machine.
"""

from __future__ import annotations

import errno
import ipaddress

import h11
import structlog
import trio

from gptnode.errors import NetworkError
from gptnode.node.health_pages import HealthPages, Page

__all__ = ["serve_pages"]

MAX_REQUEST_BYTES = 16 * 1024
MAX_CONNECTIONS = 16
REQUEST_S = 5.0
LINGER_S = 0.5
CHUNK_BYTES = 16 * 1024


async def serve_pages(
    address: tuple[str, int],
    pages: HealthPages,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve ``pages`` at ``address`` (host and port; port 0 takes a free one) until cancelled.

    Has started, with the URL of the metrics, when it listens.

    Raises:
        NetworkError: the address can't be listened on.
    """
    host, port = address
    try:
        listeners = await trio.open_tcp_listeners(port, host=host)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            why = "the port is in use; choose another one (0 takes a free one)"
        else:
            why = error.strerror or str(error)
        raise NetworkError(f"cannot serve metrics on {host}:{port}: {why}") from error
    try:
        name = listeners[0].socket.getsockname()
        task_status.started(f"http://{_authority(name[0], name[1])}/metrics")
        only_loopback = ipaddress.ip_address(name[0]).is_loopback
        visitors = _Visitors(pages, only_loopback=only_loopback)
        await trio.serve_listeners(visitors.answer, listeners)
    finally:
        for listener in listeners:
            with trio.CancelScope(shield=True):
                await listener.aclose()


class _Visitors:
    """Those who ask, at most so many at once."""

    def __init__(self, pages: HealthPages, *, only_loopback: bool) -> None:
        self._pages = pages
        self._only_loopback = only_loopback
        self._here = 0
        self._log = structlog.get_logger("gptnode.node")

    async def answer(self, stream: trio.SocketStream) -> None:
        """One connection, with one request; never raises."""
        self._here += 1
        try:
            with trio.move_on_after(REQUEST_S):
                if self._here <= MAX_CONNECTIONS:
                    await self._answer(stream)
        except trio.BrokenResourceError:
            pass  # it left
        except Exception:
            self._log.exception("a request for metrics failed")
        finally:
            self._here -= 1
            await trio.aclose_forcefully(stream)

    async def _answer(self, stream: trio.SocketStream) -> None:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_REQUEST_BYTES)
        request = None
        try:
            request = await _request(connection, stream)
            if request is None:
                return
            page = await self._page(request)
        except h11.RemoteProtocolError as error:
            page = Page(error.error_status_hint, "text/plain", b"that is no request\n")
        headers = [
            ("content-type", page.content_type),
            ("content-length", str(len(page.body))),
            ("cache-control", "no-store"),
            ("x-content-type-options", "nosniff"),
            ("connection", "close"),
        ]
        body = b"" if request is not None and request.method == b"HEAD" else page.body
        sends = [
            h11.Response(status_code=page.status, headers=headers),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ]
        await stream.send_all(b"".join(connection.send(event) or b"" for event in sends))
        await stream.send_eof()
        with trio.move_on_after(LINGER_S):  # what is unread when it closes would break the answer
            while await stream.receive_some(CHUNK_BYTES):
                pass

    async def _page(self, request: h11.Request) -> Page:
        if request.method not in (b"GET", b"HEAD"):
            return Page(405, "text/plain", b"GET and HEAD only\n")
        headers = {name: value.decode("latin-1") for name, value in request.headers}
        if self._only_loopback and not _names_loopback(headers.get(b"host", "")):
            return Page(421, "text/plain", b"this address answers for localhost only\n")
        path = request.target.decode("latin-1").partition("?")[0]
        return await self._pages.page(path, headers.get(b"accept", ""))


async def _request(connection: h11.Connection, stream: trio.SocketStream) -> h11.Request | None:
    """The first request; None if it left. Raises RemoteProtocolError."""
    while (event := connection.next_event()) is h11.NEED_DATA:
        connection.receive_data(await stream.receive_some(CHUNK_BYTES))
    return event if isinstance(event, h11.Request) else None


def _names_loopback(host: str) -> bool:
    """Whether a Host header names this machine's loopback, with any port."""
    name = host.rpartition("]")[0].lstrip("[") if host.startswith("[") else host.partition(":")[0]
    if name.lower() in ("", "localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
