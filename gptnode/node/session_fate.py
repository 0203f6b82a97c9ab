"""What becomes of a stream's session, as a server's meter hears it: once opened, once ended."""

from __future__ import annotations

from gptnode.node.meter import Meter
from gptnode.wire.messages import ErrorCode

__all__ = ["SessionFate"]


class SessionFate:
    """Of one stream. A stream on which no session was opened has no end, only a refusal."""

    def __init__(self, meter: Meter) -> None:
        """Nothing is opened yet."""
        self._meter = meter
        self._opened = False
        self._over = False

    def opened(self, model: str) -> None:
        """A session over ``model`` is open."""
        self._opened = True
        self._meter.session_opened(model)

    def failed(self, code: ErrorCode) -> None:
        """The client was told ``code``."""
        if self._opened:
            self.ended(code.value)
        elif not self._over:
            self._over = True
            self._meter.session_refused(code.value)

    def ended(self, how: str) -> None:
        """The stream has ended; the first word on it counts."""
        if self._opened and not self._over:
            self._meter.session_ended(how)
        self._over = True
