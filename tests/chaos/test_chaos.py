"""scripts/chaos.py: a few servers killed in answers (frozen ones: tests/e2e)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.e2e


def test_answers_do_not_show_that_servers_were_killed(
    run_script: Callable[..., dict[str, Any]],
) -> None:
    found = run_script(
        "chaos.py",
        *("--kill", "1", "--kill-two", "1", "--freeze", "0"),
        *("--max-tokens", "80", "--prompts", "1"),
    )
    assert found["holds"]
    assert [row["count"] for row in found["rows"]] == [1, 1]
    assert [row["facts"]["identical"] for row in found["rows"]] == [1, 1]
