"""scripts/mishaps.py: a full disk and a clock that jumps, once or a few times."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.e2e

RunScript = Callable[..., dict[str, Any]]
CAN_MOUNT = """
import sys
sys.path.insert(0, {scripts!r})
from proof.small_disk import own_mounts
problem = own_mounts()
sys.exit(problem)
"""


def test_a_full_disk_is_a_clear_error_and_files_stay_whole(run_script: RunScript) -> None:
    program = CAN_MOUNT.format(scripts=str(Path(__file__).parents[2] / "scripts"))
    tried = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    if tried.returncode != 0:
        pytest.skip(tried.stderr.strip())
    commands, servers = run_script("mishaps.py", "--only", "disk", "--rounds", "1")["rows"]
    assert commands["failures"] == servers["failures"] == []
    assert commands["facts"]["clear errors"] > 0
    assert servers["facts"]["answers on a full disk"] == 1


def test_a_clock_that_jumps_by_an_hour_is_not_noticed(run_script: RunScript) -> None:
    if shutil.which("cc") is None:
        pytest.skip("there is no C compiler")
    argv = ("mishaps.py", "--only", "clock", "--rounds", "1", "--prompts", "1")
    (row,) = run_script(*argv, "--max-tokens", "80")["rows"]
    assert row["failures"] == []
    assert row["facts"]["jumps in the logs"] > 0
