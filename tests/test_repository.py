"""What must never be committed."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MARK = b"-----BEGIN"


def test_no_private_key_is_in_the_repository() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    files = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    assert files
    holding = [
        str(file)
        for file in files
        if file.is_file() and file.read_bytes().lstrip().startswith(MARK)
    ]
    assert holding == []
