"""scripts/streams.py: a few streams for a few seconds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


@pytest.mark.e2e
def test_streams_of_the_api_are_as_if_alone_and_leave_nothing(
    run_script: Callable[..., dict[str, Any]],
) -> None:
    argv = ("streams.py", "--streams", "4", "--minutes", "0.1", "--max-tokens", "24", "--seed", "3")
    (row,) = run_script(*argv)["rows"]
    assert row["holds"], row
    assert row["count"] >= 4
