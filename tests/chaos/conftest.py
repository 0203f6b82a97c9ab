"""The scripts of the proof, run with small counts: as commands, the way people run them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
DEADLINE_S = 280.0


@pytest.fixture(autouse=True)
def _scripts_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))


@pytest.fixture
def run_script() -> Callable[..., dict[str, Any]]:
    """Runs a script with --json to its end; what it printed. Fails where its exit code isn't 0."""

    def run(*argv: str) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, str(SCRIPTS / argv[0]), *argv[1:], "--json"],
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "seed" in done.stderr.splitlines()[0]
        found = json.loads(done.stdout)
        assert isinstance(found, dict)
        return found

    return run
