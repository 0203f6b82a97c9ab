"""Whose turn it is to send: streams that have bytes and credit, one after another. Sans-io."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from gptnode.net.mux_limits import MuxLimits
from gptnode.net.mux_stream import MuxStream

__all__ = ["Turns"]


class Turns:
    """A stream has at most one turn to come, so none gets more than the others."""

    def __init__(self, limits: MuxLimits) -> None:
        """Nobody's."""
        self._limits = limits
        self._waiting: deque[MuxStream] = deque()

    def __bool__(self) -> bool:
        """Whether there may be something to send."""
        return bool(self._waiting)

    def give(self, stream: MuxStream) -> None:
        """A turn, if the stream can use one and has none."""
        if stream.outgoing is not None and stream.send_window and not stream.has_turn:
            stream.has_turn = True
            self._waiting.append(stream)

    def clear(self) -> None:
        """Nothing more is sent."""
        self._waiting.clear()

    def batch(self) -> Iterator[tuple[MuxStream, memoryview]]:
        """The next pieces, a batch of them at most; what they take of credit is taken."""
        size = 0
        while self._waiting and size < self._limits.batch_bytes:
            stream = self._waiting.popleft()
            stream.has_turn = False
            outgoing = stream.outgoing
            if outgoing is None:  # withdrawn or broken meanwhile
                continue
            # Nobody else waits: all that is left of the batch in one frame.
            alone = self._limits.batch_bytes - size
            most = self._limits.quantum_bytes if self._waiting else alone
            piece = outgoing.take(min(most, stream.send_window))
            stream.send_window -= len(piece)
            size += len(piece)
            if outgoing.rest:
                self.give(stream)
            yield stream, piece
