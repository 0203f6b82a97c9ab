"""Peers that lie, peers that can't be asked, and answers that stay right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pytest
import torch
import trio
from trio.testing import MockClock

from gptnode.errors import MismatchError, ModelFileError, UsageError
from gptnode.model.shard import BlockStack
from gptnode.node.agreement import MAX_TOLERANCE, TOLERANCES, distance, tolerance
from gptnode.node.block_server import ServedModel
from gptnode.node.compute import ComputeLane
from gptnode.node.ends import Ends, OwnEnds
from gptnode.node.generator import Generator
from gptnode.node.health import TroubleKind
from gptnode.node.journal import Journal
from gptnode.node.loading import ModelSource, folder_paths, open_device, open_model
from gptnode.node.opinions import Opinions
from gptnode.node.remote_stage import RemoteStage
from gptnode.node.watching import PATIENCE_S, WatchedStage
from gptnode.span import Span
from tests.tampered import tampered_copy

from .benches import PROMPT, Bench, MakeServer, SwarmOf, make_map
from .conftest import MemoryHost

LONG_PROMPT = [(7 * i) % 60 + 2 for i in range(40)]
FIRST = ("0-1", ("anna",))


@pytest.fixture
def clock(autojump_clock: MockClock) -> MockClock:
    """Jumps only when nothing computes: the lane is a thread, which a clock doesn't see."""
    autojump_clock.autojump_threshold = 0.02
    return autojump_clock


@pytest.fixture
def source(tiny_model: Path, request: pytest.FixtureRequest) -> ModelSource:
    """The tiny model in f32, or in the dtype that a test asks for."""
    dtype = getattr(request, "param", "f32")
    return open_model("tiny", folder_paths(tiny_model), dtype, open_device("cpu"))


@dataclass
class Peers:
    """Who answers what else than it computed, how late, and who was asked for which positions."""

    lies: dict[str, Callable[[torch.Tensor], torch.Tensor]] = field(default_factory=dict)
    delays_s: dict[str, float] = field(default_factory=dict)
    asked: list[tuple[str, int, int]] = field(default_factory=list)

    def of(self, peer: str) -> list[tuple[int, int]]:
        """Position and number of tokens of each step."""
        return [(position, n) for who, position, n in self.asked if who == peer]


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch) -> Peers:
    peers = Peers()
    forward = RemoteStage.forward

    async def as_they_are(self: RemoteStage, hidden: torch.Tensor, position: int) -> torch.Tensor:
        peers.asked.append((self.peer_id, position, hidden.shape[1]))
        await trio.sleep(peers.delays_s.get(self.peer_id, 0.0))
        answer = await forward(self, hidden, position)
        return peers.lies.get(self.peer_id, lambda honest: honest)(answer)

    monkeypatch.setattr(RemoteStage, "forward", as_they_are)
    return peers


@pytest.fixture
def no_own_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """This node hasn't the files of any block."""

    async def none(*_: object) -> None:
        await trio.lowlevel.checkpoint()

    monkeypatch.setattr(Opinions, "of_own", none)


def lie(answer: torch.Tensor) -> torch.Tensor:
    """Something else, and yet plausible."""
    return answer + 0.2 * answer.roll(1, dims=-1)


def another_lie(answer: torch.Tensor) -> torch.Tensor:
    return answer.flip(-1)


class Chosen(Random):
    """Chooses the steps that are to be compared: as it is told, then all."""

    def __init__(self, compared: Sequence[bool]) -> None:
        super().__init__(0)
        self._compared = list(compared)

    def getrandbits(self, k: int) -> int:
        return super().getrandbits(k)  # else random() is asked for what isn't a step

    def random(self) -> float:
        return 0.0 if not self._compared or self._compared.pop(0) else 0.99


async def greedy_from(bench: Bench, n: int, prompt: list[int] = PROMPT) -> list[int]:
    return await bench.greedy(prompt, n)


def lines_with(bench: Bench, words: str) -> list[str]:
    return [line for line in bench.reports if words in line]


# Honest peers


@pytest.mark.parametrize("source", list(TOLERANCES), indirect=True)
@pytest.mark.parametrize("fraction", [1.0, 0.3])
async def test_honest_replicas_never_disagree(
    swarm_of: SwarmOf, whole: Bench, monkeypatch: pytest.MonkeyPatch, fraction: float
) -> None:
    monkeypatch.setattr("gptnode.node.generator.PREFILL_CHUNK_TOKENS", 16)
    monkeypatch.setattr("gptnode.node.watching.PREFILL_CHUNK_TOKENS", 24)  # other products
    split = swarm_of(
        ("0-1", ("anna", "dora")), ("2-3", ("ben", "cleo")), verify=fraction, rng=Random(1)
    )
    assert await split.greedy(LONG_PROMPT, 24) == await whole.greedy(LONG_PROMPT, 24)
    tally = split.swarm.verifier.tally
    assert (tally.wrong, tally.missed) == (0, 0)
    steps = 2 * (3 + 23)
    assert tally.compared == steps if fraction == 1 else 0 < tally.compared < steps
    assert split.reports == ["anna serves blocks 0-1; ben serves blocks 2-3"]


async def test_a_shadow_is_given_what_it_lacks_at_once(swarm_of: SwarmOf, peers: Peers) -> None:
    rng = Chosen([False] * 11 + [True] + [False] * 99)
    split = swarm_of(("0-3", ("ben", "cleo")), verify=0.5, rng=rng)
    await split.greedy(PROMPT, 15)
    assert len(peers.of("ben")) == 15
    assert peers.of("cleo") == [(0, len(PROMPT) + 11)]


async def test_where_peers_may_hand_on_to_each_other_each_answers_to_the_one_who_verifies(
    swarm_of: SwarmOf, source: ModelSource, lane: ComputeLane, peers: Peers
) -> None:
    split = swarm_of(("0-1", ("anna", "dora")), ("2-3", ("ben", "cleo")), verify=1.0)
    split.generator = Generator(
        Ends(OwnEnds(source, lane)), split.swarm, max_tokens=1024, rings=True
    )
    await split.greedy(PROMPT, 4)
    assert len(peers.of("anna")) == len(peers.of("ben")) == 4
    assert split.swarm.verifier.tally.compared == 8


async def test_the_same_seed_chooses_the_same_steps(swarm_of: SwarmOf, peers: Peers) -> None:
    compared: list[list[tuple[int, int]]] = []
    for _ in range(2):
        split = swarm_of(("0-3", ("ben", "cleo")), verify=0.3, rng=Random(5))
        await split.greedy(PROMPT, 20)
        compared.append(peers.of("cleo"))
        peers.asked.clear()
    assert compared[0] == compared[1]
    assert 2 <= len(compared[0]) <= 15


async def test_a_fraction_of_0_opens_no_session_and_watches_nobody(
    with_replica: Bench, host: MemoryHost, peers: Peers
) -> None:
    await with_replica.greedy(PROMPT, 4)
    assert "cleo" not in host.dialled
    assert not any(isinstance(stage, WatchedStage) for stage in with_replica.swarm.stages)


@pytest.mark.parametrize("fraction", [-0.1, 1.5, float("nan")])
async def test_a_fraction_is_from_0_to_1(swarm_of: SwarmOf, fraction: float) -> None:
    with pytest.raises(UsageError, match="from 0 to 1"):
        swarm_of(("0-3", ("ben", "cleo")), verify=fraction)


@pytest.mark.parametrize("fraction", [1.0, 0.5])
async def test_a_context_that_was_taken_back_is_taken_back_from_the_shadow(
    swarm_of: SwarmOf, whole: Bench, fraction: float
) -> None:
    split = swarm_of(("0-3", ("ben", "cleo")), verify=fraction, rng=Random(3))
    for other in ([*LONG_PROMPT[:21], 50], [*LONG_PROMPT[:9], 40], LONG_PROMPT, [5]):
        assert await split.greedy(other, 5) == await whole.greedy(other, 5)
    assert split.swarm.verifier.tally.wrong == 0


async def test_sessions_are_all_closed_in_the_end(swarm_of: SwarmOf, host: MemoryHost) -> None:
    split = swarm_of(FIRST, ("2-3", ("ben", "cleo")), verify=1.0)
    await split.greedy(PROMPT, 3)
    assert host.servers["cleo"]._budget.total.sessions == 1
    await split.generator.forget()
    with trio.fail_after(10):
        while host.servers["cleo"]._budget.total.sessions:  # noqa: ASYNC110 (no event tells)
            await trio.sleep(0.01)


# Peers that lie


async def test_a_liar_in_use_is_found_before_a_token_of_its_making(
    swarm_of: SwarmOf, whole: Bench, peers: Peers
) -> None:
    peers.lies["ben"] = lie
    split = swarm_of(FIRST, ("2-3", ("ben", "cleo", "dora")), verify=1.0)
    assert await split.greedy(PROMPT, 8) == await whole.greedy(PROMPT, 8)
    assert len(peers.of("ben")) == 1
    (line,) = lines_with(split, "wrong")
    assert line.startswith("ben (blocks 2-3) gave wrong answers, say ")
    assert "cleo" in line
    assert "dora" in line
    assert "% apart, 0.071 % is allowed); it is not used any more" in line
    assert "before" not in line
    assert split.swarm.verifier.tally.wrong == 1
    (state,) = [peer.state for peer in split.swarm.peers() if peer.label == "ben"]
    assert state == "wrong"


async def test_one_that_begins_to_lie_is_found_in_the_middle_of_an_answer(
    swarm_of: SwarmOf, whole: Bench, peers: Peers
) -> None:
    split = swarm_of(FIRST, ("2-3", ("ben", "cleo")), verify=1.0)
    begun = await split.greedy(PROMPT, 5)
    peers.lies["ben"] = lie
    assert await split.greedy(begun, 5) == await whole.greedy(PROMPT, 10)
    assert len(lines_with(split, "ben (blocks 2-3) gave wrong answers")) == 1
    assert not lines_with(split, "before")


async def test_what_came_of_lies_is_computed_anew_by_all(
    swarm_of: SwarmOf, whole: Bench, peers: Peers
) -> None:
    """anna's lies went through ben's cache before they were found."""
    peers.lies["anna"] = another_lie
    rng = Chosen([False] * 8)
    split = swarm_of(("0-1", ("anna", "dora")), ("2-3", ("ben", "cleo")), verify=0.5, rng=rng)
    begun = await split.greedy(PROMPT, 4)
    assert begun != await whole.greedy(PROMPT, 4)
    said = await split.greedy(begun, 6)
    assert said == await whole.greedy(begun, 6)
    (line,) = lines_with(split, "anna (blocks 0-1) gave wrong answers")
    assert "what the model said before may be wrong too, /retry asks again" in line
    assert line.endswith("dora serves blocks 0-1")
    assert split.swarm.verifier.tally.wrong == 1  # ben only computed with what he was given


async def test_a_good_check_ends_the_doubts_of_what_came_before(
    swarm_of: SwarmOf, peers: Peers
) -> None:
    split = swarm_of(FIRST, ("2-3", ("ben", "cleo")), verify=0.5, rng=Chosen([False] * 8 + [True]))
    begun = await split.greedy(PROMPT, 5)
    peers.lies["ben"] = lie
    await split.greedy(begun, 2)
    (line,) = lines_with(split, "ben (blocks 2-3) gave wrong answers")
    assert "before" not in line


async def test_a_lying_shadow_is_dropped_and_the_hop_in_use_stays(
    swarm_of: SwarmOf, whole: Bench, peers: Peers
) -> None:
    peers.lies["cleo"] = lie
    split = swarm_of(FIRST, ("2-3", ("ben", "cleo")), verify=1.0)
    assert await split.greedy(PROMPT, 8) == await whole.greedy(PROMPT, 8)
    assert len(peers.of("cleo")) == 1
    assert len(peers.of("ben")) == 8  # nothing was done twice
    (line,) = lines_with(split, "cleo (blocks 2-3) gave wrong answers")
    assert "say this node's own weights" in line
    assert split.swarm.hops()[1].label == "ben"
    assert len(lines_with(split, "there is nobody besides ben to compare with")) == 1


async def test_a_third_peer_decides(
    swarm_of: SwarmOf, whole: Bench, peers: Peers, no_own_weights: None
) -> None:
    peers.lies["dora"] = lie
    split = swarm_of(FIRST, ("2-3", ("dora", "ben", "cleo")), verify=1.0)
    assert await split.greedy(PROMPT, 6) == await whole.greedy(PROMPT, 6)
    (line,) = lines_with(split, "gave wrong answers")
    assert line.startswith("dora (blocks 2-3) gave wrong answers, say ")


async def test_a_third_peer_that_agrees_with_nobody_is_no_judge(
    swarm_of: SwarmOf, whole: Bench, peers: Peers
) -> None:
    peers.lies.update(ben=lie, cleo=another_lie)
    split = swarm_of(FIRST, ("2-3", ("ben", "cleo", "dora")), verify=1.0)
    assert await split.greedy(PROMPT, 6) == await whole.greedy(PROMPT, 6)
    (line,) = lines_with(split, "gave wrong answers, say this node's own weights")
    assert line.startswith(("ben and cleo (blocks 2-3)", "cleo and ben (blocks 2-3)"))
    assert split.swarm.hops()[1].label == "dora"


async def test_own_weights_decide_where_two_peers_stand_against_each_other(
    swarm_of: SwarmOf, whole: Bench, peers: Peers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gptnode.node.opinions.PREFILL_CHUNK_TOKENS", 16)
    peers.lies["ben"] = lie
    split = swarm_of(FIRST, ("2-3", ("ben", "cleo")), verify=1.0)
    assert await split.greedy(LONG_PROMPT, 6) == await whole.greedy(LONG_PROMPT, 6)
    (line,) = lines_with(split, "gave wrong answers")
    assert line.startswith("ben (blocks 2-3) gave wrong answers, say this node's own weights")
    assert line.endswith("; cleo serves blocks 2-3")


@pytest.mark.parametrize("without", ["files", "whole files", "memory", "time"])
async def test_where_nobody_can_decide_neither_is_used(
    swarm_of: SwarmOf,
    source: ModelSource,
    peers: Peers,
    monkeypatch: pytest.MonkeyPatch,
    without: str,
) -> None:
    def damaged(self: ModelSource, span: Span) -> BlockStack:
        raise ModelFileError(f"blocks {span} are damaged")

    peers.lies["cleo"] = lie
    split = swarm_of(FIRST, ("2-3", ("ben", "cleo")), verify=1.0)
    match without:
        case "files":
            absent = {"layers.3.mlp.up_proj.weight": Path("model-2.safetensors")}
            monkeypatch.setattr(source.index, "absent", absent)
        case "whole files":
            monkeypatch.setattr(ModelSource, "load_blocks", damaged)
        case "memory":
            monkeypatch.setattr("gptnode.node.opinions.ROOM_FACTOR", 1 << 60)
        case "time":
            monkeypatch.setattr("gptnode.node.opinions.OWN_PATIENCE_S", 0.0)
    with pytest.raises(MismatchError) as caught:
        await split.greedy(PROMPT, 1)
    assert caught.value.detail.startswith("ben and cleo (blocks 2-3) gave different answers (")
    assert "nobody can tell which are right; they are not used any more" in caught.value.detail
    assert len(peers.of("ben")) == len(peers.of("cleo")) == 1
    with pytest.raises(MismatchError):
        await split.greedy(PROMPT, 1)  # asking again changes nothing
    assert len(peers.of("ben")) == len(peers.of("cleo")) == 1


async def test_a_liar_is_used_for_no_other_blocks_either(
    swarm_of: SwarmOf, whole: Bench, peers: Peers, host: MemoryHost, make_server: MakeServer
) -> None:
    split = swarm_of(("0-1", ("ben", "anna")), ("2-3", ("cleo", "ben")), verify=0.5,
                     rng=Chosen([False] * 7))  # fmt: skip
    host.servers["ben"] = make_server(Span(0, 4))
    begun = await split.greedy(PROMPT, 3)
    peers.lies["ben"] = lie
    assert await split.greedy(begun, 5) == await whole.greedy(PROMPT, 8)
    assert [hop.label for hop in split.swarm.hops()] == ["anna", "cleo"]


async def test_a_lying_shadow_does_not_cover_for_a_liar_in_use(
    swarm_of: SwarmOf, whole: Bench, peers: Peers
) -> None:
    peers.lies.update(dora=lie, ben=another_lie)
    split = swarm_of(("0-1", ("anna", "dora")), ("2-3", ("ben", "cleo")), verify=1.0)
    assert await split.greedy(PROMPT, 5) == await whole.greedy(PROMPT, 5)
    assert [hop.label for hop in split.swarm.hops()] == ["anna", "cleo"]
    assert split.swarm.verifier.tally.wrong == 2


async def test_a_person_may_trust_it_again(swarm_of: SwarmOf, whole: Bench, peers: Peers) -> None:
    peers.lies["ben"] = lie
    split = swarm_of(FIRST, ("2-3", ("ben", "cleo")), verify=1.0)
    begun = await split.greedy(PROMPT, 2)
    peers.lies.clear()
    blocks_map = split.swarm.blocks_map
    assert blocks_map is not None
    split.swarm.use_map(blocks_map)
    begun = await split.greedy(begun, 2)
    assert split.swarm.hops()[1].label == "cleo"
    split.swarm.use_map(blocks_map, fresh=True)
    assert await split.greedy(begun, 4) == await whole.greedy(PROMPT, 8)
    assert split.swarm.hops()[1].label == "ben"


async def test_a_liar_does_not_come_back_when_the_other_one_dies(
    swarm_of: SwarmOf, peers: Peers, host: MemoryHost, clock: MockClock
) -> None:
    peers.lies["ben"] = lie
    split = swarm_of(FIRST, ("2-3", ("ben", "cleo")), verify=1.0, wait_s=20.0)
    begun = await split.greedy(PROMPT, 2)
    host.kill("cleo")
    peers.asked.clear()
    with pytest.raises(Exception, match="cleo"):
        await split.greedy(begun, 1)
    assert peers.of("ben") == []


async def test_weights_that_were_tampered_with_under_the_same_fingerprint_are_found(
    swarm_of: SwarmOf, whole: Bench, host: MemoryHost, tiny_model: Path, tmp_path: Path
) -> None:
    folder = tampered_copy(
        tiny_model, tmp_path / "tampered", "model.layers.3.self_attn.o_proj.weight"
    )
    tampered = open_model("tiny", folder_paths(folder), "f32", open_device("cpu"))
    split = swarm_of(FIRST, ("2-3", ("ben", "cleo")), verify=1.0)
    server = ServedModel(tampered, (tampered.load_blocks(Span(2, 4)),))
    host.servers["ben"].models["tiny"] = server
    assert await split.greedy(PROMPT, 6) == await whole.greedy(PROMPT, 6)
    assert len(lines_with(split, "ben (blocks 2-3) gave wrong answers")) == 1


# Peers that can't be asked


async def test_without_a_replica_it_is_said_once_that_nobody_compares(
    swarm_of: SwarmOf, whole: Bench
) -> None:
    split = swarm_of(FIRST, ("2-3", ("ben", "cleo")), verify=1.0)
    assert await split.greedy(PROMPT, 6) == await whole.greedy(PROMPT, 6)
    (line,) = lines_with(split, "not verified")
    assert line == "blocks 0-1 are not verified: there is nobody besides anna to compare with"
    tally = split.swarm.verifier.tally
    assert (tally.compared, tally.missed) == (6, 6)


async def test_a_shadow_that_hangs_costs_its_deadline_and_nothing_else(
    swarm_of: SwarmOf, whole: Bench, peers: Peers, clock: MockClock
) -> None:
    split = swarm_of(("0-3", ("ben", "cleo")), verify=1.0)
    peers.delays_s["cleo"] = 10_000.0
    began_s = trio.current_time()
    begun = await split.greedy(PROMPT, 6)
    assert trio.current_time() - began_s < 2 * PATIENCE_S
    assert begun == await whole.greedy(PROMPT, 6)
    assert len(peers.of("cleo")) == 1
    (line,) = lines_with(split, "not verified")
    assert line == "blocks 0-3 are not verified for now: cleo: gave no second answer in time"
    peers.delays_s.clear()
    await trio.sleep(60)
    await split.greedy(begun, 2)
    assert peers.of("cleo")[1:] == [(0, len(begun)), (len(begun), 1)]
    assert split.swarm.verifier.tally.compared == 2


async def test_a_shadow_that_gets_on_is_not_given_up_though_it_is_late(
    swarm_of: SwarmOf, peers: Peers, clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gptnode.node.watching.PREFILL_CHUNK_TOKENS", 8)
    split = swarm_of(("0-3", ("ben", "cleo")), verify=0.5, rng=Chosen([False]))
    begun = await split.greedy(LONG_PROMPT, 1)
    peers.delays_s["cleo"] = 0.4 * PATIENCE_S
    begun = await split.greedy(begun, 2)
    assert split.swarm.verifier.tally.missed == 2
    await split.greedy(begun, 3)
    assert lines_with(split, "not verified") == []
    # What was cut off is given again; all else was given once.
    assert sorted(set(peers.of("cleo"))) == [
        (0, 8), (8, 8), (16, 8), (24, 8), (32, 8), (40, 3), (43, 1), (44, 1)
    ]  # fmt: skip
    assert split.swarm.verifier.tally.compared == 3


async def test_a_shadow_that_dies_is_no_trouble_and_is_opened_again(
    swarm_of: SwarmOf, whole: Bench, host: MemoryHost, make_server: MakeServer, clock: MockClock
) -> None:
    split = swarm_of(("0-3", ("ben", "cleo")), verify=1.0)
    begun = await split.greedy(PROMPT, 3)
    host.kill("cleo")
    begun = await split.greedy(begun, 3)
    assert [hop.label for hop in split.swarm.hops()] == ["ben"]
    assert len(lines_with(split, "blocks 0-3 are not verified for now: cleo")) == 1
    host.servers["cleo"] = make_server(Span(0, 4))
    await trio.sleep(60)
    assert await split.greedy(begun, 3) == await whole.greedy(PROMPT, 9)
    assert split.swarm.verifier.tally.compared == 6


async def test_a_busy_replica_is_no_reason_to_fail(
    swarm_of: SwarmOf, whole: Bench, host: MemoryHost, make_server: MakeServer
) -> None:
    split = swarm_of(("0-3", ("ben", "cleo")), verify=1.0)
    host.servers["cleo"] = make_server(Span(0, 4), max_sessions=0)
    assert await split.greedy(PROMPT, 4) == await whole.greedy(PROMPT, 4)
    (line,) = lines_with(split, "not verified")
    assert line.startswith("blocks 0-3 are not verified for now: cleo: ")
    assert [trouble for peer in ("ben", "cleo") if (trouble := _trouble(split, peer))] == []


def _trouble(bench: Bench, peer: str) -> TroubleKind | None:
    trouble = bench.swarm._planner.health.trouble(peer)
    return trouble.kind if trouble is not None else None


async def test_a_failing_hop_is_replaced_by_the_peer_that_compared(
    swarm_of: SwarmOf, whole: Bench, host: MemoryHost
) -> None:
    split = swarm_of(FIRST, ("2-3", ("ben", "cleo", "dora")), verify=1.0)
    begun = await split.greedy(PROMPT, 4)
    host.kill("ben")
    assert await split.greedy(begun, 6) == await whole.greedy(PROMPT, 10)
    tally = split.swarm.verifier.tally
    assert tally.wrong == 0
    assert split.swarm.hops()[1].label == "cleo"
    assert host.servers["dora"]._budget.total.sessions == 1


async def test_a_replica_that_left_the_map_is_not_asked_any_more(
    swarm_of: SwarmOf, peers: Peers
) -> None:
    split = swarm_of(("0-3", ("ben", "cleo")), verify=1.0)
    begun = await split.greedy(PROMPT, 2)
    split.swarm.use_map(make_map(("0-3", ("ben",))))
    peers.asked.clear()
    await split.greedy(begun, 2)
    assert peers.of("cleo") == []


async def test_an_answer_that_is_stopped_while_it_is_compared_can_go_on(
    swarm_of: SwarmOf, whole: Bench, peers: Peers, clock: MockClock
) -> None:
    split = swarm_of(FIRST, ("2-3", ("ben", "cleo")), verify=1.0)
    begun = await split.greedy(PROMPT, 3)
    peers.delays_s["cleo"] = 1.0
    with trio.move_on_after(0.5) as scope:
        await split.greedy(begun, 1)
    assert scope.cancelled_caught
    peers.delays_s.clear()
    assert await split.greedy(begun, 3) == await whole.greedy(PROMPT, 6)
    assert split.swarm.verifier.tally.wrong == 0


async def test_what_is_too_much_to_keep_is_not_verified(
    swarm_of: SwarmOf, whole: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gptnode.node.watching.Journal", lambda: Journal(limit_bytes=2000))
    split = swarm_of(("0-3", ("ben", "cleo")), verify=1.0)
    assert await split.greedy(PROMPT, 12) == await whole.greedy(PROMPT, 12)
    assert lines_with(split, "not verified") == [
        "blocks 0-3 are not verified: what they were given is too much to keep"
    ]
    assert 0 < split.swarm.verifier.tally.compared < 12


# Distances


def test_the_worst_row_is_what_counts() -> None:
    left = torch.randn(1, 50, 16, generator=torch.Generator().manual_seed(0))
    right = left.clone()
    assert distance(left, right) == 0
    right[0, 17] *= 1.25
    assert distance(left, right) == pytest.approx(0.2)
    right[0, 30] *= -1
    assert distance(left, right) == pytest.approx(2.0)


def test_more_blocks_may_be_further_apart_but_never_as_far_as_lies() -> None:
    allowed = [tolerance("bf16", Span(0, n)) for n in (1, 4, 16, 1000)]
    assert allowed == pytest.approx([0.03, 0.06, 0.12, MAX_TOLERANCE])


def test_nothing_and_something_are_apart_and_nothing_twice_is_the_same() -> None:
    nothing, something = torch.zeros(1, 1, 8), torch.ones(1, 1, 8)
    assert distance(nothing, nothing) == 0
    assert distance(nothing, something) == 1


def test_small_rows_are_judged_like_large_ones() -> None:
    row = torch.ones(1, 1, 8) * 1e-30
    assert distance(row, -row) == pytest.approx(2.0)
