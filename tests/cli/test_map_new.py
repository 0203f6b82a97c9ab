"""`gptnode map new`: a right map from names and addresses, and clear words about wrong ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gptnode.cli.map import map_group
from gptnode.errors import UsageError
from gptnode.net.identity import create_identity, load_identity
from gptnode.routing.blocks_map import read_blocks_map
from gptnode.span import Span


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(
        map_group, ["new", *map(str, arguments)], catch_exceptions=True, standalone_mode=False
    )


def test_a_new_map_is_right_and_shares_the_blocks_evenly(tmp_path: Path) -> None:
    anna, laptop = (create_identity(tmp_path / f"{name}.key").peer_id for name in ("a", "l"))
    ben = create_identity(tmp_path / "b.key").peer_id
    file = tmp_path / "swarm.json"
    result = run(
        file,
        "--peer",
        f"anna={anna}@192.168.1.10",
        "--peer",
        f"ben={ben}@[fd00::2]:4002",
        "--client",
        f"laptop={laptop}",
    )
    assert result.exception is None
    blocks_map = read_blocks_map(file)
    assert [peer.addrs for peer in blocks_map.peers] == [
        ("/ip4/192.168.1.10/tcp/4001",),
        ("/ip6/fd00::2/tcp/4002",),
    ]
    assert blocks_map.spans_of(anna, blocks_map.models[0].name) == (Span(0, 4),)
    assert blocks_map.spans_of(ben, blocks_map.models[0].name) == (Span(4, 8),)
    assert blocks_map.allowed() == {anna, ben, laptop}


def test_identities_are_made_where_they_are_missing_and_kept_where_they_are_not(
    tmp_path: Path,
) -> None:
    keys, file = tmp_path / "keys", tmp_path / "swarm.json"
    kept = create_identity(keys / "anna.key").peer_id
    result = run(file, "--keys", keys, "--peer", "anna=anna.lan", "--peer", "ben=ben.lan:5000")
    assert result.exception is None
    anna, ben = read_blocks_map(file).peers
    assert anna.id == kept
    assert ben.id == load_identity(keys / "ben.key").peer_id
    assert ben.addrs == ("/dns/ben.lan/tcp/5000",)


def test_an_existing_file_is_left_alone_unless_forced(tmp_path: Path) -> None:
    file = tmp_path / "swarm.json"
    file.write_text("precious")
    words = [file, "--keys", tmp_path, "--peer", "anna=10.0.0.1"]
    assert isinstance(run(*words).exception, UsageError)
    assert file.read_text() == "precious"
    assert run(*words, "--force").exception is None
    assert json.loads(file.read_text())["peers"][0]["name"] == "anna"


@pytest.mark.parametrize(
    ("typed", "reason"),
    [
        ("anna", "NAME=[ID@]HOST[:PORT]"),
        ("anna=", "NAME=[ID@]HOST[:PORT]"),
        ("an na=10.0.0.1", "NAME=[ID@]HOST[:PORT]"),
        ("anna=12D3@10.0.0.1", "the id"),
        ("anna=10.0.0.1:70000", "no port"),
        ("anna=300.0.0.1", "no IPv4 address"),
        ("anna=10.0.0.1", "gptnode id"),
    ],
)
def test_what_is_typed_wrong_is_told(tmp_path: Path, typed: str, reason: str) -> None:
    result = run(tmp_path / "swarm.json", "--peer", typed)
    assert isinstance(result.exception, UsageError)
    assert reason in result.exception.detail
    assert not list(tmp_path.iterdir())


def test_more_peers_than_blocks_are_refused_before_any_key_is_made(tmp_path: Path) -> None:
    peers = [word for n in range(9) for word in ("--peer", f"p{n}=10.0.0.{n}")]
    result = run(tmp_path / "swarm.json", "--keys", tmp_path / "keys", *peers)
    assert isinstance(result.exception, UsageError)
    assert "8 blocks" in result.exception.detail
    assert not list(tmp_path.iterdir())


def test_names_that_come_twice_write_nothing(tmp_path: Path) -> None:
    file = tmp_path / "swarm.json"
    result = run(file, "--keys", tmp_path, "--peer", "a=10.0.0.1", "--peer", "a=10.0.0.2")
    assert result.exception is not None
    assert not file.exists()
