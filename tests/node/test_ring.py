"""Rings of block servers over in-memory streams: the same tokens, and no failure loses one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import trio

from gptnode.errors import PeerUnreachableError
from gptnode.node.block_server import BlockServer
from gptnode.node.pipeline import Pipeline
from gptnode.node.relaying import RelayedSession, dial_nobody
from gptnode.node.remote_stage import RemoteStage
from gptnode.node.ring import Ring
from gptnode.node.served_context import ServedContext
from gptnode.span import Span
from gptnode.wire.messages import Arrived, Relay, Stepped, Trace

from .benches import PROMPT, Bench, SwarmOf
from .conftest import MemoryHost

LONG_PROMPT = [(7 * i) % 60 + 2 for i in range(50)]
FOUR = tuple((str(block), (name,)) for block, name in enumerate(("anna", "ben", "cleo", "dan")))


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gptnode.node.generator.PREFILL_CHUNK_TOKENS", 8)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """Who was asked for a step directly, as in a star."""
    peers: list[str | None] = []
    forward = RemoteStage.forward

    async def counted(stage: RemoteStage, hidden: torch.Tensor, position: int) -> torch.Tensor:
        peers.append(stage.peer_id)
        return await forward(stage, hidden, position)

    monkeypatch.setattr(RemoteStage, "forward", counted)
    return peers


@pytest.fixture
def four(swarm_of: SwarmOf) -> Bench:
    """One block on each of four peers, joined to a ring."""
    return swarm_of(*FOUR, rings=True)


@pytest.mark.parametrize("prompt", [PROMPT, LONG_PROMPT], ids=["short", "seven chunks"])
async def test_a_ring_gives_the_tokens_of_one_node_and_asks_nobody_directly(
    four: Bench, whole: Bench, asked: list[str | None], prompt: list[int]
) -> None:
    assert await four.greedy(prompt, 12) == await whole.greedy(prompt, 12)
    assert asked == []
    assert four.reports == ["anna serves blocks 0; ben serves blocks 1; cleo serves blocks 2; "
                            "dan serves blocks 3"]  # fmt: skip


async def test_turns_undo_and_a_changed_beginning_are_right_in_a_ring(
    four: Bench, whole: Bench, asked: list[str | None]
) -> None:
    begun = await four.greedy(LONG_PROMPT, 4)
    for ids in ([*begun, 9, 8, 7], begun[:20], [5, *begun], begun):
        assert await four.greedy(ids, 3) == await whole.greedy(ids, 3)
    assert asked == []


async def test_chunks_of_a_prompt_are_on_all_hops_at_once(
    four: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    under_way = most = 0
    send, receive = Ring.send, Ring.receive

    async def sent(ring: Ring, hidden: torch.Tensor, position: int) -> object:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        return await send(ring, hidden, position)

    async def received(ring: Ring, round_: object) -> torch.Tensor:
        nonlocal under_way
        result = await receive(ring, round_)  # type: ignore[arg-type]
        under_way -= 1
        return result

    monkeypatch.setattr(Ring, "send", sent)
    monkeypatch.setattr(Ring, "receive", received)
    await four.greedy(LONG_PROMPT, 1)
    assert 4 <= most <= 6


@pytest.mark.parametrize("victim", ["anna", "ben", "cleo", "dan"])
@pytest.mark.parametrize("prompt", [PROMPT, LONG_PROMPT], ids=["short", "seven chunks"])
async def test_a_replica_takes_over_in_a_ring(
    swarm_of: SwarmOf,
    whole: Bench,
    host: MemoryHost,
    victim: str,
    prompt: list[int],
    asked: list[str | None],
) -> None:
    ring = swarm_of(*((block, (*names, f"{names[0]}2")) for block, names in FOUR), rings=True)
    begun = await ring.greedy(prompt, 4)
    host.kill(victim)
    assert await ring.greedy(begun, 8) == await whole.greedy(prompt, 12)
    assert f"{victim}2" in {hop.label for hop in ring.swarm.hops()}
    asked.clear()
    await ring.greedy(prompt, 14)
    assert asked == [], ring.reports  # it is a ring again


@pytest.mark.parametrize("victim", ["anna", "cleo", "dan"])
async def test_a_replica_takes_over_in_the_middle_of_a_round(
    swarm_of: SwarmOf, whole: Bench, host: MemoryHost, monkeypatch: pytest.MonkeyPatch, victim: str
) -> None:
    ring = swarm_of(*((block, (*names, f"{names[0]}2")) for block, names in FOUR), rings=True)
    relay = RelayedSession.relay
    seen: list[int] = []

    async def breaks(session: RelayedSession, request: Relay) -> None:
        seen.append(request.position)
        if len(seen) == 18 and victim in host.servers:
            host.kill(victim)
        await relay(session, request)

    monkeypatch.setattr(RelayedSession, "relay", breaks)
    assert await ring.greedy(LONG_PROMPT, 10) == await whole.greedy(LONG_PROMPT, 10)
    assert f"{victim}2" in {hop.label for hop in ring.swarm.hops()}


async def test_a_server_that_reaches_nobody_makes_it_a_star(
    four: Bench, whole: Bench, host: MemoryHost, asked: list[str | None]
) -> None:
    host.servers["ben"].dial = dial_nobody
    assert await four.greedy(PROMPT, 6) == await whole.greedy(PROMPT, 6)
    assert set(asked) == {"anna", "ben", "cleo", "dan"}
    told = [line for line in four.reports if "hand on" in line]
    assert len(told) == 1
    assert "ben" in told[0]


async def test_a_link_that_breaks_in_an_answer_makes_it_a_star_and_loses_nothing(
    four: Bench, whole: Bench, asked: list[str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions: list[RelayedSession] = []
    forward = RelayedSession.forward

    async def noted(session: RelayedSession, request: object) -> object:
        sessions.append(session)
        return await forward(session, request)  # type: ignore[arg-type]

    monkeypatch.setattr(RelayedSession, "forward", noted)
    begun = await four.greedy(PROMPT, 4)
    onward = sessions[1]._onward
    assert onward is not None
    await onward.aclose()
    assert await four.greedy(begun, 8) == await whole.greedy(PROMPT, 12)
    assert any("hand on" in line for line in four.reports)
    assert four.swarm.complete_now  # nobody was blamed
    assert asked


async def test_a_star_becomes_a_ring_again_after_a_while(
    four: Bench, whole: Bench, asked: list[str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gptnode.node.legs.STAR_S", 0.0)
    begun = await four.greedy(PROMPT, 2)
    pipeline: Pipeline = four.generator._pipeline
    pipeline._legs.leave_rings("test")
    asked.clear()
    assert await four.greedy(begun, 4) == await whole.greedy(PROMPT, 6)
    assert asked == []


async def test_a_stalled_round_is_left_and_the_star_finds_the_slow_hop(
    swarm_of: SwarmOf, whole: Bench, host: MemoryHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gptnode.node.pace.SLOW_AT_LEAST_S", 0.1)
    ring = swarm_of(("0-1", ("anna",)), ("2-3", ("ben", "cleo")), rings=True)
    compute = ServedContext.step
    slow: list[BlockServer] = []

    async def stalls(context: ServedContext, *args: Any) -> Stepped:
        if any(context._batcher is server._batcher for server in slow):
            await trio.sleep(5.0)
        return await compute(context, *args)

    monkeypatch.setattr(ServedContext, "step", stalls)
    begun = await ring.greedy(PROMPT, 12)
    slow.append(host.servers["ben"])
    assert await ring.greedy(begun, 4) == await whole.greedy(PROMPT, 16)
    assert any("ben (blocks 2-3): slow" in line for line in ring.reports), ring.reports
    assert ring.swarm.hops()[1].label == "cleo"


@pytest.mark.parametrize("lie", ["position", "short", "span", "epoch"])
async def test_a_result_that_went_another_way_is_no_answer(
    swarm_of: SwarmOf, whole: Bench, monkeypatch: pytest.MonkeyPatch, lie: str
) -> None:
    ring = swarm_of(("0-1", ("anna",)), ("2-3", ("ben", "cleo")), rings=True)
    begun = await ring.greedy(PROMPT, 2)
    arrived = Ring.arrived
    lies = [1]

    def lied(self: Ring, message: Arrived) -> None:
        if lies:
            lies.pop()
            position, trail = message.position, message.trail
            last = trail[-1]
            match lie:
                case "position":
                    position += 1
                case "short":
                    trail = trail[:-1]
                case "span":
                    trail = (*trail[:-1], Trace(Span(1, 2), last.epoch, 0.0, 0.0))
                case _:
                    trail = (*trail[:-1], Trace(last.span, last.epoch + 1, 0.0, 0.0))
            message = Arrived(message.ticket, position, message.hidden, trail)
        arrived(self, message)

    monkeypatch.setattr(Ring, "arrived", lied)
    assert await ring.greedy(begun, 6) == await whole.greedy(PROMPT, 8)
    assert ring.swarm.hops()[1].label == "cleo"


async def test_a_session_cannot_be_fed_without_its_key(
    four: Bench, host: MemoryHost, nursery: trio.Nursery
) -> None:
    await four.greedy(PROMPT, 1)
    stages = [stage for stage in four.generator._pipeline.stages if isinstance(stage, RemoteStage)]
    other = await RemoteStage.open(
        host,
        "ben",
        "ben",
        Span(1, 2),
        stages[0].model,
        64,
        nursery,  # type: ignore[arg-type]
    )
    other._feed_key = "0" * 32  # not what the server was told
    refusal = await stages[0].forward_to(other, 1, timeout_s=3.0)
    assert "feed key" in refusal


async def test_the_parts_of_a_round_add_up_to_its_time(four: Bench) -> None:
    begun = await four.greedy(PROMPT, 2)
    await four.greedy(begun, 1)
    timing = four.generator.timing
    assert timing is not None
    assert len(timing.hops) == 4
    assert all(hop.compute_s > 0 for hop in timing.hops)
    parts_s = timing.client.total_s + sum(hop.total_s for hop in timing.hops)
    assert parts_s == pytest.approx(timing.total_s)


async def test_a_server_without_rings_says_so() -> None:
    with pytest.raises(PeerUnreachableError, match="nobody"):
        await dial_nobody("anna")
