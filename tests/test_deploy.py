"""What containers and units start: files that their own linters accept, and commands that exist."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from gptnode.cli.main import cli

ROOT = Path(__file__).resolve().parent.parent
UNITS = sorted((ROOT / "deploy" / "systemd").glob("*.service"))
HOW_TO = ROOT / "docs" / "how-to" / "run-in-containers.md"


def compose() -> Any:
    return yaml.safe_load((ROOT / "compose.yaml").read_text())


def command_lines() -> Iterator[tuple[str, list[str]]]:
    """All calls of gptnode in these files: where, and the words after `gptnode`."""
    for unit in UNITS:
        (line,) = re.findall(r"^ExecStart=\S+/gptnode (.*)$", unit.read_text(), re.MULTILINE)
        yield unit.name, shlex.split(line)
    for name, service in compose()["services"].items():
        words = service["command"]
        if service.get("entrypoint"):
            (line,) = re.findall(r"gptnode (.*)", words[0])
            words = shlex.split(line)
        yield f"compose: {name}", words
    for line in re.findall(
        r"^.*\bgptnode ((?:id|serve) --.*?)(?: +#.*)?$", HOW_TO.read_text(), re.M
    ):
        yield HOW_TO.name, shlex.split(line)


@pytest.mark.parametrize(
    ("where", "words"), [pytest.param(*one, id=one[0]) for one in command_lines()]
)
def test_every_command_line_is_one_that_gptnode_takes(where: str, words: list[str]) -> None:
    name, *rest = words
    with click.Context(cli, info_name="gptnode") as context:
        command = cli.get_command(context, name)
        assert command is not None, where
        while isinstance(command, click.Group):
            command = command.get_command(context, rest.pop(0))
            assert command is not None, where
        command.make_context(name, list(rest), parent=context)


def test_the_image_takes_all_that_the_package_is_built_from() -> None:
    taken = re.findall(
        r"^COPY (?!--from)(.*) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE
    )
    names = {name for line in taken for name in line.split()}
    assert {
        "pyproject.toml",
        "setup.py",
        "README.md",
        "LICENSE",
        "gptnode",
        "constraints.txt",
    } == names
    let_in = (ROOT / ".dockerignore").read_text().split()
    assert {f"!{name}" for name in names} <= set(let_in)
    assert all((ROOT / name).exists() for name in names)


def test_the_image_runs_as_a_user_without_rights() -> None:
    last_stage = (ROOT / "Dockerfile").read_text().rpartition("FROM ")[2]
    (user,) = re.findall(r"^USER (\d+)$", last_stage, re.MULTILINE)
    assert int(user) >= 1000


def test_nothing_of_compose_is_open_to_the_network() -> None:
    for service in compose()["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
        assert service["read_only"] and service["cap_drop"] == ["ALL"]


def test_the_dockerfile_passes_its_linter() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    if not hadolint.exists():
        pytest.skip("hadolint has no wheel for this platform")
    subprocess.run([hadolint, ROOT / "Dockerfile"], check=True, timeout=60)


def test_the_units_pass_systemds_own_check(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("no systemd here")
    for unit in UNITS:
        text = unit.read_text().replace("/opt/gptnode/bin/gptnode", "/bin/true")
        copy = tmp_path / unit.name
        copy.write_text(text)
        checked = subprocess.run(
            [analyze, "verify", "--man=no", copy],
            capture_output=True,
            text=True,
            timeout=60,
            env={**os.environ, "SYSTEMD_LOG_LEVEL": "warning"},
        )
        assert (checked.returncode, checked.stderr) == (0, "")
