"""scripts/soak.py: a few chats for a few seconds, and that it notices what it is there for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

RunScript = Callable[..., dict[str, Any]]


@pytest.mark.e2e
def test_many_chats_at_once_are_as_if_alone(run_script: RunScript) -> None:
    argv = ("soak.py", "--chats", "6", "--minutes", "0.15", "--prompts", "1", "--max-tokens", "24")
    (row,) = run_script(*argv)["rows"]
    assert row["holds"], row
    assert row["facts"]["false alarms"] == row["facts"]["wrong"] == 0
    assert row["count"] >= 6


def test_a_line_that_is_no_first_route_is_an_alarm() -> None:
    from proof.crowd_of_chats import Chats

    route = "anna serves blocks 0-3; ben serves blocks 4-7"
    chats = Chats()
    chats.lines = {"a": [route], "b": [route, "dan serves blocks 4-7"], "c": []}
    assert chats.alarms() == ["b: dan serves blocks 4-7"]
    chats.lines = {"a": [f"ben (blocks 4-7) is slow; {route}"]}
    assert len(chats.alarms()) == 1


def test_memory_that_grows_has_a_slope(monkeypatch: pytest.MonkeyPatch) -> None:
    from proof.memory import Memory
    from proof.swarm import Reading

    readings = [(float(n), Reading((1 << 30) + n * 1000, 9, 9)) for n in range(100)]
    assert Memory(readings).slope_bytes_s() == pytest.approx(1000)
    assert Memory(readings).growth_bytes() == 89_000
    flat = [(at_s, readings[0][1]) for at_s, _ in readings]
    assert Memory(flat).slope_bytes_s() == Memory(flat).growth_bytes() == 0
