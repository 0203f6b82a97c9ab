"""Two processes saturate both directions at once, for some seconds; the script does an hour."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "duplex.py"

pytestmark = pytest.mark.e2e


def test_five_seconds_of_full_duplex_at_saturation_lose_nothing_and_do_not_stop() -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--minutes", "0.083", "--streams", "3"],
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for side in json.loads(done.stdout).values():
        assert side["read_bytes"] > 10_000_000
        assert side["echoes"] > 0
        assert side["cancelled"] > 0
