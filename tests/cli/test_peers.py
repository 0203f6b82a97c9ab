"""`gptnode peers` beside a server's status file, and the map that it edits."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from gptnode.cli.peers import peers_group
from gptnode.errors import MapError, UsageError
from gptnode.node.status_file import StatusFile
from gptnode.routing.blocks_map import ClientEntry, read_blocks_map
from tests.routing.ids import ANNA, BEN, DORA, LAPTOP
from tests.routing.maps import own_form


def run(*argv: str) -> str:
    result = CliRunner().invoke(peers_group, argv, catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    return result.stdout


@pytest.fixture
def map_path(tmp_path: Path) -> Path:
    path = tmp_path / "swarm.json"
    path.write_text(json.dumps(own_form(), indent=2))
    return path


@pytest.fixture
def status(map_path: Path) -> dict[str, Any]:
    return {
        "peer_id": ANNA,
        "map": str(map_path),
        "state": "serving",
        "blocks": {"my-llama": ["0-7", "9"]},
        "problems": [],
        "connected": [
            {
                "id": LAPTOP,
                "name": "laptop",
                "role": "client",
                "addr": "10.0.0.5:50000",
                "since": "2026-01-02T03:04:05Z",
                "sessions": 2,
                "kv_bytes": 64 << 20,
            }
        ],
        "pending": [{"addr": "10.0.0.9:50000", "since": "2026-01-02T03:04:06Z"}],
        "refused": [
            {
                "id": DORA,
                "addr": "10.0.0.7:50000",
                "count": 3,
                "first": "2026-01-02T03:04:07Z",
                "last": "2026-01-02T03:04:08Z",
            }
        ],
    }


@pytest.fixture
def server(
    tmp_path: Path, status: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> Iterator[StatusFile]:
    """A server whose identity is the user's own."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    for name in ("GPTNODE_MAP", "GPTNODE_IDENTITY"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "gptnode").mkdir()
    with StatusFile(tmp_path / "gptnode" / "identity.key") as file:
        file.write(status)
        yield file


@pytest.mark.usefixtures("server")
def test_the_tables_name_everybody(map_path: Path) -> None:
    assert run().splitlines() == [
        f"{ANNA}: serving my-llama 0-7, 9",
        str(map_path),
        "",
        "connected:",
        "  name    role    sessions  cache   since                 address         id",
        f"  laptop  client  2         64 MiB  2026-01-02T03:04:05Z  10.0.0.5:50000  {LAPTOP}",
        "",
        "pending:",
        "  since                 address",
        "  2026-01-02T03:04:06Z  10.0.0.9:50000",
        "",
        "refused:",
        "  times  first                 last                  address         id",
        f"  3      2026-01-02T03:04:07Z  2026-01-02T03:04:08Z  10.0.0.7:50000  {DORA}",
        "",
        "`gptnode peers accept ID` lets one in",
    ]


def test_an_empty_table_is_one_line_and_problems_are_shown(
    server: StatusFile, status: dict[str, Any]
) -> None:
    nobody: dict[str, Any] = {"connected": [], "pending": [], "refused": [], "blocks": {}}
    server.write(status | nobody | {"problems": ["routes[1]: too many"], "state": "loading"})
    shown = run()
    assert "connected: nobody\n\npending: nobody\n\nrefused: nobody\n" in shown
    assert "problem: routes[1]: too many" in shown
    assert f"{ANNA}: loading no blocks" in shown


@pytest.mark.usefixtures("server")
def test_json_is_the_status_and_nothing_else(status: dict[str, Any]) -> None:
    assert json.loads(run("--json")) == status


def test_without_a_server_that_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no server with the identity"):
        run("--identity", str(tmp_path / "ben.key"))


@pytest.mark.usefixtures("server")
def test_accept_edits_the_map_of_the_running_server(map_path: Path) -> None:
    shown = run("accept", DORA, "--name", "dora")
    assert f"dora ({DORA})" in shown
    assert read_blocks_map(map_path).clients[-1] == ClientEntry(DORA, "dora")


def test_accept_takes_the_server_of_another_identity(
    tmp_path: Path, map_path: Path, status: dict[str, Any]
) -> None:
    identity = tmp_path / "ben.key"
    with StatusFile(identity) as file:
        file.write(status)
        run("--identity", str(identity), "accept", DORA)
        run("accept", BEN, "--identity", str(identity))
    assert DORA in read_blocks_map(map_path).allowed()


def test_accept_needs_no_server_where_a_map_is_named(map_path: Path) -> None:
    run("accept", DORA, "--map", str(map_path))
    assert DORA in read_blocks_map(map_path).allowed()


def test_who_is_listed_already_is_not_added_again(map_path: Path) -> None:
    before = map_path.read_text()
    assert "already" in run("accept", LAPTOP, "--map", str(map_path))
    assert map_path.read_text() == before


def test_what_is_no_peer_id_is_not_accepted(map_path: Path) -> None:
    with pytest.raises(UsageError, match="laptop"):
        run("accept", "laptop", "--map", str(map_path))


def test_a_name_that_is_taken_is_an_error_and_changes_nothing(map_path: Path) -> None:
    before = map_path.read_text()
    with pytest.raises(MapError, match="anna"):
        run("accept", DORA, "--name", "anna", "--map", str(map_path))
    assert map_path.read_text() == before
