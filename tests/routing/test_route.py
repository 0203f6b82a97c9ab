"""Routes are contiguous, complete, alive, and in the order that the map's owner wrote."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptnode.errors import MapError, RouteError
from gptnode.routing.blocks_map import BlocksMap, ModelEntry, PeerEntry, RouteEntry
from gptnode.routing.route import Hop, Route, plan_route
from gptnode.span import Span

from .ids import UNHURRIED

NAMES = ("anna", "ben", "cleo", "dora")


def make_map(*routes: tuple[str, tuple[str, ...]]) -> BlocksMap:
    return BlocksMap(
        (ModelEntry("m"),),
        tuple(PeerEntry(name, ("/ip4/10.0.0.1/tcp/1",), name) for name in NAMES),
        tuple(RouteEntry("m", Span.parse(blocks), peers) for blocks, peers in routes),
    )


def hops(route: Route) -> list[str]:
    return [f"{hop.span} {' '.join(hop.peer_ids)}" for hop in route.hops]


def test_each_block_goes_to_the_first_of_its_peers() -> None:
    found = plan_route(make_map(("0-3", ("anna", "ben")), ("4-7", ("ben", "anna"))), "m", 8)
    assert hops(found) == ["0-3 anna ben", "4-7 ben anna"]
    assert found.n_blocks == 8
    assert found.model == "m"


def test_neighbouring_blocks_of_one_peer_are_one_hop() -> None:
    blocks_map = make_map(("0-1", ("anna",)), ("2", ("anna", "ben")), ("3-7", ("anna",)))
    assert hops(plan_route(blocks_map, "m", 8)) == ["0-7 anna"]


def test_only_peers_that_serve_the_whole_hop_are_its_replicas() -> None:
    blocks_map = make_map(("0-3", ("anna", "cleo", "ben")), ("4-7", ("anna", "ben", "cleo")),
                          ("0-6", ("dora",)))  # fmt: skip
    assert hops(plan_route(blocks_map, "m", 8)) == ["0-7 anna cleo ben"]


def test_without_a_peer_its_blocks_go_to_replicas_as_far_as_those_reach() -> None:
    blocks_map = make_map(("0-7", ("anna",)), ("0-2", ("ben",)), ("2-7", ("cleo",)))
    assert hops(plan_route(blocks_map, "m", 8, down=["anna"])) == ["0-2 ben", "3-7 cleo"]


def test_a_later_route_is_not_preferred_for_being_shorter() -> None:
    blocks_map = make_map(("0-3", ("anna",)), ("4-7", ("ben",)), ("0-7", ("cleo",)))
    assert hops(plan_route(blocks_map, "m", 8)) == ["0-3 anna cleo", "4-7 ben cleo"]


def test_this_node_runs_what_it_serves_itself() -> None:
    blocks_map = make_map(("0-3", ("anna", "ben")), ("4-7", ("cleo",)))
    assert hops(plan_route(blocks_map, "m", 8, local="ben")) == ["0-3 ben anna", "4-7 cleo"]
    assert hops(plan_route(blocks_map, "m", 8, local="dora")) == ["0-3 anna ben", "4-7 cleo"]
    assert hops(plan_route(blocks_map, "m", 8, local="ben", down=["ben"]))[0] == "0-3 anna"


def test_routes_past_the_end_of_the_model_are_left_out() -> None:
    assert hops(plan_route(make_map(("0-9", ("anna",))), "m", 8)) == ["0-7 anna"]


@pytest.mark.parametrize(
    ("down", "detail"),
    [
        (["anna", "ben"], "no live peer for blocks 0-3 of m (anna, ben are down)"),
        (["cleo"], "no live peer for block 4 of m (cleo is down)"),
        (
            ["dora", "ben", "anna"],
            "no live peer for blocks 0-3 and blocks 5-7 of m (anna, ben, dora are down)",
        ),
    ],
)
def test_missing_blocks_are_named_with_the_peers_that_would_serve_them(
    down: list[str], detail: str
) -> None:
    blocks_map = make_map(("0-3", ("anna", "ben")), ("4", ("cleo",)), ("5-7", ("dora",)))
    with pytest.raises(RouteError) as caught:
        plan_route(blocks_map, "m", 8, down=down)
    assert caught.value.detail == detail


def test_blocks_that_no_route_names_have_no_peer() -> None:
    with pytest.raises(RouteError) as caught:
        plan_route(make_map(("0-3", ("anna",))), "m", 8)
    assert caught.value.detail == "no live peer for blocks 4-7 of m (the BlocksMap names none)"


def test_an_unknown_model_is_a_mistake_of_the_map() -> None:
    with pytest.raises(MapError, match='none is called "n"'):
        plan_route(make_map(("0-3", ("anna",))), "n", 4)


def test_a_hop_of_this_node_alone_has_no_peer() -> None:
    assert Route("m", (Hop((), Span(0, 8)),)).n_blocks == 8
    assert Route("m", ()).n_blocks == 0


SPANS = st.tuples(st.integers(0, 11), st.integers(1, 12)).map(
    lambda pair: str(Span(pair[0], pair[0] + pair[1]))
)
PEERS = st.lists(st.sampled_from(NAMES), min_size=1, unique=True).map(tuple)


@UNHURRIED
@given(
    st.lists(st.tuples(SPANS, PEERS), min_size=1, max_size=8),
    st.integers(1, 12),
    st.frozensets(st.sampled_from(NAMES)),
    st.none() | st.sampled_from(NAMES),
)
def test_a_route_is_complete_and_alive_or_there_is_none(
    routes: list[tuple[str, tuple[str, ...]]],
    n_blocks: int,
    down: frozenset[str],
    local: str | None,
) -> None:
    blocks_map = make_map(*routes)
    holders = [
        {peer for blocks, peers in routes if block in Span.parse(blocks) for peer in peers}
        for block in range(n_blocks)
    ]
    try:
        found = plan_route(blocks_map, "m", n_blocks, down=down, local=local)
    except RouteError:
        assert any(not (peers - down) for peers in holders)
        return
    assert [block for hop in found.hops for block in hop.span] == list(range(n_blocks))
    for hop in found.hops:
        assert len(set(hop.peer_ids)) == len(hop.peer_ids) > 0
        assert set(hop.peer_ids) == set.intersection(*(holders[block] for block in hop.span)) - down
        for block in hop.span:
            preferred = [
                peer for peer in blocks_map.holders("m", n_blocks)[block] if peer not in down
            ]
            assert hop.peer_ids[0] == (local if local in preferred else preferred[0])
    assert all(one.peer_ids[0] != other.peer_ids[0] for one, other in pairwise(found.hops))


@given(
    st.lists(st.tuples(SPANS, PEERS), min_size=1, max_size=8),
    st.frozensets(st.sampled_from(NAMES)),
    st.tuples(st.integers(0, 7), st.integers(1, 8)).filter(lambda ends: ends[0] < ends[1]),
)
def test_a_part_of_the_blocks_gets_what_the_whole_would_give_it(
    routes: list[tuple[str, tuple[str, ...]]], down: frozenset[str], ends: tuple[int, int]
) -> None:
    blocks_map, within = make_map(*routes), Span(*ends)
    try:
        part = plan_route(blocks_map, "m", 8, down=down, within=within)
    except RouteError:
        live = [set(peers) - down for peers in blocks_map.holders("m", 8)]
        assert any(not live[block] for block in within)
        return
    assert [block for hop in part.hops for block in hop.span] == list(within)
    holders = blocks_map.holders("m", 8)
    for hop in part.hops:
        for block in hop.span:
            assert hop.peer_ids[0] == next(peer for peer in holders[block] if peer not in down)
