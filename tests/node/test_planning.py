"""Hops by the map's will and the peers' health."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from gptnode.errors import (
    MismatchError,
    PeerBusyError,
    PeerUnreachableError,
    RouteError,
    StreamLostError,
)
from gptnode.node.planning import REPLACEABLE_FOR_S, Planner
from gptnode.routing.route import Hop
from gptnode.span import Span

from .benches import make_map

GONE = PeerUnreachableError("gone")


def planner_of(*routes: tuple[str, tuple[str, ...]]) -> Planner:
    planner = Planner("tiny", 4, "client")
    planner.blocks_map = make_map(*routes)
    return planner


@pytest.fixture
def planner() -> Planner:
    return planner_of(("0-1", ("anna", "dora")), ("2-3", ("ben", "cleo")))


def names(hops: tuple[Hop, ...]) -> list[tuple[str, str]]:
    return [(hop.peer_ids[0], str(hop.span)) for hop in hops]


async def test_only_the_gap_is_planned_whoever_holds_the_rest(planner: Planner) -> None:
    planner.health.note("anna", GONE, was_open=False)
    planner.health.note("dora", GONE, was_open=False)
    assert names(planner.around([Span(0, 2)])) == [("ben", "2-3")]
    with pytest.raises(RouteError, match="blocks 0-1"):
        planner.whole()


async def test_gaps_are_what_no_span_has(planner: Planner) -> None:
    assert planner.gaps([Span(1, 2), Span(3, 4)]) == (Span(0, 1), Span(2, 3))
    assert planner.gaps([]) == (Span(0, 4),)
    assert planner.gaps([Span(2, 4), Span(0, 2)]) == ()


async def test_a_peer_that_is_well_comes_before_one_that_broke_off(planner: Planner) -> None:
    planner.health.note("ben", StreamLostError("eof"), was_open=True)
    assert names(planner.whole())[1] == ("cleo", "2-3")


async def test_a_slow_peer_is_better_than_none_and_than_one_that_broke_off(
    planner: Planner,
) -> None:
    planner.health.note("ben", StreamLostError("eof"), was_open=True)
    planner.health.note("cleo", StreamLostError("slow"), was_open=True, slow=True)
    assert names(planner.whole())[1] == ("cleo", "2-3")
    planner.health.note("cleo", GONE, was_open=False)
    assert names(planner.whole())[1] == ("ben", "2-3")


async def test_a_peer_can_be_replaced_while_another_is_well(
    planner: Planner, autojump_clock: MockClock
) -> None:
    assert planner.replaceable("ben", Span(2, 4))
    planner.health.note("cleo", GONE, was_open=False)
    await trio.sleep(REPLACEABLE_FOR_S)
    assert not planner.replaceable("ben", Span(2, 4))


async def test_two_peers_together_can_replace_one() -> None:
    planner = planner_of(("0-3", ("anna",)), ("0-1", ("ben",)), ("2-3", ("cleo",)))
    assert planner.replaceable("anna", Span(0, 4))
    assert planner.replaceable("cleo", Span(2, 4))
    alone = planner_of(("0-3", ("anna",)), ("0-1", ("ben",)))
    assert not alone.replaceable("anna", Span(0, 4))


async def test_busy_peers_are_worth_waiting_for_only_if_nothing_else_is_missing(
    planner: Planner, autojump_clock: MockClock
) -> None:
    planner.health.note("ben", PeerBusyError("loading", 2.0), was_open=False)
    planner.health.note("cleo", GONE, was_open=False)
    assert planner.busy_until_s([Span(2, 4)]) == pytest.approx(trio.current_time() + 2.0)
    planner.health.note("ben", GONE, was_open=False)
    assert planner.busy_until_s([Span(2, 4)]) is None


async def test_causes_are_those_of_the_peers_of_the_gap(planner: Planner) -> None:
    planner.health.note("anna", GONE, was_open=False)
    planner.health.note("ben", StreamLostError("eof"), was_open=True)
    assert [cause.detail for cause in planner.causes([Span(2, 4)])] == ["eof"]


async def test_the_wish_is_the_route_of_the_map_whoever_is_down(planner: Planner) -> None:
    for peer in ("anna", "ben", "cleo", "dora"):
        planner.health.note(peer, GONE, was_open=False)
    assert names(planner.wished()) == [("anna", "0-1"), ("ben", "2-3")]


async def test_without_a_map_all_blocks_are_here() -> None:
    assert Planner("tiny", 4, None).whole() == (Hop((), Span(0, 4)),)


async def test_a_peer_that_was_wrong_is_worse_than_none(planner: Planner) -> None:
    planner.health.distrust("ben", MismatchError("wrong answers"))
    planner.health.note("cleo", PeerBusyError("full", retry_after_s=9), was_open=False)
    with pytest.raises(RouteError, match="blocks 2-3"):
        planner.whole()
    assert planner.busy_until_s([Span(2, 4)]) == pytest.approx(trio.current_time() + 9, abs=1)


async def test_replicas_serve_all_of_a_span_and_are_believed() -> None:
    planner = planner_of(("0-1", ("anna", "dora", "client")), ("2-3", ("anna", "ben", "dora")))
    assert planner.replicas(Span(0, 4)) == ("anna", "dora")
    assert planner.replicas(Span(2, 3)) == ("anna", "ben", "dora")
    planner.health.note("anna", GONE, was_open=False)
    planner.health.distrust("dora", MismatchError("wrong answers"))
    assert planner.replicas(Span(0, 4)) == ("anna",)


async def test_a_cause_that_two_peers_share_is_told_once(planner: Planner) -> None:
    for peer in ("ben", "cleo"):
        planner.health.distrust(peer, GONE)
    assert planner.causes([Span(2, 4)]) == [GONE]
