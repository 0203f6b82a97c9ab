"""The snapshots of the swarm as server-sent events: one when something changed, else a heartbeat.

Each viewer gets the latest snapshot and none in between, so one that reads slowly holds nothing up
and nothing is kept for it.
"""

from __future__ import annotations

import anyio
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gptnode.api.live_swarm import INTERVAL_S, LiveSwarm

__all__ = ["HEARTBEAT_S", "SwarmEvents", "Viewers"]

HEARTBEAT_S = 15.0
RETRY_MS = 1000
"""How long a browser waits before it comes again."""


class Viewers:
    """Counts who looks, up to a limit."""

    def __init__(self, limit: int) -> None:
        """Nobody looks."""
        self._limit = limit
        self.count = 0

    @property
    def full(self) -> bool:
        """Whether no more may come."""
        return self.count >= self._limit


class SwarmEvents(Response):
    """The response that goes on until the viewer leaves or the server ends.

    *Resource handling*: it counts in ``viewers`` while it runs, however it ends.
    """

    media_type = "text/event-stream"

    def __init__(self, live: LiveSwarm, viewers: Viewers, headers: dict[str, str]) -> None:
        """``headers`` are sent beside the type."""
        super().__init__(headers=headers)
        del self.headers["content-length"]
        self._live = live
        self._viewers = viewers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the viewer is gone."""
        self._viewers.count += 1
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._send_all, send)
                while (await receive())["type"] != "http.disconnect":
                    pass
                tasks.cancel_scope.cancel()
        finally:
            self._viewers.count -= 1

    async def _send_all(self, send: Send) -> None:
        await send(
            {
                "type": "http.response.start",
                "status": self.status_code,
                "headers": self.raw_headers,
            }
        )
        await self._write(send, f"retry: {RETRY_MS}\n\n")
        sent, silent_s = 0, 0.0
        while True:
            version, text = self._live.latest()
            if version != sent:
                await self._write(send, f"id: {version}\nevent: swarm\ndata: {text}\n\n")
                sent, silent_s = version, 0.0
            elif silent_s >= HEARTBEAT_S:
                await self._write(send, ": still here\n\n")
                silent_s = 0.0
            await anyio.sleep(INTERVAL_S)
            silent_s += INTERVAL_S

    @staticmethod
    async def _write(send: Send, text: str) -> None:
        await send({"type": "http.response.body", "body": text.encode(), "more_body": True})
