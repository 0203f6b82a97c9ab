"""What a peer's Failure means on this side: its code becomes an error of gptnode.errors."""

from __future__ import annotations

from gptnode.errors import (
    ContextError,
    GptNodeError,
    MismatchError,
    PeerBusyError,
    PeerRefusedError,
    RemoteProtocolError,
    StreamLostError,
)
from gptnode.wire.messages import ErrorCode, Failure

__all__ = ["error_from_failure"]


def error_from_failure(failure: Failure) -> GptNodeError:
    """The error to raise for a Failure from the peer; its text was cleaned on the way in."""
    detail = f"the peer says: {failure.message or failure.code.value}"
    match failure.code:
        case ErrorCode.REFUSED:
            return PeerRefusedError(detail)
        case ErrorCode.BUSY | ErrorCode.LOADING:
            return PeerBusyError(detail, failure.retry_after_s)
        case ErrorCode.MISMATCH | ErrorCode.NO_MODEL | ErrorCode.NO_SPAN | ErrorCode.BAD_POSITION:
            return MismatchError(detail)
        case ErrorCode.TOO_LONG:
            return ContextError(detail)
        case ErrorCode.BAD_TENSOR | ErrorCode.PROTOCOL:
            return RemoteProtocolError(detail)
        case ErrorCode.INTERNAL | ErrorCode.GOING_AWAY:
            return StreamLostError(detail)
