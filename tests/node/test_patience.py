"""Waiting for peers, and when it ends."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from gptnode.errors import PeerBusyError, RouteError
from gptnode.node.patience import Patience
from gptnode.node.planning import Planner
from gptnode.routing.blocks_map import BlocksMap
from gptnode.span import Span

from .benches import make_map

BLOCKS = [Span(0, 4)]


@pytest.fixture
def planner() -> Planner:
    planner = Planner("tiny", 4, "client")
    planner.blocks_map = make_map(("0-1", ("anna",)), ("2-3", ("ben",)))
    return planner


def no_route(planner: Planner) -> RouteError:
    with pytest.raises(RouteError) as caught:
        planner.whole()
    return caught.value


async def test_a_trouble_that_ends_between_planning_and_waiting_is_no_reason_to_give_up(
    planner: Planner, mock_clock: MockClock
) -> None:
    patience = Patience(planner, lambda line: None, 0.0)
    planner.health.note("ben", PeerBusyError("full", retry_after_s=1.0), was_open=False)
    found = no_route(planner)
    mock_clock.jump(1.0)
    before_s = trio.current_time()
    await patience.wait(found, BLOCKS)
    assert trio.current_time() == before_s
    assert planner.whole()


async def test_blocks_that_the_map_leaves_out_are_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, planner: Planner, mock_clock: MockClock
) -> None:
    planner.health.note("ben", PeerBusyError("full", retry_after_s=1.0), was_open=False)
    found = no_route(planner)
    planner.health.forgive_all()
    gap = (("anna",), ("anna",), (), ())
    monkeypatch.setattr(BlocksMap, "holders", lambda *_: gap)
    with pytest.raises(RouteError):
        await Patience(planner, lambda line: None, 0.0).wait(found, BLOCKS)
