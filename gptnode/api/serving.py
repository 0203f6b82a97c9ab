"""The API on a port: Hypercorn's trio worker around the app, until somebody wants it to leave."""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from starlette.applications import Starlette

from gptnode.api.app import make_app
from gptnode.api.config import Address, ApiConfig
from gptnode.api.guard import MAX_HEADER_BYTES
from gptnode.errors import UsageError

if TYPE_CHECKING:
    from gptnode.node.metrics import Metrics
    from gptnode.node.service import Service

__all__ = ["bind", "serve_api"]

IDLE_S = 30.0
"""For headers to arrive, and for the next request on a connection."""

UNREAD_S = 120
"""A connection whose other end acknowledges nothing for so long is given up by the kernel."""

log = logging.getLogger("gptnode.api.http")
log.setLevel(logging.WARNING)  # where it listens, this node says itself


def bind(address: Address) -> socket.socket:
    """A TCP socket bound to ``address``, not listening yet. *Resource handling*: the caller's.

    Raises:
        UsageError: it can't be had.
    """
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux; accepted connections inherit it
            bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNREAD_S * 1000)
        bound.bind((address.host, address.port))
    except OSError as error:
        bound.close()
        why = "another program listens there" if error.errno == errno.EADDRINUSE else error.strerror
        raise UsageError(f"--listen {address}: {why}") from error
    return bound


async def serve_api(
    service: Service,
    config: ApiConfig,
    bound: socket.socket,
    *,
    ready: Callable[[], None],
    leave: trio.Event,
    metrics: Metrics | None = None,
) -> None:
    """Serve until ``leave``; answers that run then may go on for ``config.graceful_s``.

    Args:
        service: Ready to answer; the caller's to close afterwards.
        config: Who may ask for how much; its address is that of ``bound``.
        bound: From `bind`; closed here.
        ready: Called once requests are accepted.
        leave: Set from outside.
        metrics: The meter that the service was opened with; shown at /metrics.
    """
    app = make_app(service, config, metrics=metrics)
    hypercorn = Config()
    hypercorn.bind = [f"fd://{bound.detach()}"]
    hypercorn.errorlog = log
    hypercorn.include_server_header = False
    hypercorn.h11_max_incomplete_size = MAX_HEADER_BYTES
    hypercorn.h2_max_header_list_size = MAX_HEADER_BYTES
    hypercorn.keep_alive_timeout = IDLE_S
    hypercorn.graceful_timeout = config.graceful_s
    hypercorn.alpn_protocols = ["http/1.1"]
    if config.certificate is not None and config.key is not None:
        hypercorn.certfile = str(config.certificate)
        hypercorn.keyfile = str(config.key)

    async def left() -> None:
        await leave.wait()
        app.state.watchers.leave()

    async with trio.open_nursery() as nursery:
        await nursery.start(_serve, app, hypercorn, left)
        ready()
        await leave.wait()


async def _serve(
    app: Starlette,
    hypercorn: Config,
    left: Callable[[], Awaitable[None]],
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    served: Any = app  # Starlette and Hypercorn each have types of their own for the same thing
    await serve(served, hypercorn, shutdown_trigger=left, mode="asgi", task_status=task_status)
