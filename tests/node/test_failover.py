"""Hops that fail, wait, move and slow down in the middle of an answer; the tokens stay the same."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import torch
import trio
from trio.testing import MockClock

from gptnode.errors import PeerUnreachableError, RouteError
from gptnode.model.sampler import Sampler, Sampling
from gptnode.node.remote_stage import RemoteStage
from gptnode.node.replay import ReplayLog
from gptnode.span import Span

from .benches import PROMPT, Bench, MakeServer, SwarmOf, make_map
from .conftest import MemoryHost

LONG_PROMPT = [(7 * i) % 60 + 2 for i in range(40)]


@pytest.fixture
def clock(autojump_clock: MockClock) -> MockClock:
    """Jumps only when nothing computes: the lane is a thread, which a clock doesn't see."""
    autojump_clock.autojump_threshold = 0.02
    return autojump_clock


@dataclass
class Steps:
    """What each peer's sessions were given; how long peers take; what to do before a step."""

    given: list[tuple[str, int, torch.Tensor]] = field(default_factory=list)
    delays_s: dict[str, float] = field(default_factory=dict)
    before: dict[str, Callable[[], object]] = field(default_factory=dict)

    def of(self, peer: str) -> list[tuple[int, int]]:
        """Position and number of tokens of each step."""
        return [(position, h.shape[1]) for who, position, h in self.given if who == peer]

    def hidden(self, peer: str) -> list[torch.Tensor]:
        return [h for who, _, h in self.given if who == peer]


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    steps = Steps()
    forward = RemoteStage.forward

    async def recorded(self: RemoteStage, hidden: torch.Tensor, position: int) -> torch.Tensor:
        steps.given.append((self.peer_id, position, hidden.clone()))
        steps.before.pop(self.peer_id, lambda: None)()
        await trio.sleep(steps.delays_s.get(self.peer_id, 0.0))
        return await forward(self, hidden, position)

    monkeypatch.setattr(RemoteStage, "forward", recorded)
    return steps


async def until(true: Callable[[], bool]) -> None:
    with trio.fail_after(60):
        while not true():  # noqa: ASYNC110 (what is waited for has no event)
            await trio.sleep(0.01)


# Only the failed hop is filled again


async def test_only_the_hop_that_failed_is_filled_again_in_the_same_chunks_with_the_same_bits(
    with_replica: Bench, whole: Bench, host: MemoryHost, steps: Steps
) -> None:
    begun = await with_replica.greedy(PROMPT, 4)
    anna_did, ben_got = steps.of("anna"), steps.hidden("ben")
    steps.given.clear()
    host.kill("ben")
    assert await with_replica.greedy(begun, 8) == await whole.greedy(PROMPT, 12)
    n = len(PROMPT)
    assert anna_did == [(0, n), (n, 1), (n + 1, 1), (n + 2, 1)]
    assert set(steps.of("anna")) == {(n + 3 + i, 1) for i in range(8)}
    cleo_got = steps.hidden("cleo")[: len(ben_got)]
    assert all(torch.equal(a, b) for a, b in zip(ben_got, cleo_got, strict=True))


async def test_a_hop_that_fails_within_a_step_repeats_that_step_alone(
    with_replica: Bench, whole: Bench, host: MemoryHost, steps: Steps
) -> None:
    begun = await with_replica.greedy(PROMPT, 2)
    steps.given.clear()
    steps.before["ben"] = lambda: host.kill("ben")
    assert await with_replica.greedy(begun, 3) == await whole.greedy(PROMPT, 5)
    at = len(begun) - 1
    assert steps.of("anna") == [(at, 1), (at, 1), (at + 1, 1), (at + 2, 1)]


async def test_a_replica_of_another_cut_fills_all_that_it_takes_over(
    swarm_of: SwarmOf, whole: Bench, host: MemoryHost, steps: Steps
) -> None:
    split = swarm_of(("0-1", ("anna",)), ("2-3", ("ben",)), ("2", ("cleo",)), ("3", ("dora",)))
    begun = await split.greedy(PROMPT, 4)
    steps.given.clear()
    host.kill("ben")
    begun = await split.greedy(begun, 4)
    assert [(hop.label, str(hop.span)) for hop in split.swarm.hops()] == [
        ("anna", "0-1"),
        ("cleo", "2"),
        ("dora", "3"),
    ]
    assert min(steps.of("anna")) == (len(begun) - 5, 1)
    host.servers["eve"] = host.servers["dora"]
    split.swarm.use_map(make_map(("0-1", ("anna",)), ("2", ("cleo",)), ("3", ("eve",))))
    steps.given.clear()
    assert await split.greedy(begun, 4) == await whole.greedy(PROMPT, 12)
    assert len(steps.of("anna")) == len(steps.of("cleo")) == 4  # the cut within is known, too


async def test_both_hops_may_fail_at_once(
    swarm_of: SwarmOf, whole: Bench, host: MemoryHost
) -> None:
    split = swarm_of(("0-1", ("anna", "dora")), ("2-3", ("ben", "cleo")))
    begun = await split.greedy(PROMPT, 4)
    host.kill("anna")
    host.kill("ben")
    assert await split.greedy(begun, 8) == await whole.greedy(PROMPT, 12)


async def test_what_is_too_much_to_keep_is_computed_from_the_ids(
    with_replica: Bench, whole: Bench, host: MemoryHost, steps: Steps
) -> None:
    with_replica.generator._pipeline.log = ReplayLog(limit_bytes=64)
    begun = await with_replica.greedy(PROMPT, 4)
    host.kill("ben")
    steps.given.clear()
    assert await with_replica.greedy(begun, 8) == await whole.greedy(PROMPT, 12)
    assert (0, len(begun)) in steps.of("anna")


async def test_a_context_that_was_taken_back_is_filled_again_as_it_is(
    with_replica: Bench, whole: Bench, host: MemoryHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gptnode.node.generator.PREFILL_CHUNK_TOKENS", 16)
    await with_replica.greedy(LONG_PROMPT, 4)
    other = [*LONG_PROMPT[:21], 50, 51]  # from within the second chunk
    begun = await with_replica.greedy(other, 3)
    host.kill("ben")
    assert await with_replica.greedy(begun, 5) == await whole.greedy(other, 8)


async def test_one_line_says_what_happened(with_replica: Bench, host: MemoryHost) -> None:
    begun = await with_replica.greedy(PROMPT, 1)
    with_replica.reports.clear()
    host.kill("ben")
    await with_replica.greedy(begun, 3)
    (line,) = with_replica.reports
    assert line.startswith("ben (blocks 2-3): ")
    assert line.endswith("; cleo serves blocks 2-3")


async def test_a_peer_that_comes_back_is_not_gone_back_to(
    with_replica: Bench, host: MemoryHost, make_server: MakeServer, clock: MockClock
) -> None:
    begun = await with_replica.greedy(PROMPT, 1)
    host.kill("ben")
    begun = await with_replica.greedy(begun, 1)
    host.servers["ben"] = make_server(Span(2, 4))
    await trio.sleep(60)
    await with_replica.greedy(begun, 2)
    assert with_replica.swarm.hops()[1].label == "cleo"


async def test_a_hop_that_works_stays_though_the_map_prefers_another_when_the_next_one_fails(
    swarm_of: SwarmOf,
    whole: Bench,
    host: MemoryHost,
    make_server: MakeServer,
    steps: Steps,
    clock: MockClock,
) -> None:
    split = swarm_of(("0-1", ("anna", "dora")), ("2-3", ("ben", "cleo")))
    begun = await split.greedy(PROMPT, 2)
    host.kill("ben")
    begun = await split.greedy(begun, 2)
    host.servers["ben"] = make_server(Span(2, 4))
    await trio.sleep(60)
    steps.given.clear()
    host.kill("anna")
    assert await split.greedy(begun, 4) == await whole.greedy(PROMPT, 8)
    assert [hop.label for hop in split.swarm.hops()] == ["dora", "cleo"]
    assert steps.of("ben") == []
    assert min(steps.of("cleo")) == (len(begun) - 1, 1)


async def test_an_answer_that_is_stopped_while_a_hop_is_filled_again_can_be_asked_again(
    with_replica: Bench, whole: Bench, host: MemoryHost, steps: Steps, clock: MockClock
) -> None:
    begun = await with_replica.greedy(PROMPT, 6)
    host.kill("ben")
    steps.delays_s["cleo"] = 1.0
    for stop_after_s in (0.5, 1.5, 3.5):
        with trio.move_on_after(stop_after_s) as scope:
            await with_replica.greedy(begun, 1)
        assert scope.cancelled_caught
    steps.delays_s.clear()
    assert await with_replica.greedy(begun, 6) == await whole.greedy(PROMPT, 12)


async def test_a_server_that_shuts_down_hands_its_answers_over(
    with_replica: Bench, whole: Bench, host: MemoryHost, steps: Steps
) -> None:
    begun = await with_replica.greedy(PROMPT, 4)
    with_replica.reports.clear()
    await host.servers["ben"].drain()
    assert await with_replica.greedy(begun, 8) == await whole.greedy(PROMPT, 12)
    (line,) = with_replica.reports
    assert "shutting down" in line
    assert line.endswith("; cleo serves blocks 2-3")


# Nobody to take over


async def test_without_a_replica_the_answer_waits_and_goes_on_by_itself(
    swarm_of: SwarmOf,
    whole: Bench,
    host: MemoryHost,
    make_server: MakeServer,
    nursery: trio.Nursery,
    steps: Steps,
    clock: MockClock,
) -> None:
    halves = swarm_of(("0-1", ("anna",)), ("2-3", ("ben",)), wait_s=math.inf)
    begun = await halves.greedy(PROMPT, 4)
    halves.reports.clear()
    steps.given.clear()
    host.kill("ben")

    async def start_ben_again() -> None:
        await trio.sleep(40)
        host.servers["ben"] = make_server(Span(2, 4))

    nursery.start_soon(start_ben_again)
    assert await halves.greedy(begun, 8) == await whole.greedy(PROMPT, 12)
    waiting, back = halves.reports
    assert waiting.startswith("waiting: no live peer for blocks 2-3 of tiny (ben is down): ben ")
    assert back == "ben serves blocks 2-3"
    assert set(steps.of("anna")) == {(len(begun) - 1 + i, 1) for i in range(8)}


async def test_waiting_ends_with_the_error_when_its_time_is_over(
    swarm_of: SwarmOf, host: MemoryHost, clock: MockClock
) -> None:
    halves = swarm_of(("0-1", ("anna",)), ("2-3", ("ben",)), wait_s=30.0)
    begun = await halves.greedy(PROMPT, 1)
    host.kill("ben")
    began_s = trio.current_time()
    with pytest.raises(PeerUnreachableError, match="ben"):
        await halves.greedy(begun, 1)
    assert 30 <= trio.current_time() - began_s < 32


async def test_waiting_can_be_stopped_and_shows_the_hop_that_is_missing(
    swarm_of: SwarmOf, whole: Bench, host: MemoryHost, make_server: MakeServer, clock: MockClock
) -> None:
    halves = swarm_of(("0-1", ("anna",)), ("2-3", ("ben",)), wait_s=math.inf)
    begun = await halves.greedy(PROMPT, 4)
    host.kill("ben")
    with trio.move_on_after(10):
        await halves.greedy(begun, 1)
    hops = halves.swarm.hops()
    assert [(hop.label, str(hop.span)) for hop in hops] == [("anna", "0-1"), ("ben", "2-3")]
    assert (hops[0].state, hops[1].state) == ("connected", "down")
    host.servers["ben"] = make_server(Span(2, 4))
    assert await halves.greedy(begun, 8) == await whole.greedy(PROMPT, 12)


async def test_an_edit_of_the_map_ends_the_waiting_at_once(
    swarm_of: SwarmOf,
    whole: Bench,
    host: MemoryHost,
    make_server: MakeServer,
    nursery: trio.Nursery,
    clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gptnode.node.patience.RETRY_S", 1000.0)
    halves = swarm_of(("0-1", ("anna",)), ("2-3", ("ben",)), wait_s=math.inf)
    begun = await halves.greedy(PROMPT, 4)
    host.kill("ben")

    async def give_bens_blocks_to_cleo() -> None:
        await trio.sleep(20)
        host.servers["cleo"] = make_server(Span(2, 4))
        halves.swarm.use_map(make_map(("0-1", ("anna",)), ("2-3", ("cleo",))))

    nursery.start_soon(give_bens_blocks_to_cleo)
    began_s = trio.current_time()
    assert await halves.greedy(begun, 8) == await whole.greedy(PROMPT, 12)
    assert trio.current_time() - began_s < 30


async def test_a_chat_that_never_worked_does_not_wait_for_what_only_a_person_can_mend(
    swarm_of: SwarmOf, host: MemoryHost, clock: MockClock
) -> None:
    halves = swarm_of(("0-1", ("anna",)), ("2-3", ("ben",)), wait_s=math.inf)
    host.servers["ben"].models.clear()
    with pytest.raises(Exception, match="does not serve the model"):
        await halves.greedy(PROMPT, 1)


async def test_a_peer_that_breaks_off_at_every_step_is_not_waited_for_without_end(
    swarm_of: SwarmOf, monkeypatch: pytest.MonkeyPatch, host: MemoryHost, clock: MockClock
) -> None:
    halves = swarm_of(("0-1", ("anna",)), ("2-3", ("ben",)), wait_s=30.0)
    begun = await halves.greedy(PROMPT, 1)
    forward = RemoteStage.forward

    async def nan(self: RemoteStage, hidden: torch.Tensor, position: int) -> torch.Tensor:
        bad = self.peer_id == "ben"
        return await forward(self, hidden * math.nan if bad else hidden, position)

    monkeypatch.setattr(RemoteStage, "forward", nan)
    with trio.fail_after(120), pytest.raises(Exception, match="NaN"):
        await halves.greedy(begun, 1)


# The map moves the route


async def test_an_edit_moves_the_route_between_two_tokens_and_only_what_it_moves(
    swarm_of: SwarmOf, whole: Bench, host: MemoryHost, make_server: MakeServer, steps: Steps
) -> None:
    split = swarm_of(("0-1", ("anna",)), ("2-3", ("ben",)))
    host.servers["cleo"] = make_server(Span(2, 4))
    begun = await split.greedy(PROMPT, 4)
    split.reports.clear()
    steps.given.clear()
    split.swarm.use_map(make_map(("0-1", ("anna",)), ("2-3", ("cleo", "ben"))))
    assert await split.greedy(begun, 8) == await whole.greedy(PROMPT, 12)
    assert [hop.label for hop in split.swarm.hops()] == ["anna", "cleo"]
    assert (len(steps.of("anna")), steps.of("ben")) == (8, [])
    assert split.reports == ["the BlocksMap was edited: the route is now anna 0-1, cleo 2-3"]
    budget = host.servers["ben"]._budget
    await until(lambda: budget.total.sessions == 0)


async def test_an_edit_that_leaves_the_routes_alone_leaves_the_sessions_alone(
    swarm_of: SwarmOf, host: MemoryHost, make_server: MakeServer, clock: MockClock
) -> None:
    split = swarm_of(("0-1", ("anna",)), ("2-3", ("ben", "cleo")))
    begun = await split.greedy(PROMPT, 1)
    host.kill("ben")
    begun = await split.greedy(begun, 1)
    host.servers["ben"] = make_server(Span(2, 4))
    await trio.sleep(60)
    host.dialled.clear()
    split.swarm.use_map(make_map(("0-1", ("anna",)), ("2-3", ("ben", "cleo")), clients=("eve",)))
    await split.greedy(begun, 2)
    assert [hop.label for hop in split.swarm.hops()] == ["anna", "cleo"]
    assert host.dialled == []
    assert split.reports[-1].startswith("the BlocksMap was edited: the route stays ")


async def test_a_new_peer_that_is_not_there_leaves_the_old_one_at_work(
    swarm_of: SwarmOf, whole: Bench, host: MemoryHost, steps: Steps
) -> None:
    split = swarm_of(("0-1", ("anna",)), ("2-3", ("ben",)))
    begun = await split.greedy(PROMPT, 4)
    steps.given.clear()
    split.swarm.use_map(make_map(("0-1", ("anna",)), ("2-3", ("cleo", "ben"))))
    assert await split.greedy(begun, 8) == await whole.greedy(PROMPT, 12)
    assert len(steps.of("ben")) == 8
    assert split.reports[-1].startswith("cleo (blocks 2-3): ")


async def test_an_edit_while_a_long_prompt_is_read_counts_from_the_next_chunk(
    swarm_of: SwarmOf,
    whole: Bench,
    host: MemoryHost,
    make_server: MakeServer,
    steps: Steps,
    monkeypatch: pytest.MonkeyPatch,
    nursery: trio.Nursery,
) -> None:
    monkeypatch.setattr("gptnode.node.generator.PREFILL_CHUNK_TOKENS", 8)
    split = swarm_of(("0-1", ("anna",)), ("2-3", ("ben",)))
    host.servers["cleo"] = make_server(Span(2, 4))
    steps.delays_s["ben"] = 0.02

    async def edit() -> None:
        await until(lambda: len(steps.of("ben")) == 2)
        split.swarm.use_map(make_map(("0-1", ("anna",)), ("2-3", ("cleo",))))

    nursery.start_soon(edit)
    assert await split.greedy(LONG_PROMPT, 4) == await whole.greedy(LONG_PROMPT, 4)
    chunks = [(start, 8) for start in range(0, len(LONG_PROMPT), 8)]
    told = len(steps.of("ben"))
    assert steps.of("ben") == chunks[:told]
    assert told <= 2 + 2  # and the chunks that were under way at the time of the edit
    assert steps.of("cleo")[: told + 1] == chunks[: told + 1]


async def test_a_peer_that_left_the_map_is_disconnected(
    swarm_of: SwarmOf, host: MemoryHost, make_server: MakeServer
) -> None:
    split = swarm_of(("0-1", ("anna",)), ("2-3", ("ben",)))
    host.servers["cleo"] = make_server(Span(2, 4))
    begun = await split.greedy(PROMPT, 1)
    split.swarm.use_map(make_map(("0-1", ("anna",)), ("2-3", ("cleo",))))
    await split.greedy(begun, 1)
    await until(lambda: set(host.connected()) == {"anna", "cleo"})


async def test_no_route_under_a_new_map_is_told_as_such(
    swarm_of: SwarmOf, host: MemoryHost
) -> None:
    split = swarm_of(("0-1", ("anna",)), ("2-3", ("ben",)))
    begun = await split.greedy(PROMPT, 1)
    split.swarm.use_map(make_map(("0-1", ("cleo",)), ("2-3", ("dora",))))
    with pytest.raises(RouteError, match=r"cleo.*dora"):
        await split.greedy(begun, 1)
    assert [hop.peer_id for hop in split.swarm.hops()] == ["anna", "ben"]


# A peer slows down


async def tokens_until(bench: Bench, ids: list[int], label: str, at_most: int) -> int:
    """How many tokens are made until the second hop is ``label``'s; appends them to ``ids``."""
    for n in range(1, at_most + 1):
        ids.append(await bench.generator.next_token(ids, Sampler(Sampling(temperature=0.0))))
        if bench.swarm.hops()[1].label == label:
            return n
    pytest.fail(f"{label} did not take over within {at_most} tokens")


async def test_a_slow_peer_is_replaced_within_ten_tokens(
    with_replica: Bench, whole: Bench, steps: Steps, clock: MockClock
) -> None:
    steps.delays_s["ben"] = 0.1
    ids = await with_replica.greedy(PROMPT, 12)
    with_replica.reports.clear()
    steps.delays_s["ben"] = 2.5
    n = await tokens_until(with_replica, ids, "cleo", 10)
    assert await with_replica.greedy(ids, 3) == await whole.greedy(PROMPT, 15 + n)
    (line,) = with_replica.reports
    assert line.startswith("ben (blocks 2-3): slow: ")
    assert line.endswith("; cleo serves blocks 2-3")


async def test_a_peer_that_all_but_stops_is_not_waited_for(
    with_replica: Bench, whole: Bench, steps: Steps, clock: MockClock
) -> None:
    steps.delays_s["ben"] = 0.1
    ids = await with_replica.greedy(PROMPT, 12)
    steps.delays_s["ben"] = 200.0
    began_s = trio.current_time()
    assert await tokens_until(with_replica, ids, "cleo", 1) == 1
    assert trio.current_time() - began_s < 10
    assert await with_replica.greedy(ids, 3) == await whole.greedy(PROMPT, 16)


async def test_a_slow_peer_without_a_replica_is_waited_for(
    swarm_of: SwarmOf, whole: Bench, steps: Steps, clock: MockClock
) -> None:
    halves = swarm_of(("0-1", ("anna",)), ("2-3", ("ben",)))
    steps.delays_s["ben"] = 0.1
    ids = await halves.greedy(PROMPT, 12)
    steps.delays_s["ben"] = 30.0
    assert await halves.greedy(ids, 4) == await whole.greedy(PROMPT, 16)
    assert all("slow" not in line for line in halves.reports)


async def test_two_slow_peers_do_not_flap(
    with_replica: Bench, whole: Bench, steps: Steps, clock: MockClock
) -> None:
    steps.delays_s.update(ben=0.1, cleo=0.1)
    ids = await with_replica.greedy(PROMPT, 12)
    steps.delays_s["ben"] = 2.5
    await tokens_until(with_replica, ids, "cleo", 10)
    ids = await with_replica.greedy(ids, 10)
    steps.delays_s["cleo"] = 2.5
    with_replica.reports.clear()
    ids = await with_replica.greedy(ids, 12)
    assert with_replica.reports == []  # ben was slow within the last minute
    assert ids == await whole.greedy(PROMPT, len(ids) - len(PROMPT))


async def test_a_slow_peer_is_taken_back_when_the_other_fails(
    with_replica: Bench, whole: Bench, steps: Steps, host: MemoryHost, clock: MockClock
) -> None:
    steps.delays_s["ben"] = 0.1
    ids = await with_replica.greedy(PROMPT, 12)
    steps.delays_s["ben"] = 2.5
    await tokens_until(with_replica, ids, "cleo", 10)
    host.kill("cleo")
    ids = await with_replica.greedy(ids, 2)
    assert with_replica.swarm.hops()[1].label == "ben"
    assert ids == await whole.greedy(PROMPT, len(ids) - len(PROMPT))
