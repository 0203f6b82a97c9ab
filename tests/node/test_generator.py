"""The generator over local stages and over block servers: the ids are the truth."""

from __future__ import annotations

import pytest
import torch
import trio

from gptnode.errors import MismatchError, ModelFileError, PeerUnreachableError, RouteError
from gptnode.node.budget import Lent
from gptnode.node.compute import ComputeLane
from gptnode.node.loading import ModelSource
from gptnode.node.remote_stage import RemoteStage
from gptnode.span import Span

from .benches import PROMPT, Bench, MakeServer, SwarmOf
from .conftest import MemoryHost


@pytest.mark.parametrize("cut", [1, 2, 3])
async def test_two_peers_give_the_tokens_of_one_node(
    swarm_of: SwarmOf, whole: Bench, host: MemoryHost, cut: int
) -> None:
    split = swarm_of(
        (f"0-{cut - 1}", ("anna",)),
        (f"{cut}-3", ("ben",)),
    )
    assert await split.greedy(PROMPT, 12) == await whole.greedy(PROMPT, 12)
    assert set(host.dialled) == {"anna", "ben"}


async def test_a_client_that_is_a_peer_runs_its_own_blocks(
    swarm_of: SwarmOf, whole: Bench, host: MemoryHost
) -> None:
    split = swarm_of(("0-1", ("client",)), ("2-3", ("ben",)))
    assert await split.greedy(PROMPT, 8) == await whole.greedy(PROMPT, 8)
    assert set(host.dialled) == {"ben"}
    assert [hop.state for hop in split.swarm.hops()] == ["local", "connected"]


async def test_a_changed_beginning_is_computed_again(
    whole: Bench, source: ModelSource, lane: ComputeLane, nursery: trio.Nursery
) -> None:
    await whole.greedy(PROMPT, 5)
    other = [*PROMPT[:3], 50, 51, 52]
    fresh = Bench(source, lane, nursery)
    assert await whole.greedy(other, 5) == await fresh.greedy(other, 5)


async def test_a_prompt_of_many_chunks_gives_the_same_split_or_not(
    halves: Bench, whole: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gptnode.node.generator.PREFILL_CHUNK_TOKENS", 8)
    prompt = [(7 * i) % 60 + 2 for i in range(50)]
    assert await halves.greedy(prompt, 6) == await whole.greedy(prompt, 6)


async def test_a_replica_takes_over_mid_answer(
    with_replica: Bench, whole: Bench, host: MemoryHost
) -> None:
    begun = await with_replica.greedy(PROMPT, 4)
    host.kill("ben")
    assert await with_replica.greedy(begun, 8) == await whole.greedy(PROMPT, 12)
    assert any("ben" in line for line in with_replica.reports)
    assert with_replica.swarm.hops()[1].label == "cleo"


async def test_a_server_that_was_restarted_between_turns_is_used_again(
    halves: Bench, whole: Bench, host: MemoryHost, make_server: MakeServer
) -> None:
    begun = await halves.greedy(PROMPT, 4)
    host.kill("ben")
    host.servers["ben"] = make_server(Span(2, 4))
    assert await halves.greedy(begun, 8) == await whole.greedy(PROMPT, 12)


async def test_without_a_replica_the_cause_is_shown_and_the_next_try_can_work(
    halves: Bench, whole: Bench, host: MemoryHost, make_server: MakeServer
) -> None:
    begun = await halves.greedy(PROMPT, 4)
    host.kill("ben")
    with pytest.raises(PeerUnreachableError, match="ben"):
        await halves.greedy(begun, 1)
    host.servers["ben"] = make_server(Span(2, 4))
    assert await halves.greedy(begun, 8) == await whole.greedy(PROMPT, 12)


async def test_two_missing_peers_are_both_named(with_replica: Bench, host: MemoryHost) -> None:
    host.kill("ben")
    host.kill("cleo")
    with pytest.raises(RouteError, match=r"ben.*cleo"):
        await with_replica.greedy(PROMPT, 1)


async def test_a_trouble_that_all_peers_share_is_the_error_that_is_shown(
    halves: Bench, host: MemoryHost
) -> None:
    for server in host.servers.values():
        server.models.clear()
    with pytest.raises(MismatchError, match="does not serve the model 'tiny'"):
        await halves.greedy(PROMPT, 1)


async def test_a_loading_peer_is_waited_for(
    halves: Bench, whole: Bench, host: MemoryHost, nursery: trio.Nursery
) -> None:
    server = host.servers["ben"]
    models = dict(server.models)
    server.models.clear()
    server.loading = True

    async def finish_loading() -> None:
        await trio.sleep(0.1)
        server.models.update(models)
        server.loading = False

    nursery.start_soon(finish_loading)
    assert await halves.greedy(PROMPT, 3) == await whole.greedy(PROMPT, 3)
    assert any("loading" in line for line in halves.reports)


async def test_a_cancelled_answer_leaves_the_context_consistent(
    halves: Bench, whole: Bench
) -> None:
    await halves.greedy(PROMPT, 2)
    for delay_s in (0.0, 0.001, 0.002, 0.004):
        with trio.move_on_after(delay_s):
            await halves.greedy(PROMPT, 50)
    assert await halves.greedy(PROMPT, 12) == await whole.greedy(PROMPT, 12)


async def test_forgetting_ends_the_sessions_on_the_peers(halves: Bench, host: MemoryHost) -> None:
    await halves.greedy(PROMPT, 2)
    budgets = [server._budget for server in host.servers.values()]
    assert [budget.total.sessions for budget in budgets] == [1, 1]
    await halves.generator.forget()
    with trio.fail_after(5):
        while any(budget.total != Lent() for budget in budgets):  # noqa: ASYNC110
            await trio.sleep(0.005)


async def test_stopping_while_peers_are_dialled_leaves_no_session_behind(
    halves: Bench, host: MemoryHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    anna_is_open = trio.Event()
    open_remote = RemoteStage.open

    async def only_anna(host: object, peer_id: str, *rest: object) -> RemoteStage:
        if peer_id == "ben":
            await trio.sleep_forever()
        stage = await open_remote(host, peer_id, *rest)  # type: ignore[arg-type]
        anna_is_open.set()
        return stage

    monkeypatch.setattr(RemoteStage, "open", only_anna)
    async with trio.open_nursery() as answering:
        answering.start_soon(halves.greedy, PROMPT, 1)
        await anna_is_open.wait()
        answering.cancel_scope.cancel()
    budget = host.servers["anna"]._budget
    with trio.fail_after(5):
        while budget.total.sessions:  # noqa: ASYNC110
            await trio.sleep(0.005)


async def test_own_blocks_that_can_not_be_loaded_are_a_plain_error(
    swarm_of: SwarmOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(self: ModelSource, span: Span) -> None:
        raise ModelFileError(f"no blocks {span}")

    split = swarm_of(("0-1", ("client",)), ("2-3", ("ben",)))
    monkeypatch.setattr(ModelSource, "load_blocks", missing)
    with pytest.raises(ModelFileError, match="0-1"):
        await split.greedy(PROMPT, 1)


async def test_later_turns_prefill_in_chunks_and_only_what_is_new(
    swarm_of: SwarmOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = swarm_of(("0-3", ("anna",)))
    steps: list[tuple[int, int]] = []
    forward = RemoteStage.forward

    async def counted(self: RemoteStage, hidden: torch.Tensor, position: int) -> torch.Tensor:
        steps.append((position, hidden.shape[1]))
        return await forward(self, hidden, position)

    monkeypatch.setattr(RemoteStage, "forward", counted)
    ids = await split.greedy(PROMPT, 2)
    steps.clear()
    await split.greedy([*ids, *range(3, 43)], 1)
    assert steps == [(len(ids) - 1, 41)]


async def test_a_prompt_of_any_allowed_length_passes_the_frame_limit(
    halves: Bench, whole: Bench
) -> None:
    longest = [(7 * i) % 60 + 2 for i in range(halves.generator.max_tokens - 1)]
    assert await halves.greedy(longest, 1) == await whole.greedy(longest, 1)


async def test_starting_over_keeps_the_sessions_and_computes_all_of_the_context_again(
    halves: Bench, whole: Bench, host: MemoryHost
) -> None:
    begun = await halves.greedy(PROMPT, 4)
    await halves.generator.start_over()
    assert [server._budget.total.sessions for server in host.servers.values()] == [1, 1]
    assert await halves.greedy(begun, 1) == await whole.greedy(PROMPT, 5)
    assert halves.generator.timing is not None
    assert halves.generator.timing.tokens == len(begun)


async def test_starting_over_opens_the_sessions_so_that_the_first_token_need_not(
    halves: Bench, host: MemoryHost
) -> None:
    await halves.generator.start_over()
    assert set(host.dialled) == {"anna", "ben"}
    host.dialled.clear()
    await halves.greedy(PROMPT, 1)
    assert not host.dialled


async def test_starting_over_finds_a_replica_for_a_peer_that_is_gone(
    with_replica: Bench, whole: Bench, host: MemoryHost
) -> None:
    await with_replica.greedy(PROMPT, 1)
    host.kill("ben")
    await with_replica.generator.start_over()
    assert with_replica.swarm.hops()[1].label == "cleo"
    assert await with_replica.greedy(PROMPT, 3) == await whole.greedy(PROMPT, 3)


async def test_a_tokens_time_tells_that_a_peer_was_lost_on_the_way(
    with_replica: Bench, host: MemoryHost
) -> None:
    begun = await with_replica.greedy(PROMPT, 1)
    host.kill("ben")
    await with_replica.greedy(begun, 1)
    timing = with_replica.generator.timing
    assert timing is not None
    assert (timing.attempts, timing.tokens) == (2, 1)
    parts_s = timing.client.total_s + sum(hop.total_s for hop in timing.hops)
    assert parts_s == pytest.approx(timing.total_s)


def _long_prompt(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A prompt of seven chunks."""
    monkeypatch.setattr("gptnode.node.generator.PREFILL_CHUNK_TOKENS", 8)
    return [(7 * i) % 60 + 2 for i in range(50)]


async def test_peers_work_on_different_chunks_of_a_prompt_at_the_same_time(
    halves: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = _long_prompt(monkeypatch)
    forward = RemoteStage.forward
    under_way: set[tuple[int, int]] = set()
    seen: list[set[tuple[int, int]]] = []

    async def watched(stage: RemoteStage, hidden: torch.Tensor, position: int) -> torch.Tensor:
        under_way.add((stage.span.start, position))
        seen.append(set(under_way))
        try:
            return await forward(stage, hidden, position)
        finally:
            under_way.remove((stage.span.start, position))

    monkeypatch.setattr(RemoteStage, "forward", watched)
    await halves.greedy(prompt, 1)
    assert {(2, 0), (0, 8)} in seen
    assert max(map(len, seen)) == 2
    for stage in (0, 2):
        positions = [position for now in seen for start, position in now if start == stage]
        assert sorted(set(positions)) == [*range(0, 50, 8)]


@pytest.mark.parametrize("chunk", [1, 3, 6])
async def test_a_replica_takes_over_in_the_middle_of_a_prompt(
    with_replica: Bench,
    whole: Bench,
    host: MemoryHost,
    monkeypatch: pytest.MonkeyPatch,
    chunk: int,
) -> None:
    prompt = _long_prompt(monkeypatch)
    forward = RemoteStage.forward

    async def breaks(stage: RemoteStage, hidden: torch.Tensor, position: int) -> torch.Tensor:
        if stage.peer_id == "ben" and position == 8 * chunk:
            host.kill("ben")
        return await forward(stage, hidden, position)

    monkeypatch.setattr(RemoteStage, "forward", breaks)
    assert await with_replica.greedy(prompt, 6) == await whole.greedy(prompt, 6)
    assert with_replica.swarm.hops()[1].label == "cleo"


async def test_the_parts_of_a_prompt_in_chunks_are_what_each_was_busy_with(
    halves: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await halves.greedy(_long_prompt(monkeypatch), 1)
    timing = halves.generator.timing
    assert timing is not None
    assert timing.tokens == 50
    assert all(0 < hop.total_s <= timing.total_s for hop in timing.hops)
    assert 0 < timing.client.compute_s <= timing.client.total_s <= timing.total_s
