from __future__ import annotations

from typing import Any

import pytest

from gptnode.errors import LocalProtocolError
from gptnode.wire.limits import (
    DEFAULT_LIMITS,
    Limits,
    chunk_bytes,
    chunk_tokens,
    session_bytes,
)
from gptnode.wire.tensor import MAX_TENSOR_BYTES


def test_the_defaults_are_those_of_the_specification() -> None:
    assert Limits(64 * 1024, 64 * 1024 * 1024, 8, 4) == DEFAULT_LIMITS


@pytest.mark.parametrize(
    "values",
    [
        {"max_head_bytes": 0},
        {"max_in_flight": 0},
        {"max_pings": 0},
        {"max_payload_bytes": -1},
        {"max_payload_bytes": MAX_TENSOR_BYTES + 1},
    ],
)
def test_limits_without_a_use_or_above_the_ceiling_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(LocalProtocolError):
        Limits(**values)


def test_a_chunk_has_tokens_times_width_times_itemsize_bytes() -> None:
    assert chunk_bytes(512, 2048, "bf16") == 512 * 2048 * 2
    assert chunk_bytes(1, 64, "f32") == 256


def test_a_chunk_above_the_ceiling_is_refused() -> None:
    with pytest.raises(LocalProtocolError, match="at most"):
        chunk_bytes(20_000, 4096, "bf16")


@pytest.mark.parametrize(("width", "dtype"), [(4096, "bf16"), (3000, "f32"), (1, "i32")])
def test_the_most_tokens_of_a_chunk_fit_and_one_more_does_not(width: int, dtype: str) -> None:
    most = chunk_tokens(width, dtype)
    assert chunk_bytes(most, width, dtype) <= MAX_TENSOR_BYTES
    with pytest.raises(LocalProtocolError):
        chunk_bytes(most + 1, width, dtype)


def test_a_session_has_room_for_an_id_of_each_of_its_tokens_behind_the_largest_tensor() -> None:
    assert session_bytes(512, 2048, "bf16", 4096) == 512 * 2048 * 2 + 4 * 4096
    assert session_bytes(512, 2048, "bf16", 2**31 - 1) == MAX_TENSOR_BYTES
