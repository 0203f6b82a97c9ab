"""A script that is stopped in the middle leaves no server, no namespace and no folder behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e

SCRIPTS = Path(__file__).parents[2] / "scripts"
DEADLINE_S = 100.0
GONE_S = 15.0


def processes_in(folder: Path) -> list[str]:
    """Command lines that name it."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            said = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(folder) in said:
            found.append(said)
    return found


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize(
    ("number", "argv", "progress", "n_servers"),
    [
        (signal.SIGINT, ("attack.py", "--only", "idle"), "idle", 1),
        (signal.SIGTERM, ("chaos.py", "--only", "blackhole", "--prompts", "1"), "blackhole", 4),
    ],
)
def test_nothing_is_left(
    number: signal.Signals, argv: tuple[str, ...], progress: str, n_servers: int, tmp_path: Path
) -> None:
    from proof.wires import leftovers, why_no_wires

    if "blackhole" in argv and why_no_wires() is not None:
        argv = tuple(word.replace("blackhole", "kill") for word in argv)
        progress = "kill"
    with subprocess.Popen(
        [sys.executable, str(SCRIPTS / argv[0]), *argv[1:]],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)}, start_new_session=True,
    ) as script:  # fmt: skip
        try:
            assert script.stderr is not None
            while progress not in (line := script.stderr.readline()):
                assert line, "it ended by itself"
            deadline_s = time.monotonic() + DEADLINE_S
            while len(processes_in(tmp_path)) < n_servers:
                assert time.monotonic() < deadline_s
                time.sleep(0.05)
            script.send_signal(number)
            out, _ = script.communicate(timeout=DEADLINE_S)
        finally:
            script.kill()
    assert script.returncode == 1, out
    deadline_s = time.monotonic() + GONE_S
    while processes_in(tmp_path) and time.monotonic() < deadline_s:
        time.sleep(0.1)
    assert processes_in(tmp_path) == []
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("gptnode")] == []
    assert leftovers() == []
    assert not list(Path("/sys/class/net").glob(f"gn{script.pid}.*"))
