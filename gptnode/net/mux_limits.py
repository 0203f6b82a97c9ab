"""What one connection of the stream layer may take, and what of it was granted. Sans-io."""

from __future__ import annotations

from dataclasses import dataclass

from gptnode.net.mux_stream import MuxStream

__all__ = ["FIRST_WINDOW_BYTES", "Grants", "MuxLimits"]

# What may be sent on a new stream before the other side has said anything about it.
FIRST_WINDOW_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class MuxLimits:
    """``max_streams`` is part of the protocol, the others are this side's own affair."""

    max_streams: int = 256  # opened by either side
    window_bytes: int = 4 * 1024 * 1024  # of a stream, while the sum below allows it
    max_unread_bytes: int = 128 * 1024 * 1024  # of all streams
    max_control_bytes: int = 256 * 1024  # frames other than DATA that wait to be sent
    quantum_bytes: int = 65_519  # of a stream at its turn; what fits a Noise record
    batch_bytes: int = 4 * 65_519  # at most MAX_DATA_BYTES


class Grants:
    """The windows of the live streams, whose sum never exceeds ``max_unread_bytes``."""

    def __init__(self, limits: MuxLimits) -> None:
        """No streams."""
        self.total_bytes = 0
        self._limits = limits
        self._streams = 0

    def begin(self, stream: MuxStream) -> None:
        """A stream with its first window."""
        self._streams += 1
        self.total_bytes += stream.window

    def grow(self, stream: MuxStream) -> int:
        """Widen the stream's window if there is room for it; by how many bytes."""
        # Streams to come get the first window whatever the others have.
        to_come = 2 * self._limits.max_streams - self._streams
        spare = self._limits.max_unread_bytes - self.total_bytes - to_come * FIRST_WINDOW_BYTES
        grown = self._limits.window_bytes - stream.window
        if not 0 < grown <= spare:
            return 0
        stream.window += grown
        self.total_bytes += grown
        return grown

    def end(self, stream: MuxStream) -> None:
        """The stream is over."""
        self._streams -= 1
        self.total_bytes -= stream.window
