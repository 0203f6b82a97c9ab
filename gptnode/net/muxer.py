"""What gptnode.net asks of a muxer: streams over one encrypted connection, in verbs.

Two have them: OwnMuxer, between nodes, and YamuxMuxer, with any other libp2p node. Streams are
opaque outside their muxer. Knows neither of the two.
"""

from __future__ import annotations

from collections.abc import Sized
from typing import Any, Protocol

__all__ = ["Muxer", "Outgoing"]


class Outgoing:
    """Bytes that a caller wants to send: taken off the front, never copied.

    The caller must not change them before all are taken, or sending was cancelled.
    """

    __slots__ = ("_at", "_view")

    def __init__(self, data: bytes | bytearray | memoryview) -> None:
        """Looks at ``data``."""
        self._view = memoryview(data).cast("B")
        self._at = 0

    @property
    def rest(self) -> int:
        """How many bytes aren't taken yet."""
        return len(self._view) - self._at

    @property
    def begun(self) -> bool:
        """Whether some are taken."""
        return self._at > 0

    def take(self, max_bytes: int) -> memoryview:
        """The next ones."""
        piece = self._view[self._at : self._at + max_bytes]
        self._at += len(piece)
        return piece


class Muxer(Protocol):
    """Many streams over one connection. Errors are trio's."""

    @property
    def peer_id(self) -> Any:
        """libp2p's form of the id of the authenticated peer."""

    @property
    def streams(self) -> Sized:
        """Those that are open, either way."""

    @property
    def peer_leaves(self) -> bool:
        """Whether the peer said that it is about to end the connection."""

    async def run(self) -> None:
        """Live until the connection ends; ``accept`` ends with it."""

    def leave(self) -> None:
        """Tell the peer that this side is about to end the connection."""

    async def open(self) -> Any:
        """A new stream, or BrokenResourceError: connection lost, or too many streams on it."""

    async def accept(self) -> Any:
        """The next stream that the peer opened; EndOfChannel when the connection has ended."""

    async def wait_readable(self, stream: Any) -> None:
        """Wait until there are bytes, or the end of the stream, or ``wake``."""

    def wake(self, stream: Any) -> None:
        """Let ``wait_readable`` return."""

    async def take(self, stream: Any, max_bytes: int) -> bytes | None:
        """What is there, at most ``max_bytes``; b"" at the end of the stream; None: nothing yet.

        Raises BrokenResourceError after a reset or a lost connection, once all bytes are taken.
        """

    async def wait_writable(self, stream: Any) -> None:
        """Wait until some bytes can be sent, or raise BrokenResourceError."""

    async def send_all(self, stream: Any, outgoing: Outgoing) -> None:
        """Return when all is taken; cancelled, or broken, ``outgoing`` tells what wasn't."""

    async def finish(self, stream: Any) -> None:
        """Say that nothing more will be sent. Doesn't wait, doesn't raise."""

    async def reset(self, stream: Any) -> None:
        """End the stream in both directions. Doesn't wait, doesn't raise."""
