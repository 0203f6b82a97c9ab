"""scripts/fuzz.py, and that it notices what it is there for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def quiet(_: str) -> None:
    pass


def test_hostile_frames_give_messages_or_protocol_errors(
    run_script: Callable[..., dict[str, Any]],
) -> None:
    found = run_script("fuzz.py", "wire", "--frames", "30000")
    assert found["frames"] >= 30_000
    assert found["failures"] == []
    assert found["messages"] > 1000
    kinds = {kind.partition(":")[0] for kind in found["errors"]}
    assert kinds == {"none", "RemoteProtocolError", "LocalProtocolError", "StreamLostError"}


def test_the_state_machines_of_the_protocol_find_nothing(
    run_script: Callable[..., dict[str, Any]],
) -> None:
    found = run_script("fuzz.py", "states", "--seeds", "30")
    assert found["seeds"] == {"SessionMachine": 30, "MeddledSession": 30}
    assert found["failures"] == []


def test_a_state_machine_that_fails_is_told_with_its_seed(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from hypothesis.stateful import RuleBasedStateMachine, rule
    from proof import state_fuzz

    class Failing(RuleBasedStateMachine):
        @rule()
        def fail(self) -> None:
            raise ZeroDivisionError

    monkeypatch.setattr(state_fuzz, "MACHINES", (Failing,))
    found = state_fuzz.fuzz_states(5, 10, 5, report=quiet)
    assert not found.passed
    assert "hypothesis seed 5: ZeroDivisionError" in found.failures[0]
    capfd.readouterr()


def test_the_same_seed_is_the_same_run() -> None:
    from proof.wire_fuzz import fuzz_wire

    first, second = (fuzz_wire(7, 2000, report=quiet) for _ in range(2))
    assert first.errors == second.errors
    assert first.errors != fuzz_wire(8, 2000, report=quiet).errors


def test_a_decoder_that_lets_another_error_out_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    from proof.wire_fuzz import fuzz_wire

    from gptnode.wire import fields

    def careless(self: fields.Fields, key: str) -> object:
        return self.values[key]

    monkeypatch.setattr(fields.Fields, "_value", careless)
    found = fuzz_wire(1, 5000, report=quiet)
    assert not found.passed
    assert "KeyError" in found.failures[0]


def test_memory_that_grows_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    from proof import wire_fuzz

    kept: list[bytes] = []
    bytes_of = wire_fuzz.hostile_frame

    def leaking(rng: Any) -> bytes:
        kept.append(b"x" * 10_000)
        return bytes_of(rng)

    monkeypatch.setattr(wire_fuzz, "hostile_frame", leaking)
    found = wire_fuzz.fuzz_wire(1, 25_000, report=quiet)
    assert found.failures == []
    assert not found.passed


def test_damaged_weights_give_clear_errors_or_exact_tensors(
    run_script: Callable[..., dict[str, Any]],
) -> None:
    found = run_script("fuzz.py", "weights", "--variants", "60")
    assert found["variants"] == 60
    assert found["failures"] == []
    outcomes = {outcome for counts in found["outcomes"].values() for outcome in counts}
    assert outcomes == {"clear error", "exact"}


def test_a_reader_that_trusts_headers_is_noticed(run_script: object, tmp_path: Path) -> None:
    """In a child of its own, for the fuzzer forks."""
    import subprocess
    import sys

    program = f"""
import sys
sys.path[:0] = [{str(Path(__file__).parents[2] / "scripts")!r}, {str(Path(__file__).parents[2])!r}]
import math
from dataclasses import replace
from proof import damage, weights_fuzz
from gptnode.model import safetensors_file
true = safetensors_file._parse_header
def trusting(file, header, data_start, size):
    return tuple(replace(e, offset=data_start) for e in true(file, header, data_start, size))
base = weights_fuzz._write_bases
def bases(folder):
    found = base(folder)
    safetensors_file._parse_header = trusting
    return found
weights_fuzz._write_bases = bases
try:
    weights_fuzz.fuzz_weights(1, 20, report=print)
except RuntimeError as error:
    assert "other tensors" in str(error), error
    print("noticed")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout.endswith("noticed\n"), done.stdout + done.stderr
