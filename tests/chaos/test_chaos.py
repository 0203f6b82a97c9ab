"""scripts/chaos.py with small counts (frozen servers: tests/e2e)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

RunScript = Callable[..., dict[str, Any]]


def test_answers_do_not_show_what_happens_to_servers(run_script: RunScript) -> None:
    kinds = {"kill-two": "1", "edits": "6", "restart": "1", "slow": "1"}
    argv = [word for kind in kinds for word in ("--only", kind, f"--{kind}", kinds[kind])]
    found = run_script("chaos.py", *argv, *("--chats", "2", "--max-tokens", "80", "--prompts", "1"))
    assert found["holds"], found
    kill_two, edits, restart, slow = found["rows"]
    assert kill_two["facts"]["identical"] == 1
    assert edits["facts"]["valid"] + edits["facts"]["invalid"] == 6
    assert edits["facts"]["client max s"] <= 2
    assert edits["facts"]["servers max s"] <= 2
    assert restart["facts"]["restarts"] == 4
    assert restart["facts"]["chats handed over"] > 0
    assert restart["facts"]["dropped or wrong"] == 0
    assert slow["facts"]["identical"] == 1
    assert slow["facts"]["rerouted after tokens, most"] <= 10


def test_answers_do_not_show_that_a_link_went_silent(run_script: RunScript) -> None:
    from proof.wires import why_no_wires

    problem = why_no_wires()
    if problem is not None:
        pytest.skip(problem)
    argv = ("chaos.py", "--only", "blackhole", "--blackhole", "1", "--seed", "2")
    found = run_script(*argv, "--max-tokens", "80", "--prompts", "1")
    assert found["holds"], found
    (row,) = found["rows"]
    assert row["facts"]["identical"] == row["facts"]["of servers in use"] == row["count"] == 1
