"""scripts/attack.py against a real server, a few of each kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.e2e

ROWS = 12


def test_nobody_gets_in_and_listed_peers_are_served(
    run_script: Callable[..., dict[str, Any]],
) -> None:
    found = run_script("attack.py", "--scale", "0.01")
    assert found["holds"]
    assert len(found["rows"]) == ROWS
    for row in found["rows"]:
        assert row["count"] > 0
        assert row["failures"] == []
