"""Two sides of the stream layer, and the bytes under way between them."""

from __future__ import annotations

from gptnode.net.mux_limits import MuxLimits
from gptnode.net.mux_state import MuxState
from gptnode.net.mux_stream import MuxStream
from gptnode.net.muxer import Outgoing


class Side:
    """A state, and what it told its listener."""

    def __init__(self, *, is_initiator: bool, limits: MuxLimits | None = None) -> None:
        self.accepted: list[MuxStream] = []
        self.woken: list[MuxStream] = []
        self.state = MuxState(is_initiator=is_initiator, listener=self, limits=limits)

    def opened(self, stream: MuxStream) -> None:
        self.accepted.append(stream)

    def readable(self, stream: MuxStream) -> None:
        self.woken.append(stream)

    def writable(self, stream: MuxStream) -> None:
        self.woken.append(stream)

    def batch(self) -> bytes:
        return b"".join(bytes(buffer) for buffer in self.state.next_batch())

    def send(self, stream: MuxStream, data: bytes) -> Outgoing:
        outgoing = Outgoing(data)
        self.state.submit(stream, outgoing)
        return outgoing


class Pair:
    """The dialler and the listener, over a line that loses nothing."""

    def __init__(self, limits: MuxLimits | None = None) -> None:
        self.dialler = Side(is_initiator=True, limits=limits)
        self.listener = Side(is_initiator=False, limits=limits)

    def settle(self) -> None:
        """Until neither has anything to send."""
        moved = True
        while moved:
            moved = False
            for one, other in ((self.dialler, self.listener), (self.listener, self.dialler)):
                if data := one.batch():
                    other.state.receive(data)
                    moved = True

    def open(self) -> tuple[MuxStream, MuxStream]:
        """A stream as either side has it."""
        stream = self.dialler.state.open()
        self.settle()
        return stream, self.listener.accepted[-1]
