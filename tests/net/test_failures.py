from __future__ import annotations

import pytest

from gptnode.errors import (
    ContextError,
    GptNodeError,
    MismatchError,
    PeerBusyError,
    PeerRefusedError,
    RemoteProtocolError,
    StreamLostError,
)
from gptnode.net.failures import error_from_failure
from gptnode.wire.messages import ErrorCode, Failure

KINDS = {
    ErrorCode.REFUSED: PeerRefusedError,
    ErrorCode.BUSY: PeerBusyError,
    ErrorCode.LOADING: PeerBusyError,
    ErrorCode.NO_MODEL: MismatchError,
    ErrorCode.NO_SPAN: MismatchError,
    ErrorCode.MISMATCH: MismatchError,
    ErrorCode.BAD_POSITION: MismatchError,
    ErrorCode.TOO_LONG: ContextError,
    ErrorCode.BAD_TENSOR: RemoteProtocolError,
    ErrorCode.PROTOCOL: RemoteProtocolError,
    ErrorCode.INTERNAL: StreamLostError,
    ErrorCode.GOING_AWAY: StreamLostError,
}


@pytest.mark.parametrize("code", ErrorCode)
def test_every_code_has_its_error(code: ErrorCode) -> None:
    error = error_from_failure(Failure(code, "because", 2.5))
    assert type(error) is KINDS[code]
    assert error.detail == "the peer says: because"


def test_a_busy_peer_says_when_to_try_again() -> None:
    error: GptNodeError = error_from_failure(Failure(ErrorCode.LOADING, "loading", 2.5))
    assert isinstance(error, PeerBusyError)
    assert error.retry_after_s == 2.5


def test_a_peer_that_says_nothing_is_quoted_with_its_code() -> None:
    assert error_from_failure(Failure(ErrorCode.BUSY, "")).detail == "the peer says: busy"


def test_nothing_from_a_peer_moves_a_cursor() -> None:
    error = error_from_failure(Failure(ErrorCode.INTERNAL, "\x1b[2J\x1b]0;title\x07oops\r\n"))
    assert error.detail.isprintable()
