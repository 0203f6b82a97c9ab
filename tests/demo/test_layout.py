"""The files of a swarm on this machine, before anything runs."""

from __future__ import annotations

import json
import socket
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptnode.demo.bundled import count_blocks
from gptnode.demo.layout import free_ports, lay_out_swarm, split_evenly
from gptnode.errors import ModelFileError, UsageError
from gptnode.net.identity import load_identity
from gptnode.routing.blocks_map import read_blocks_map


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"num_hidden_layers": 8}))
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "swarm"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("n_peers", range(1, 9))
def test_the_map_is_valid_and_gives_every_block_to_one_server(
    n_peers: int, folder: Path, model_dir: Path
) -> None:
    layout = lay_out_swarm(folder, n_peers, "demo", model_dir)
    blocks_map = read_blocks_map(layout.map_path)
    blocks_map.check_blocks("demo", 8)
    assert len(blocks_map.peers) == len(layout.servers) == n_peers
    for server in layout.servers:
        assert blocks_map.spans_of(server.peer_id, "demo") == (server.span,)
        entry = blocks_map.peer(server.peer_id)
        assert entry is not None
        assert entry.addrs == (server.addr,)
    assert Path(str(blocks_map.model("demo").path)) == model_dir.resolve()


def test_every_server_and_the_client_has_an_identity_of_its_own(
    folder: Path, model_dir: Path
) -> None:
    layout = lay_out_swarm(folder, 3, "demo", model_dir)
    paths = [server.identity_path for server in layout.servers] + [layout.client_identity_path]
    ids = [load_identity(path).peer_id for path in paths]
    assert len(set(ids)) == 4
    assert [server.peer_id for server in layout.servers] == ids[:3]
    assert read_blocks_map(layout.map_path).allowed() == frozenset(ids)
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in paths)


@pytest.mark.parametrize("n_peers", [-1, 0, 9, 100])
def test_more_servers_than_blocks_or_none_are_refused_before_anything_is_written(
    n_peers: int, folder: Path, model_dir: Path
) -> None:
    with pytest.raises(UsageError, match="1 to 8 servers"):
        lay_out_swarm(folder, n_peers, "demo", model_dir)
    assert list(folder.iterdir()) == []


def test_a_model_with_more_blocks_than_names_still_gets_a_name_for_each(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"num_hidden_layers": 12}))
    layout = lay_out_swarm(folder, 12, "demo", folder)
    assert len({server.name for server in layout.servers}) == 12


@given(n_blocks=st.integers(1, 200), data=st.data())
def test_the_split_covers_all_blocks_in_order_with_parts_that_differ_by_one_at_most(
    n_blocks: int, data: st.DataObject
) -> None:
    n_parts = data.draw(st.integers(1, n_blocks))
    spans = split_evenly(n_blocks, n_parts)
    assert [block for span in spans for block in span] == list(range(n_blocks))
    assert len(spans) == n_parts
    assert max(map(len, spans)) - min(map(len, spans)) <= 1


def test_two_servers_get_a_half_each() -> None:
    assert [str(span) for span in split_evenly(8, 2)] == ["0-3", "4-7"]
    assert [str(span) for span in split_evenly(8, 3)] == ["0-2", "3-5", "6-7"]


def test_free_ports_differ_and_can_be_listened_on() -> None:
    ports = free_ports(8)
    assert len(set(ports)) == 8
    for port in ports:
        with socket.create_server(("127.0.0.1", port)):
            pass


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"num_hidden_layers": 0}', '{"num_hidden_layers": "8"}']
)
def test_a_config_that_does_not_tell_the_number_of_blocks_is_an_error(
    text: str, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ModelFileError, match=r"config\.json"):
        count_blocks(tmp_path)


def test_a_folder_without_a_config_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"config\.json"):
        count_blocks(tmp_path)
