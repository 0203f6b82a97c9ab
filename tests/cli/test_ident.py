"""`gptnode id` in one process: files, JSON, addresses."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner

from gptnode.cli.ident import id_command
from gptnode.errors import GptNodeError, IdentityError, NetworkError, UsageError
from gptnode.net.identity import load_identity


def run(*argv: str) -> str:
    """Standard output of `gptnode id`; its error is raised."""
    result = CliRunner().invoke(id_command, argv, catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def run_json(*argv: str) -> dict[str, object]:
    found = json.loads(run(*argv, "--json"))
    assert isinstance(found, dict)
    return found


def test_the_first_call_makes_the_identity_and_the_next_shows_the_same(tmp_path: Path) -> None:
    path = tmp_path / "new" / "node.key"
    first = run_json("--identity", str(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert run_json("--identity", str(path)) == first
    assert first["peer_id"] == load_identity(path).peer_id


def test_json_has_the_peer_id_and_dialable_addresses_and_nothing_else(tmp_path: Path) -> None:
    found = run_json("--identity", str(tmp_path / "node.key"))
    assert set(found) == {"peer_id", "addrs"}
    addrs = found["addrs"]
    assert isinstance(addrs, list)
    assert f"/ip4/127.0.0.1/tcp/4001/p2p/{found['peer_id']}" in addrs
    assert all(addr.endswith(f"/p2p/{found['peer_id']}") for addr in addrs)
    assert not any("0.0.0.0" in addr for addr in addrs)


@pytest.mark.parametrize(
    "listen", ["/ip4/10.1.2.3/tcp/5000", "/ip6/2001:db8::1/tcp/1", "/dns/anna.example/tcp/4001"]
)
def test_a_given_address_is_shown_with_the_peer_id(listen: str, tmp_path: Path) -> None:
    found = run_json("--identity", str(tmp_path / "node.key"), "--listen", listen)
    assert found["addrs"] == [f"{listen}/p2p/{found['peer_id']}"]


def test_several_addresses_are_all_shown(tmp_path: Path) -> None:
    listen = ["/ip4/10.1.2.3/tcp/5000", "/ip4/10.1.2.4/tcp/5001"]
    argv = [word for addr in listen for word in ("--listen", addr)]
    found = run_json("--identity", str(tmp_path / "node.key"), *argv)
    assert found["addrs"] == [f"{addr}/p2p/{found['peer_id']}" for addr in listen]


def test_the_entry_that_is_printed_can_be_pasted_into_a_map(tmp_path: Path) -> None:
    path = tmp_path / "node.key"
    text = run("--identity", str(path), "--listen", "/ip4/10.1.2.3/tcp/5000")
    entries = [json.loads(line) for line in text.splitlines() if line.strip().startswith("{")]
    peer_id = load_identity(path).peer_id
    assert entries == [
        {"id": peer_id, "addrs": ["/ip4/10.1.2.3/tcp/5000"]},
        {"id": peer_id},
    ]


def test_loopback_is_offered_for_a_map_only_where_there_is_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "node.key"
    both = ["--listen", "/ip4/127.0.0.1/tcp/5000", "--listen", "/ip4/10.1.2.3/tcp/5000"]
    assert '"addrs": ["/ip4/10.1.2.3/tcp/5000"]' in run("--identity", str(path), *both)
    assert '"addrs": ["/ip4/127.0.0.1/tcp/5000"]' in run("--identity", str(path), *both[:2])


def test_without_a_file_the_identity_of_the_user_is_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GPTNODE_IDENTITY", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    found = run_json()
    assert load_identity(tmp_path / "gptnode" / "identity.key").peer_id == found["peer_id"]


def test_the_environment_names_the_file_where_no_option_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPTNODE_IDENTITY", str(tmp_path / "mine.key"))
    run()
    assert (tmp_path / "mine.key").exists()
    run("--identity", str(tmp_path / "other.key"))
    assert (tmp_path / "other.key").exists()


def test_the_private_key_is_never_printed(tmp_path: Path) -> None:
    path = tmp_path / "node.key"
    out = run("--identity", str(path)) + run("--identity", str(path), "--json")
    secret_lines = [line for line in path.read_text().splitlines() if "-----" not in line]
    assert secret_lines
    assert not any(line in out for line in secret_lines)


@pytest.mark.parametrize(
    ("listen", "kind"),
    [
        ("not-a-multiaddr", NetworkError),
        ("/ip4/1.2.3.4/udp/4001", NetworkError),
        (
            "/ip4/1.2.3.4/tcp/4001/p2p/12D3KooWRUDCr65an5R4o8SrsZNtpjkLrsx4aAA4yMJEJwhN1fhp",
            UsageError,
        ),
    ],
)
def test_an_address_that_cannot_be_right_is_refused(
    listen: str, kind: type[GptNodeError], tmp_path: Path
) -> None:
    with pytest.raises(kind) as failure:
        run("--identity", str(tmp_path / "node.key"), "--listen", listen)
    assert listen in failure.value.detail


def test_a_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "node.key"
    run("--identity", str(path))
    path.chmod(0o644)
    with pytest.raises(IdentityError, match="chmod 600"):
        run("--identity", str(path))
