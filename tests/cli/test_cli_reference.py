"""docs/reference/cli.md is what the commands say, and drift is noticed."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from gptnode.cli.main import COMMANDS

SCRIPT = Path(__file__).parents[2] / "scripts" / "cli_reference.py"


@pytest.fixture
def script() -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("cli_reference", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def check(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["cli_reference.py", "--check"])
    code = script.main()
    assert isinstance(code, int)
    return code


def test_the_page_is_current(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check(script, monkeypatch) == 0, "run `make docs`"


def test_a_page_that_says_something_else_is_noticed(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    page = tmp_path / "cli.md"
    monkeypatch.setattr(script, "PAGE", page)
    assert check(script, monkeypatch) == 1
    page.write_text(script.page().replace("--kv-memory", "--kv-room"))
    assert check(script, monkeypatch) == 1
    page.write_text(script.page())
    assert check(script, monkeypatch) == 0


def test_every_command_and_every_exit_code_has_a_place(script: ModuleType) -> None:
    page = script.page()
    for name in COMMANDS:
        assert f"## `gptnode {name}`" in page
    assert "## `gptnode map check`" in page
    for code in (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 70, 130, 141, 143):
        assert f"\n| {code} | " in page
    assert "exit-with-stdin" not in page


def test_an_option_of_the_page_is_in_a_row_with_its_default(script: ModuleType) -> None:
    rows = [line for line in script.page().splitlines() if line.startswith("| `--kv-memory SIZE")]
    assert len(rows) == 1
    assert "2GiB" in rows[0]
