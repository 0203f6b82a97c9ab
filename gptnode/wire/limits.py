"""How much one side lets the other send: sizes of frames and numbers of unanswered messages."""

from __future__ import annotations

from dataclasses import dataclass

from gptnode.errors import LocalProtocolError
from gptnode.wire.tensor import ITEMSIZE_BYTES, MAX_TENSOR_BYTES, tensor_bytes

__all__ = ["DEFAULT_LIMITS", "Limits", "chunk_bytes", "chunk_tokens", "session_bytes"]


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one session; the defaults are those of the protocol, version 1.

    ``max_head_bytes`` bounds the msgpack part of a frame, ``max_payload_bytes`` is the ceiling of
    what ``raise_limit`` may allow for the tensor behind it (none at all before Opened),
    ``max_in_flight`` the requests and ``max_pings`` the Pings that may be unanswered at once.
    """

    max_head_bytes: int = 64 * 1024
    max_payload_bytes: int = MAX_TENSOR_BYTES
    max_in_flight: int = 8
    max_pings: int = 4

    def __post_init__(self) -> None:
        """Reject limits under which no session could run, or above the protocol's ceiling."""
        if not 0 <= self.max_payload_bytes <= MAX_TENSOR_BYTES:
            raise LocalProtocolError(f"max_payload_bytes must be at most {MAX_TENSOR_BYTES}")
        if min(self.max_head_bytes, self.max_in_flight, self.max_pings) < 1:
            raise LocalProtocolError("limits must be 1 or more")


DEFAULT_LIMITS = Limits()


def chunk_bytes(max_chunk_tokens: int, width: int, dtype: str) -> int:
    """Bytes of the largest tensor (tokens x width) of a session: what ``raise_limit`` takes.

    Raises:
        LocalProtocolError: that is above the protocol's ceiling of 64 MiB; see chunk_tokens.
    """
    size_bytes = tensor_bytes(dtype, (max_chunk_tokens, width))
    if size_bytes > MAX_TENSOR_BYTES:
        raise LocalProtocolError(
            f"{max_chunk_tokens} tokens of width {width} in {dtype} are {size_bytes} bytes:"
            f" a message carries at most {MAX_TENSOR_BYTES}"
        )
    return size_bytes


def session_bytes(max_chunk_tokens: int, width: int, dtype: str, max_tokens: int) -> int:
    """Bytes of the largest payload of a session: its largest tensor, and behind it one id for each
    token of a context of ``max_tokens``, as a Draw may have.

    Raises:
        LocalProtocolError: see ``chunk_bytes``.
    """
    ids_bytes = max_tokens * ITEMSIZE_BYTES["i32"]
    return min(chunk_bytes(max_chunk_tokens, width, dtype) + ids_bytes, MAX_TENSOR_BYTES)


def chunk_tokens(width: int, dtype: str) -> int:
    """The most tokens of ``width`` that one message can carry."""
    return MAX_TENSOR_BYTES // tensor_bytes(dtype, (1, width))
