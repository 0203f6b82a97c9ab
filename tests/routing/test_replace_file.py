"""A file is there whole, in its old form or its new one."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from gptnode.routing.replace_file import replace_file


def test_a_new_file_has_the_mode_from_its_first_byte(tmp_path: Path) -> None:
    path = tmp_path / "new"
    before = os.umask(0)
    try:
        replace_file(path, b"data", 0o600)
    finally:
        os.umask(before)
    assert path.read_bytes() == b"data"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_mode_is_the_one_asked_for_whatever_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "map.json"
    before = os.umask(0o077)
    try:
        replace_file(path, b"data", 0o664)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o664


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    target = tmp_path / "folder" / "map.json"
    target.parent.mkdir()
    target.write_text("old")
    link = tmp_path / "link.json"
    link.symlink_to(target)
    replace_file(link, b"new", 0o644)
    assert link.is_symlink()
    assert target.read_bytes() == b"new"
    assert [path.name for path in target.parent.iterdir()] == ["map.json"]


def test_what_can_not_be_written_leaves_the_old_file_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "map.json"
    path.write_text("old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        replace_file(path, b"new", 0o644)
    assert path.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["map.json"]
