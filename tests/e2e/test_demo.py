"""`gptnode demo`: an answer without a terminal, and no process left however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from .conftest import DEADLINE_S, environment, gptnode


@contextmanager
def demo(scratch: Path, *argv: str) -> Iterator[subprocess.Popen[str]]:
    """A demo that waits for its standard input; it says on stderr how far it is."""
    with subprocess.Popen(
        [sys.executable, "-m", "gptnode", "demo", "--verbose", *argv],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(TMPDIR=str(scratch)),
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()


def servers_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The server processes that a demo has started."""
    children = psutil.Process(process.pid).children(recursive=True)
    return [child for child in children if "serve" in child.cmdline()]


def read_until(process: subprocess.Popen[str], words: str) -> None:
    """Waits for a line on stderr."""
    assert process.stderr is not None
    seen: list[str] = []
    for line in process.stderr:
        seen.append(line)
        if words in line:
            return
    pytest.fail(f"the demo ended before {words!r}: {seen}")


def test_an_answer_without_a_terminal(tmp_path: Path) -> None:
    done = gptnode(
        *("demo", "--prompt", "What is a BlocksMap?", "--temperature", "0", "--max-tokens", "8"),
        env=environment(TMPDIR=str(tmp_path)),
    )
    assert done.code == 0, done.err
    assert done.out.strip()
    assert done.err == ""
    assert list(tmp_path.iterdir()) == []


def test_the_prompt_may_come_from_standard_input_and_three_servers_may_answer_it() -> None:
    argv = ["--peers", "3", "--json", "--max-tokens", "4", "--temperature", "0"]
    answer = gptnode("demo", *argv, stdin="Hello.").answer
    assert 1 <= answer["completion_tokens"] <= 4


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143)],
    ids=lambda value: value.name if isinstance(value, signal.Signals) else "",
)
def test_a_signal_ends_the_servers_too(number: signal.Signals, code: int, tmp_path: Path) -> None:
    with demo(tmp_path) as process:
        read_until(process, "ben is ready")
        servers = servers_of(process)
        assert len(servers) == 2
        process.send_signal(number)
        # Only then: communicate() closes stdin, and a demo without a prompt ends with that.
        assert process.wait(timeout=DEADLINE_S) == code
        out, err = process.communicate()
        assert out == ""
        assert "Traceback" not in err
        assert "gptnode: " not in err
    assert psutil.wait_procs(servers, timeout=DEADLINE_S)[1] == []
    assert list(tmp_path.iterdir()) == []


def test_a_signal_while_the_servers_start_ends_them_too(tmp_path: Path) -> None:
    with demo(tmp_path) as process:
        read_until(process, "starting 2 servers")
        servers = servers_of(process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=DEADLINE_S) == 143
    assert psutil.wait_procs(servers, timeout=DEADLINE_S)[1] == []
    assert list(tmp_path.iterdir()) == []


def test_servers_notice_that_the_demo_was_killed(tmp_path: Path) -> None:
    with demo(tmp_path) as process:
        read_until(process, "ben is ready")
        servers = servers_of(process)
        assert len(servers) == 2
        os.kill(process.pid, signal.SIGKILL)
        process.wait(timeout=DEADLINE_S)
    assert psutil.wait_procs(servers, timeout=DEADLINE_S)[1] == []
