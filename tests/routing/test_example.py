"""The example in the top folder is a map that works, but for its peers."""

from __future__ import annotations

from pathlib import Path

from gptnode.routing.blocks_map import read_blocks_map
from gptnode.routing.peer_id import peer_id_problem
from gptnode.routing.route import plan_route

EXAMPLE = Path(__file__).parents[2] / "blocksmap.example.json"


def test_it_serves_every_block_of_the_bundled_model_twice() -> None:
    found = read_blocks_map(EXAMPLE)
    found.check_blocks("gptnode-demo", 8)
    assert all(len(peers) == 2 for peers in found.holders("gptnode-demo", 8))


def test_any_one_of_its_three_machines_may_fail() -> None:
    found = read_blocks_map(EXAMPLE)
    assert [len(hop.span) for hop in plan_route(found, "gptnode-demo", 8).hops] == [3, 3, 2]
    for peer in found.peers:
        route = plan_route(found, "gptnode-demo", 8, down=[peer.id])
        assert all(peer.id not in hop.peer_ids for hop in route.hops)


def test_its_ids_are_those_of_ed25519_keys() -> None:
    for peer_id in read_blocks_map(EXAMPLE).allowed():
        assert peer_id.startswith("12D3KooW")
        assert peer_id_problem(peer_id) is None


def test_its_model_is_the_bundled_one() -> None:
    paths = read_blocks_map(EXAMPLE).model_paths()
    assert paths is not None
    assert paths.folder == EXAMPLE.parent / "gptnode" / "demo" / "model"
