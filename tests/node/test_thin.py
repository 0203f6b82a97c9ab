"""Clients that leave embedding and head to peers: the same tokens, and no weights."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trio
from hypothesis import given
from hypothesis import strategies as st

from gptnode.errors import (
    GptNodeError,
    MapError,
    MismatchError,
    ModelFileError,
    NetworkError,
    RemoteProtocolError,
    UsageError,
)
from gptnode.model.native.binding import kernels
from gptnode.model.sampler import Sampler, Sampling, random_number
from gptnode.model.shard import Head
from gptnode.node.answer_sampler import AnswerSampler
from gptnode.node.compute import ComputeLane
from gptnode.node.draft_length import DraftLength
from gptnode.node.loading import ModelSource, folder_paths, open_device, open_model
from gptnode.node.remote_stage import RemoteStage
from gptnode.node.served_context import ServedContext
from gptnode.node.tensors import ids_to_wire
from gptnode.routing.entries import NO_ENDS, PlacedEnds
from gptnode.span import Span
from gptnode.wire.messages import Draw, Step, Stepped, WireTensor

from .benches import PROMPT, Bench, MakeServer, SwarmOf, make_map
from .conftest import MemoryHost
from .test_block_server import open_for, opening, session

BOTH = PlacedEnds(embed=True, head=True)
EMBED = PlacedEnds(embed=True)
HEAD = PlacedEnds(head=True)
HALVES = (("0-1", ("anna",)), ("2-3", ("ben",)))
LONG_PROMPT = [(7 * i) % 60 + 2 for i in range(50)]
REPEATS = [*([5, 6, 7, 8, 9, 10, 11, 12] * 4), 5, 6, 7]
SAMPLINGS = [
    Sampling(temperature=0.0),
    Sampling(temperature=0.0, repetition_penalty=1.4),
    Sampling(temperature=1.1, top_p=1.0, seed=1),
    Sampling(temperature=1.0, top_p=1.0, top_k=5, seed=2),
    Sampling(temperature=1.5, top_p=0.6, seed=3),
    Sampling(temperature=1.5, top_p=1.0, min_p=0.2, seed=4),
    Sampling(temperature=0.9, top_p=1.0, repetition_penalty=0.7, seed=5),
    Sampling(temperature=1.2, top_k=20, top_p=0.9, min_p=0.05, repetition_penalty=1.2, seed=6),
]
DRAWN = SAMPLINGS[-1]

needs_kernels = pytest.mark.skipif(kernels is None, reason="the kernels aren't built here")


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gptnode.node.generator.PREFILL_CHUNK_TOKENS", 8)


@pytest.fixture
def always_three(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guesses don't depend on how fast this machine is."""
    monkeypatch.setattr(DraftLength, "best", lambda length: 3)


@pytest.mark.parametrize("rings", [False, True], ids=["star", "ring"])
@pytest.mark.parametrize("sampling", SAMPLINGS, ids=str)
async def test_a_client_without_weights_gets_the_tokens_of_one_that_has_them_all(
    swarm_of: SwarmOf, whole: Bench, sampling: Sampling, rings: bool
) -> None:
    thin = swarm_of(*HALVES, ends=BOTH, rings=rings)
    for prompt in (PROMPT, LONG_PROMPT):
        expected = await whole.sampled(prompt, 12, sampling)
        assert await thin.sampled(prompt, 12, sampling) == expected
    assert (thin.ends.embedding, thin.ends.heads) == (None, None)
    assert (whole.ends.embedding, whole.ends.heads) != (None, None)


@pytest.mark.parametrize("ends", [EMBED, HEAD, BOTH], ids=["embed", "head", "both"])
@pytest.mark.parametrize("routes", [HALVES, (("0-3", ("anna",)),)], ids=["two hops", "one hop"])
async def test_each_end_may_be_at_a_peer_by_itself(
    swarm_of: SwarmOf, whole: Bench, ends: PlacedEnds, routes: Any
) -> None:
    thin = swarm_of(*routes, ends=ends, rings=True)
    assert await thin.sampled(PROMPT, 12, DRAWN) == await whole.sampled(PROMPT, 12, DRAWN)
    assert (thin.ends.embedding is None) == ends.embed
    assert (thin.ends.heads is None) == ends.head
    hops = thin.swarm.hops()
    assert (hops[0].ends.embed, hops[-1].ends.head) == (ends.embed, ends.head)


async def test_without_a_seed_two_answers_differ(swarm_of: SwarmOf) -> None:
    thin = swarm_of(*HALVES, ends=BOTH)
    free = Sampling(temperature=2.0, top_p=1.0)
    answers = [await thin.sampled(PROMPT, 12, free) for _ in range(2)]
    assert answers[0] != answers[1]


async def test_turns_undo_and_a_changed_beginning_are_right(
    swarm_of: SwarmOf, whole: Bench
) -> None:
    thin = swarm_of(*HALVES, ends=BOTH, rings=True)
    begun = await thin.greedy(LONG_PROMPT, 4)
    for ids in ([*begun, 9, 8, 7], begun[:20], [5, *begun], begun):
        assert await thin.sampled(ids, 3, DRAWN) == await whole.sampled(ids, 3, DRAWN)


@pytest.mark.parametrize("rings", [False, True], ids=["star", "ring"])
@pytest.mark.parametrize("victim", ["anna", "ben"])
async def test_a_replica_goes_on_with_the_very_same_tokens(
    swarm_of: SwarmOf, whole: Bench, host: MemoryHost, victim: str, rings: bool
) -> None:
    thin = swarm_of(("0-1", ("anna", "dora")), ("2-3", ("ben", "cleo")), ends=BOTH, rings=rings)
    sampler, ids = Sampler(replace(DRAWN, seed=None)), list(LONG_PROMPT)
    for n in range(20):
        if n == 9:
            host.kill(victim)
        ids.append(await thin.generator.next_token(ids, sampler))
    expected = replace(DRAWN, seed=sampler.seed)
    assert ids == await whole.sampled(LONG_PROMPT, 20, expected)
    assert victim not in {hop.label for hop in thin.swarm.hops()}
    assert sampler.drawn == 20


@pytest.mark.parametrize("rings", [False, True], ids=["star", "ring"])
async def test_a_head_that_is_lost_after_it_drew_draws_nothing_twice(
    swarm_of: SwarmOf,
    whole: Bench,
    host: MemoryHost,
    monkeypatch: pytest.MonkeyPatch,
    rings: bool,
) -> None:
    thin = swarm_of(("0-1", ("anna",)), ("2-3", ("ben", "cleo")), ends=BOTH, rings=rings)
    compute = ServedContext.step
    drawn = 0

    async def breaks(context: ServedContext, position: int, sent: Any, draw: Any = None) -> Stepped:
        nonlocal drawn
        stepped = await compute(context, position, sent, draw)
        if context._heads is not None and draw is not None:
            drawn += 1
            if drawn == 7:
                host.kill("ben")
                await trio.sleep_forever()
        return stepped

    monkeypatch.setattr(ServedContext, "step", breaks)
    assert await thin.sampled(PROMPT, 15, DRAWN) == await whole.sampled(PROMPT, 15, DRAWN)
    assert drawn == 16


class TestGuesses:
    """Several tokens a round trip, drawn by the peer with the head."""

    @pytest.fixture
    def source(self, tiny_model: Path) -> ModelSource:
        """In bf16: there, rows of a step are the same alone and together."""
        return open_model("tiny", folder_paths(tiny_model), "bf16", open_device("cpu"))

    @needs_kernels
    @pytest.mark.usefixtures("always_three")
    @pytest.mark.parametrize("rings", [False, True], ids=["star", "ring"])
    @pytest.mark.parametrize("sampling", SAMPLINGS, ids=str)
    async def test_the_tokens_are_those_without_guesses(
        self, swarm_of: SwarmOf, whole: Bench, sampling: Sampling, rings: bool
    ) -> None:
        thin = swarm_of(*HALVES, ends=BOTH, rings=rings, speculate=True)
        assert await thin.sampled(REPEATS, 50, sampling) == await whole.sampled(
            REPEATS, 50, sampling
        )

    @needs_kernels
    @pytest.mark.usefixtures("always_three")
    async def test_text_that_repeats_itself_takes_fewer_steps(
        self, swarm_of: SwarmOf, whole: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        draws: list[Draw] = []
        forward = RemoteStage.forward

        async def counted(
            stage: RemoteStage, hidden: torch.Tensor, position: int, draw: Draw | None = None
        ) -> torch.Tensor:
            draws.extend([] if draw is None else [draw])
            return await forward(stage, hidden, position, draw)

        monkeypatch.setattr(RemoteStage, "forward", counted)
        thin = swarm_of(*HALVES, ends=BOTH, speculate=True)
        assert await thin.greedy(PROMPT, 200) == await whole.greedy(PROMPT, 200)
        speculation = thin.generator.speculation
        assert speculation is not None
        assert len(draws) == 200 - speculation.right
        assert speculation.right > 0
        assert max(len(draw.guess) for draw in draws) == 3

    @needs_kernels
    @pytest.mark.usefixtures("always_three")
    @pytest.mark.parametrize("rings", [False, True], ids=["star", "ring"])
    async def test_a_replica_takes_over_between_guesses(
        self, swarm_of: SwarmOf, whole: Bench, host: MemoryHost, rings: bool
    ) -> None:
        routes = (("0-1", ("anna",)), ("2-3", ("ben", "cleo")))
        thin = swarm_of(*routes, ends=BOTH, rings=rings, speculate=True)
        sampler, ids = Sampler(SAMPLINGS[3]), list(PROMPT)
        for n in range(60):
            if n == 31:
                host.kill("ben")
            ids.append(await thin.generator.next_token(ids, sampler))
        assert ids == await whole.sampled(PROMPT, 60, SAMPLINGS[3])
        assert thin.swarm.hops()[1].label == "cleo"

    @needs_kernels
    async def test_heads_of_several_sessions_are_one_product(
        self, swarm_of: SwarmOf, whole: Bench, lane: ComputeLane, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        expected = [await whole.sampled([n, *PROMPT], 20, DRAWN) for n in range(3)]
        benches = [swarm_of(("0-3", ("anna",)), ends=BOTH)]
        benches += [
            Bench(benches[0].source, lane, benches[0].nursery, benches[0].map, benches[0].host)
            for _ in range(2)
        ]
        sizes: list[int] = []
        call = Head.__call__

        def counted(head: Head, hidden: torch.Tensor) -> torch.Tensor:
            sizes.append(hidden.shape[0])
            return call(head, hidden)

        monkeypatch.setattr(Head, "__call__", counted)
        found: dict[int, list[int]] = {}

        async def answer(number: int) -> None:
            found[number] = await benches[number].sampled([number, *PROMPT], 20, DRAWN)

        async with trio.open_nursery() as nursery:
            for number in range(3):
                nursery.start_soon(answer, number)
        assert [found[number] for number in range(3)] == expected
        assert max(sizes) > 1


@pytest.mark.parametrize("rings", [False, True], ids=["star", "ring"])
@pytest.mark.parametrize(
    "answer",
    [
        WireTensor("i32", (1, 1), (64).to_bytes(4, "little")),
        WireTensor("i32", (1, 1), (2**32 - 1).to_bytes(4, "little")),
        WireTensor("i32", (1, 2), bytes(8)),
        WireTensor("i32", (1, 1, 1), bytes(4)),
        WireTensor("f32", (1, 1, 32), bytes(128)),
    ],
    ids=["unknown id", "-1", "more than asked", "another shape", "hidden states"],
)
async def test_a_head_that_answers_nonsense_is_replaced(
    swarm_of: SwarmOf,
    whole: Bench,
    host: MemoryHost,
    monkeypatch: pytest.MonkeyPatch,
    answer: WireTensor,
    rings: bool,
) -> None:
    thin = swarm_of(("0-1", ("anna",)), ("2-3", ("ben", "cleo")), ends=BOTH, rings=rings)
    compute = ServedContext.step
    ben = host.servers["ben"]

    async def lies(context: ServedContext, position: int, sent: Any, draw: Any = None) -> Stepped:
        stepped = await compute(context, position, sent, draw)
        lie = context._batcher is ben._batcher and draw is not None and draw.drawn == 5
        return replace(stepped, hidden=answer) if lie else stepped

    monkeypatch.setattr(ServedContext, "step", lies)
    assert await thin.sampled(PROMPT, 12, DRAWN) == await whole.sampled(PROMPT, 12, DRAWN)
    assert thin.swarm.hops()[1].label == "cleo"


async def test_a_peer_without_the_ends_that_the_map_places_on_it_is_told_apart(
    swarm_of: SwarmOf, host: MemoryHost, make_server: MakeServer
) -> None:
    thin = swarm_of(("0-1", ("anna",)), ("2-3", ("ben", "cleo")), ends=BOTH)
    host.servers["ben"] = make_server(Span(2, 4))
    await thin.greedy(PROMPT, 2)
    assert thin.swarm.hops()[1].label == "cleo"
    assert any("has no head of tiny for blocks 2-3" in line for line in thin.reports)


async def test_ends_may_go_to_peers_and_come_back_within_an_answer(
    swarm_of: SwarmOf, whole: Bench, host: MemoryHost, make_server: MakeServer
) -> None:
    bench = swarm_of(*HALVES, rings=True)
    for name, span in (("anna", Span(0, 2)), ("ben", Span(2, 4))):
        host.servers[name] = make_server(span, ends=BOTH.within(span, 4))
    sampler, ids = Sampler(DRAWN), list(PROMPT)
    for ends in (NO_ENDS, BOTH, HEAD, EMBED, NO_ENDS):
        bench.swarm.use_map(make_map(*HALVES, ends=ends))
        for _ in range(4):
            ids.append(await bench.generator.next_token(ids, sampler))
        assert bench.generator._pipeline.ends == ends
    assert ids == await whole.sampled(PROMPT, 20, DRAWN)


@pytest.mark.parametrize("own", [("0-1", 0), ("2-3", 1)], ids=["first", "last"])
@pytest.mark.parametrize("ends", [BOTH, HEAD, EMBED], ids=["both", "head", "embed"])
async def test_a_node_that_chats_may_be_one_of_the_peers(
    swarm_of: SwarmOf, whole: Bench, own: tuple[str, int], ends: PlacedEnds
) -> None:
    blocks, place = own
    routes = [(span, ("client",) if span == blocks else peers) for span, peers in HALVES]
    bench = swarm_of(*routes, ends=ends)
    assert await bench.sampled(LONG_PROMPT, 9, DRAWN) == await whole.sampled(LONG_PROMPT, 9, DRAWN)
    assert bench.swarm.hops()[place].peer_id is None


async def test_verifying_needs_the_ends_on_this_node(swarm_of: SwarmOf) -> None:
    with pytest.raises(UsageError, match="takes both on this node"):
        swarm_of(*HALVES, ends=HEAD, verify=0.5)
    bench = swarm_of(*HALVES, verify=0.5)
    with pytest.raises(MapError, match="takes both on this node"):
        bench.swarm.use_map(make_map(*HALVES, ends=EMBED))
    assert bench.swarm.blocks_map == make_map(*HALVES)


async def test_a_client_that_has_no_weights_says_so_when_the_map_gives_it_some(
    swarm_of: SwarmOf, source: ModelSource, tmp_path: Path
) -> None:
    folder = tmp_path / "thin"
    folder.mkdir()
    (folder / "config.json").write_bytes(source.paths.config.read_bytes())
    thin = swarm_of(*HALVES, ends=BOTH)
    lean = open_model(
        "tiny",
        folder_paths(folder),
        "f32",
        open_device("cpu"),
        fingerprint=source.key.fingerprint,
        may_lack_weights=True,
    )
    assert lean.index.empty
    bench = Bench(lean, thin.lane, thin.nursery, thin.map, thin.host)
    assert await bench.greedy(PROMPT, 3) == await thin.greedy(PROMPT, 3)
    bench.swarm.use_map(make_map(*HALVES, ends=EMBED))
    with pytest.raises(ModelFileError, match="no weights are here"):
        await bench.greedy(PROMPT, 3)
    bench.swarm.use_map(make_map(*HALVES, ends=BOTH))
    assert await bench.greedy(PROMPT, 3) == await thin.greedy(PROMPT, 3)


async def test_without_a_replica_the_loss_of_the_head_is_an_error_that_names_it(
    swarm_of: SwarmOf, host: MemoryHost
) -> None:
    thin = swarm_of(*HALVES, ends=BOTH)
    await thin.greedy(PROMPT, 2)
    host.kill("ben")
    with pytest.raises(NetworkError, match=r"ben \(blocks 2-3\)"):
        await thin.greedy(PROMPT, 4)


async def test_more_than_tokens_can_not_be_had_of_a_head_elsewhere(swarm_of: SwarmOf) -> None:
    thin = swarm_of(*HALVES, ends=HEAD)
    sampler = AnswerSampler(Sampling(temperature=0.0), top_logprobs=2)
    with pytest.raises(UsageError, match="leaves the head to a peer"):
        await thin.generator.next_token(PROMPT, sampler)


PLAIN = Draw(0.0, 0, 1.0, 0.0, 1.0, 0)


def ids(*tokens: int) -> WireTensor:
    return ids_to_wire(tokens, (1, len(tokens)))


class TestServer:
    """What a server with the ends says to sessions that use them, or try."""

    async def test_it_gives_ids_for_ids_and_minus_one_where_none_is_wanted(
        self, host: MemoryHost, make_server: MakeServer, source: ModelSource, whole: Bench
    ) -> None:
        host.servers["anna"] = make_server(Span(0, 4), ends=BOTH)
        request = open_for(source, embed=True, head=True)
        expected = await whole.greedy(PROMPT, 2)
        async with session(host, "anna", request) as (channel, _):
            first = await channel.request(Step(0, ids(*PROMPT[:3])), timeout_s=5)
            assert ids_from(first.hidden) == [-1]
            for position, tokens in ((3, PROMPT[3:]), (7, expected[7:8])):
                asked = Step(position, ids(*tokens), PLAIN)
                reply = await channel.request(asked, timeout_s=5)
                assert ids_from(reply.hidden) == expected[position + len(tokens) :][:1]

    @pytest.mark.parametrize(
        ("span", "flags", "said"),
        [
            (Span(1, 4), {"embed": True}, "has no embedding of tiny for blocks 1-3"),
            (Span(0, 3), {"head": True}, "has no head of tiny for blocks 0-2"),
        ],
    )
    async def test_ends_go_with_their_blocks_alone(
        self,
        host: MemoryHost,
        make_server: MakeServer,
        source: ModelSource,
        span: Span,
        flags: dict[str, bool],
        said: str,
    ) -> None:
        host.servers["anna"] = make_server(Span(0, 4), ends=BOTH)
        error = await opening(host, open_for(source, span, **flags))
        assert isinstance(error, MismatchError)
        assert said in error.detail

    @pytest.mark.parametrize(
        ("step", "said"),
        [
            (Step(0, ids(64), PLAIN), "outside of the vocabulary of 64"),
            (Step(0, ids(-1), PLAIN), "outside of the vocabulary of 64"),
            (Step(0, ids_to_wire([1, 2], (2, 1)), PLAIN), "a step takes ids"),
            (Step(0, ids_to_wire([1, 2], (1, 2, 1)), PLAIN), "a step takes ids"),
            (Step(0, WireTensor("f32", (1, 1), bytes(4)), PLAIN), "are f32 instead of i32"),
            (Step(0, ids(*[1] * 513), PLAIN), "a step takes ids"),
            (Step(0, ids(1, 2), replace(PLAIN, guess=(5, 6))), "a guess of 2 tokens in a step"),
            (Step(0, ids(1), replace(PLAIN, seen=ids_to_wire([64], (1,)))), "vocabulary of 64"),
        ],
    )
    async def test_ids_and_draws_that_can_not_be_are_refused(
        self,
        host: MemoryHost,
        make_server: MakeServer,
        source: ModelSource,
        step: Step,
        said: str,
    ) -> None:
        host.servers["anna"] = make_server(Span(0, 4), ends=BOTH)
        request = open_for(source, embed=True, head=True)
        async with session(host, "anna", request) as (channel, _):
            with pytest.raises(RemoteProtocolError, match=said):
                await channel.request(step, timeout_s=5)

    async def test_a_penalty_no_float_can_hold_ends_its_own_session_alone(
        self, host: MemoryHost, source: ModelSource, swarm_of: SwarmOf, whole: Bench
    ) -> None:
        thin = swarm_of(("0-3", ("anna",)), ends=BOTH)
        expected = await whole.greedy(PROMPT, 6)
        before = await thin.greedy(PROMPT, 3)
        request = open_for(source, embed=True, head=True)
        wild = Draw(1e-320, 0, 0.5, 0.0, 1e-320, 0, 2**31 - 1, (), ids_to_wire(range(64), (64,)))
        async with session(host, "anna", request) as (channel, _):
            with suppress(GptNodeError):
                reply = await channel.request(Step(0, ids(1), wild), timeout_s=5)
                assert 0 <= ids_from(reply.hidden)[0] < 64
        assert await thin.greedy(before, 3) == expected


def ids_from(tensor: WireTensor) -> list[int]:
    found: list[int] = np.frombuffer(tensor.data, dtype="<i4").tolist()
    return found


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**31 - 1))
def test_random_numbers_are_from_0_to_below_1_and_their_seeds_own(seed: int, number: int) -> None:
    found = random_number(seed, number)
    assert 0.0 <= found < 1.0
    assert found == random_number(seed, number)
    assert found != random_number(seed ^ 1, number)


def test_random_numbers_are_evenly_spread_and_in_no_order() -> None:
    numbers = torch.tensor([random_number(7, n) for n in range(20_000)], dtype=torch.float64)
    assert torch.allclose(numbers.histc(10, 0, 1) / len(numbers), torch.tensor(0.1).double(), 0.07)
    pairs = torch.stack([numbers[:-1], numbers[1:]])
    assert abs(float(torch.corrcoef(pairs)[0, 1])) < 0.03
