"""The status of a server is there while it runs, and for its owner alone."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from gptnode.errors import UsageError
from gptnode.node import status_file
from gptnode.node.status_file import StatusFile, read_status, status_path


@pytest.fixture
def identity(tmp_path: Path) -> Path:
    return tmp_path / "anna.key"


def test_what_is_written_is_read_and_is_gone_at_the_end(identity: Path) -> None:
    with StatusFile(identity) as file:
        file.write({"state": "loading"})
        file.write({"state": "serving"})
        assert read_status(identity)["state"] == "serving"
        assert stat.S_IMODE(status_path(identity).stat().st_mode) == 0o600
    assert not status_path(identity).exists()
    with pytest.raises(UsageError, match="no server"):
        read_status(identity)


def test_what_is_no_news_is_not_written_again(
    identity: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[bytes] = []
    monkeypatch.setattr(status_file, "replace_file", lambda _, data, __: written.append(data))
    with StatusFile(identity) as file:
        for state in ("loading", "loading", "serving", "serving"):
            file.write({"state": state})
    assert len(written) == 2


def test_the_file_of_a_server_that_was_killed_counts_as_none(identity: Path) -> None:
    program = (
        "import os; from pathlib import Path; from gptnode.node.status_file import StatusFile;"
        f"StatusFile(Path({str(identity)!r})).write({{'state': 'serving'}}); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", program], check=False)
    assert status_path(identity).exists()
    with pytest.raises(UsageError, match="no server"):
        read_status(identity)


def test_a_process_that_has_its_number_now_is_another(identity: Path) -> None:
    with StatusFile(identity) as file:
        file.write({})
        document = json.loads(status_path(identity).read_text())
        document["process"]["started_s"] -= 3600
        status_path(identity).write_text(json.dumps(document))
        with pytest.raises(UsageError, match="no server"):
            read_status(identity)
    assert status_path(identity).exists()  # it may be that other one's


@pytest.mark.skipif(not psutil.LINUX, reason="elsewhere the start of a process is remembered")
def test_a_clock_that_was_moved_makes_no_other_process_of_it(
    identity: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from psutil import _pslinux

    booted_s = psutil.boot_time()
    with StatusFile(identity) as file:
        file.write({"state": "serving"})
        for moved_s in (-3600.0, 3600.0):
            monkeypatch.setattr(_pslinux, "boot_time", lambda moved_s=moved_s: booted_s + moved_s)
            assert psutil.boot_time() == booted_s + moved_s
            assert read_status(identity)["state"] == "serving"


@pytest.mark.parametrize(
    "text", ["", "{}", "[1]", '{"process": 7}', "\x00", '{"process": {"pid": "x"}}']
)
def test_a_damaged_file_is_a_plain_error(identity: Path, text: str) -> None:
    status_path(identity).write_text(text)
    with pytest.raises(UsageError, match="can't be read"):
        read_status(identity)


def test_a_folder_that_can_not_be_written_to_is_an_error_each_time(tmp_path: Path) -> None:
    with StatusFile(tmp_path / "gone" / "anna.key") as file:
        for _ in range(2):
            with pytest.raises(OSError, match="No such file"):
                file.write({"state": "serving"})
