"""`gptnode quantize`: transcripts, exit codes, and the folder as other commands take it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from gptnode.cli.fingerprint import fingerprint_command
from gptnode.cli.main import main
from gptnode.cli.quantize import quantize_command


def run(*argv: str) -> str:
    """Standard output of `gptnode quantize`; its error is raised."""
    result = CliRunner().invoke(quantize_command, argv, catch_exceptions=False)
    assert result.exit_code == 0
    assert result.stderr == ""  # no bar where there is no terminal
    return result.stdout


def fingerprint(folder: Path) -> str:
    result = CliRunner().invoke(fingerprint_command, [str(folder)], catch_exceptions=False)
    return result.stdout.strip()


@pytest.mark.parametrize("argv", [(), ("--dtype", "int8"), ("--dtype", "int4")])
def test_one_line_says_what_was_written(
    argv: tuple[str, ...], model_dir: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    line = run(str(model_dir), str(out), *argv)
    assert line.startswith(f"{out}: {argv[-1] if argv else 'int8'}, 0.")
    assert line.endswith(f" MB of weights instead of 0.2 MB, fingerprint {fingerprint(out)}\n")


def test_json_has_sizes_and_both_fingerprints(model_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    found = json.loads(run(str(model_dir), str(out), "--dtype", "int4", "--json"))
    assert found.pop("elapsed_s") >= 0
    assert found == {
        "folder": str(out),
        "dtype": "int4",
        "fingerprint": fingerprint(out),
        "source": str(model_dir),
        "source_fingerprint": fingerprint(model_dir),
        "tensors": 39,
        "quantised_tensors": 30,
        "weight_bytes": tensor_bytes(out),
        "source_weight_bytes": tensor_bytes(model_dir),
    }
    assert (out / "tokenizer.json").read_bytes() == (model_dir / "tokenizer.json").read_bytes()


@pytest.mark.parametrize(
    ("out", "argv", "code", "problem"),
    [
        ("full", (), 2, "full is not empty; --force replaces it"),
        ("full", ("--force",), 2, "full is no model folder, so it is not replaced"),
        ("out", ("--dtype", "int2"), 2, "'int2' is not one of 'int8', 'int4'"),
    ],
)
def test_what_cannot_be_done_is_a_usage_error(
    out: str,
    argv: tuple[str, ...],
    code: int,
    problem: str,
    model_dir: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("x")
    with pytest.raises(SystemExit) as ending:
        main(["quantize", str(model_dir), str(tmp_path / out), *argv])
    assert ending.value.code == code
    assert problem in capsys.readouterr().err


def test_a_folder_without_a_model_is_a_model_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ending:
        main(["quantize", str(tmp_path / "nowhere"), str(tmp_path / "out")])
    assert ending.value.code == 4
    assert f"{tmp_path}/nowhere/config.json: no such file" in capsys.readouterr().err


def tensor_bytes(folder: Path) -> int:
    """Bytes of the weights' file without its header."""
    data = (folder / "model.safetensors").read_bytes()
    return len(data) - 8 - int.from_bytes(data[:8], "little")
