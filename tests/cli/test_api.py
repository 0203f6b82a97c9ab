from __future__ import annotations

from pathlib import Path

import pytest
import trio
from click.testing import CliRunner

from gptnode.api.config import ApiConfig
from gptnode.cli.main import cli
from gptnode.demo.bundled import bundled_model_folder
from gptnode.errors import GptNodeError

LOCAL = ("--model-dir", str(bundled_model_folder()))


def refused(*args: str) -> str:
    """What the command says, without starting anything."""
    done = CliRunner().invoke(cli, ["api", *args], env={"GPTNODE_API_TOKEN": None})
    assert isinstance(done.exception, GptNodeError), done.output
    assert done.exception.exit_code == 2
    return done.exception.detail


@pytest.mark.parametrize("listen", ["0.0.0.0:8000", "[::]:8000", ":8000", "192.168.1.5:80"])
def test_a_network_takes_a_token(listen: str) -> None:
    assert "--token-file" in refused(*LOCAL, "--listen", listen)


def test_a_token_file_has_to_be_there(tmp_path: Path) -> None:
    assert "--create-token" in refused(*LOCAL, "--token-file", str(tmp_path / "token"))
    assert "--token-file FILE" in refused(*LOCAL, "--create-token")


def test_something_has_to_be_served() -> None:
    assert "--map" in refused()


def test_help_shows_examples() -> None:
    done = CliRunner().invoke(cli, ["api", "--help"])
    assert done.exit_code == 0
    assert "gptnode api --map swarm.json --listen 0.0.0.0:8000 --token-file" in done.output


@pytest.mark.parametrize(
    ("options", "read_only"),
    [
        (("--listen", "127.0.0.1:0"), False),
        (("--listen", "0.0.0.0:0"), True),
        (("--listen", "0.0.0.0:0", "--edit-map"), False),
        (("--read-only-map",), True),
    ],
)
def test_a_network_may_look_at_the_map_and_not_change_it(
    monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], read_only: bool
) -> None:
    started: list[ApiConfig] = []
    monkeypatch.setattr(trio, "run", lambda serve, client, config, *rest: started.append(config))
    done = CliRunner().invoke(
        cli, ["api", *LOCAL, *options], env={"GPTNODE_API_TOKEN": "a token of some length"}
    )
    assert done.exception is None, done.output
    assert [config.read_only_map for config in started] == [read_only]
