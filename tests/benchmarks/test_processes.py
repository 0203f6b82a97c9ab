from __future__ import annotations

import os
import sys
from pathlib import Path

import psutil
import pytest

from benchmarks.processes import run, run_json, server_process
from gptnode.errors import GptNodeError

PYTHON = sys.executable


def test_the_object_after_other_lines_is_read() -> None:
    assert run_json([PYTHON, "-c", "print('loading'); print('{\"a\": 1}')"]) == {"a": 1}


def test_an_object_over_several_lines_is_read() -> None:
    program = "import json; print(json.dumps({'a': {'b': 2}}, indent=2))"
    assert run_json([PYTHON, "-c", program]) == {"a": {"b": 2}}


def test_output_without_an_object_is_an_error() -> None:
    with pytest.raises(GptNodeError, match="printed no JSON"):
        run_json([PYTHON, "-c", "print('nothing')"])


def test_a_command_that_fails_is_an_error_with_what_it_said() -> None:
    with pytest.raises(GptNodeError, match=r"exit code 3:\n  why"):
        run([PYTHON, "-c", "import sys; print('why', file=sys.stderr); sys.exit(3)"])


def test_a_program_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(GptNodeError, match="no-such-program"):
        run([tmp_path / "no-such-program"])


def test_variables_that_would_set_options_are_not_passed_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GPTNODE_THREADS", "1")
    monkeypatch.setenv("OTHER", "kept")
    program = "import os; print(os.environ.get('GPTNODE_THREADS'), os.environ['OTHER'])"
    assert run([PYTHON, "-c", program]).out.split() == ["None", "kept"]


def test_a_server_is_there_while_the_block_runs_and_gone_after_it() -> None:
    program = "import time; print('ready', flush=True); time.sleep(600)"
    with server_process([PYTHON, "-c", program]) as server:
        (child,) = (
            each for each in psutil.Process(os.getpid()).children() if program in each.cmdline()
        )
        assert child.is_running()
        assert server.resident_bytes > 0
        assert server.ready_s > 0
    assert not child.is_running()


def test_a_server_that_ends_before_it_serves_is_an_error_with_what_it_said() -> None:
    program = "import sys; sys.exit('no such map')"
    with (
        pytest.raises(GptNodeError, match="no such map"),
        server_process([PYTHON, "-c", program]),
    ):
        pass


def test_the_memory_of_a_watched_server_is_seen_while_a_command_runs() -> None:
    program = "import time; print('ready', flush=True); time.sleep(600)"
    with server_process([PYTHON, "-c", program]) as server:
        ended = run([PYTHON, "-c", "print('x')"], watched=[server])
    assert ended.peak_bytes > 0
