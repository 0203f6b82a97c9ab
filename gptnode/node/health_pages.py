"""The three pages by which machines watch a node: /metrics, /healthz and /readyz.

Whoever speaks HTTP serves them: `metrics_endpoint` for a block server, `gptnode.api` for an API.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import trio

from gptnode.node.metrics import Metrics

__all__ = ["PATHS", "HealthPages", "Page"]

PATHS = ("/metrics", "/healthz", "/readyz")
TEXT = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Page:
    """An HTTP response."""

    status: int
    content_type: str
    body: bytes


class HealthPages:
    """The pages of one node."""

    def __init__(self, metrics: Metrics, why_not_ready: Callable[[], Sequence[str]]) -> None:
        """``why_not_ready``: reasons in words, none when the node is ready; on trio's thread."""
        self._metrics = metrics
        self._why_not_ready = why_not_ready

    async def page(self, path: str, accept: str = "") -> Page:
        """The page at ``path``; 404 for any other than ``PATHS``. ``accept`` is the header.

        /healthz says that the process is alive and its event loop turns: it would not answer else.
        /readyz is 503 with a reason a line while the node can't do all that its map asks of it.
        """
        if path == "/metrics":
            self._metrics.look()
            # Not on trio's thread: it takes milliseconds.
            page = await trio.to_thread.run_sync(partial(self._metrics.render, accept))
            return Page(200, page.content_type, page.body)
        if path == "/healthz":
            return Page(200, TEXT, b"alive\n")
        if path == "/readyz":
            reasons = self._why_not_ready()
            lines = "".join(f"{reason}\n" for reason in reasons) or "ready\n"
            return Page(503 if reasons else 200, TEXT, lines.encode())
        return Page(404, TEXT, f"there are {', '.join(PATHS)}\n".encode())
