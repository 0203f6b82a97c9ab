"""Channels: one session of the protocol over one trio stream, for either side (signatures first)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import overload

import trio

from gptnode.errors import GptNodeError
from gptnode.wire.limits import DEFAULT_LIMITS, Limits
from gptnode.wire.messages import (
    Close,
    ErrorCode,
    Open,
    Opened,
    Reply,
    Request,
    Step,
    Stepped,
    Truncate,
    Truncated,
)

__all__ = ["ClientChannel", "ServerChannel"]


class ClientChannel:
    """The client's side."""

    def __init__(
        self,
        stream: trio.abc.Stream,
        *,
        limits: Limits = DEFAULT_LIMITS,
        heartbeat_s: float = 1.0,
        silent_after_s: float = 3.0,
        on_stuck: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """``on_stuck``: called when a write doesn't get on (cancelled half-way: disconnect the peer)."""
        raise NotImplementedError

    @property
    def lost(self) -> GptNodeError | None:
        """Why the session ended other than cleanly."""
        raise NotImplementedError

    @property
    def round_trip_s(self) -> float | None:
        """Of the last Ping."""
        raise NotImplementedError

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Reader, writer, heartbeat. Ends when closed or lost; never raises for a lost peer."""
        raise NotImplementedError

    @overload
    async def request(self, message: Open, *, timeout_s: float) -> Opened: ...
    @overload
    async def request(self, message: Step, *, timeout_s: float) -> Stepped: ...
    @overload
    async def request(self, message: Truncate, *, timeout_s: float) -> Truncated: ...
    async def request(self, message: Request, *, timeout_s: float) -> Reply:
        """The reply. A cancelled or timed-out request leaves the channel usable."""
        raise NotImplementedError

    def raise_limit(self, max_payload_bytes: int) -> None:
        """After Opened, before the first Step: wire.limits.chunk_bytes(max_chunk_tokens, width, dtype)."""
        raise NotImplementedError

    async def aclose(self) -> None:
        """Close -> Closed within 1 s, then closes the stream; idempotent; never raises for the peer."""
        raise NotImplementedError


class ServerChannel:
    """The server's side."""

    def __init__(
        self,
        stream: trio.abc.Stream,
        *,
        limits: Limits = DEFAULT_LIMITS,
        idle_after_s: float = 30.0,
        stuck_after_s: float = 10.0,
        on_stuck: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """As for ClientChannel."""
        raise NotImplementedError

    @property
    def lost(self) -> GptNodeError | None:
        """Why the session ended other than cleanly."""
        raise NotImplementedError

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Reader, writer, idle deadline; answers Ping itself."""
        raise NotImplementedError

    async def receive(self) -> Open | Step | Truncate | Close:
        """The next request; Close (answered already) at the clean end, also again; raises ``lost``."""
        raise NotImplementedError

    async def send(self, reply: Reply) -> None:
        """Queues a reply (bounded by max_in_flight); dropped after Close; raises ``lost``."""
        raise NotImplementedError

    def raise_limit(self, max_payload_bytes: int) -> None:
        """Before sending Opened."""
        raise NotImplementedError

    async def fail(self, code: ErrorCode, message: str, *, retry_after_s: float = 0.0) -> None:
        """Sends Failure, waits until it is written (within a deadline), closes; never raises for the peer."""
        raise NotImplementedError

    async def aclose(self) -> None:
        """Ends the session: Failure(GOING_AWAY) when it hadn't ended; closes the stream."""
        raise NotImplementedError
