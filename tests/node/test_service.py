"""Many contexts at once: each as if it were alone, none longer than somebody wants it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import trio
import trio.lowlevel
from trio.testing import wait_all_tasks_blocked

from gptnode.demo.bundled import bundled_model_folder
from gptnode.errors import GptNodeError, ServiceBusyError, StreamLostError
from gptnode.model.sampler import Sampling
from gptnode.node.allow_list import AllowList
from gptnode.node.answer import Answer, AnswerSettings
from gptnode.node.block_server import BlockServer
from gptnode.node.commons import Commons
from gptnode.node.compute import ComputeLane
from gptnode.node.config import ClientConfig, ServiceLimits
from gptnode.node.ends import OwnEnds
from gptnode.node.events import EventLog
from gptnode.node.ground import Ground
from gptnode.node.loading import ModelSource, folder_paths, open_device, open_model
from gptnode.node.remote_stage import RemoteStage
from gptnode.node.replay import REPLAY_BYTES
from gptnode.node.runtime import open_service
from gptnode.node.service import Service, ServiceModel
from gptnode.routing.blocks_map import BlocksMap
from gptnode.span import Span
from gptnode.text.grammar import Grammar
from gptnode.text.template import load_template
from gptnode.text.tokenizer import Tokenizer

from .benches import PROMPT, Bench, MakeServer, make_map
from .conftest import MemoryHost

HALVES = make_map(("0-1", ("anna",)), ("2-3", ("ben",)))
REPLICATED = make_map(("0-1", ("anna",)), ("2-3", ("ben", "cleo")))
OURS = make_map(("0-1", ("client",)), ("2-3", ("ben",)))
PROMPTS = [[1, *((number * 7 + i * 5) % 50 + 4 for i in range(5 + number))] for number in range(8)]


@pytest.fixture
def source(tiny_model: Path) -> ModelSource:
    """In bf16, whose kernels join the steps of several contexts."""
    return open_model("tiny", folder_paths(tiny_model), "bf16", open_device("cpu"))


class Opened:
    """A service over servers in memory."""

    def __init__(self, service: Service, host: MemoryHost, told: list[str]) -> None:
        self.service = service
        self.host = host
        self.told = told

    @property
    def sessions(self) -> dict[str, int]:
        return {name: sessions_of(server) for name, server in self.host.servers.items()}

    async def answer(self, ids: list[int], n: int, *, seed: int | None = None) -> Answer:
        """Greedy, or drawn with ``seed``."""
        async with self.service.context(ids) as context:
            answering = context.answer(ids, settings(n, seed))
            async for _ in answering:
                pass
        return answering.result()

    async def until_sessions(self, **sessions: int) -> None:
        await until(lambda: self.sessions == sessions)


def sessions_of(server: BlockServer) -> int:
    return server._budget.total.sessions


def settings(n: int, seed: int | None = None, **more: Any) -> AnswerSettings:
    sampling = Sampling(temperature=0.0) if seed is None else Sampling(temperature=1.0, seed=seed)
    return AnswerSettings(sampling, n, **more)


async def until(true: Callable[[], bool]) -> None:
    with trio.fail_after(20):
        while not true():  # noqa: ASYNC110 (what is waited for has no event)
            await trio.sleep(0.005)


ServiceOf = Callable[..., Opened]


@pytest.fixture
def service_of(
    source: ModelSource,
    lane: ComputeLane,
    nursery: trio.Nursery,
    host: MemoryHost,
    make_server: MakeServer,
    tiny_model: Path,
) -> ServiceOf:
    def make(
        blocks_map: BlocksMap | None = HALVES,
        *,
        speculate: bool = False,
        wait_s: float = 0.0,
        verify: float = 0.0,
        max_sessions: int = 64,
        **limits: Any,
    ) -> Opened:
        for peer in blocks_map.peers if blocks_map is not None else ():
            spans = blocks_map.spans_of(peer.id, "tiny")
            if peer.id != host.peer_id:
                host.servers[peer.id] = make_server(spans[0], max_sessions=max_sessions)
        told: list[str] = []
        events = EventLog(told.append)
        commons = Commons(source, lane, joint=True)
        ground = Ground(
            source=source,
            config=ClientConfig(wait_s=wait_s, verify=verify, speculate=speculate, rings=False),
            max_tokens=512,
            lane=lane,
            nursery=nursery,
            allow=AllowList(blocks_map),
            host=host if blocks_map is not None else None,  # type: ignore[arg-type]
            ends=OwnEnds(source, lane),
            commons=commons,
            draft=None,
            report=events.say,
        )
        tokenizer = Tokenizer.from_folder(tiny_model)
        service = Service(
            ServiceModel(source, tokenizer, load_template(tiny_model, tokenizer, None), ()),
            commons,
            ground,
            nursery,
            ServiceLimits(**limits),
            events,
            blocks_map=blocks_map,
            map_path=None,
            peer_id=host.peer_id,
            context_tokens=512,
        )
        nursery.start_soon(service.run)
        return Opened(service, host, told)

    return make


async def alone(whole: Bench, ids: list[int], n: int, seed: int | None = None) -> tuple[int, ...]:
    tokens = await whole.sampled(ids, n, settings(n, seed).sampling)
    found = tuple(tokens[len(ids) :])
    return found[: found.index(2) + 1] if 2 in found else found


# Each as if it were alone


@pytest.mark.parametrize("speculate", [False, True])
@pytest.mark.parametrize("blocks_map", [HALVES, OURS, None], ids=["peers", "mixed", "local"])
async def test_contexts_at_once_answer_as_each_would_alone(
    service_of: ServiceOf, whole: Bench, blocks_map: BlocksMap | None, speculate: bool
) -> None:
    opened = service_of(blocks_map, speculate=speculate)
    found: dict[int, tuple[int, ...]] = {}

    async def one(number: int) -> None:
        seed = None if number % 2 else number
        found[number] = (await opened.answer(PROMPTS[number], 24, seed=seed)).ids

    async with trio.open_nursery() as crowd:
        for number in range(len(PROMPTS)):
            crowd.start_soon(one, number)
    for number, ids in found.items():
        seed = None if number % 2 else number
        assert ids == await alone(whole, PROMPTS[number], 24, seed)


async def test_steps_of_own_blocks_and_heads_are_joined(
    service_of: ServiceOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gptnode.model.shard import BlockStack

    opened = service_of(None)
    sizes: list[int] = []
    batch = BlockStack.batch

    def counted(self: BlockStack, steps: Any) -> Any:
        sizes.append(len(steps))
        return batch(self, steps)

    monkeypatch.setattr(BlockStack, "batch", counted)
    async with trio.open_nursery() as crowd:
        for prompt in PROMPTS:
            crowd.start_soon(opened.answer, prompt, 24)
    assert max(sizes) >= 4


async def test_a_server_that_dies_costs_no_token_of_any_context(
    service_of: ServiceOf, whole: Bench, host: MemoryHost
) -> None:
    opened = service_of(REPLICATED)
    begun: set[int] = set()
    found: dict[int, tuple[int, ...]] = {}

    async def one(number: int) -> None:
        ids = PROMPTS[number]
        async with opened.service.context(ids) as context:
            answering = context.answer(ids, settings(24))
            async for _ in answering:
                begun.add(number)
        found[number] = answering.result().ids

    async with trio.open_nursery() as crowd:
        for number in range(8):
            crowd.start_soon(one, number)
        await until(lambda: len(begun) >= 4)
        host.kill("ben")
    assert len(found) == 8
    for number, ids in found.items():
        assert ids == await alone(whole, PROMPTS[number], 24)
    assert {hop.label for hop in opened.service.hops()} == {"anna", "cleo"}
    assert sum("cleo serves" in line for line in opened.told) <= 2, "told once, not eight times"


# Caches that are found again


async def test_a_conversation_that_goes_on_computes_what_is_new(service_of: ServiceOf) -> None:
    opened = service_of()
    first = await opened.answer(PROMPT, 6)
    longer = [*PROMPT, *first.ids, 30, 31, 32]
    async with opened.service.context(longer) as context:
        answering = context.answer(longer, settings(3))
        assert context.reused_tokens == len(PROMPT) + len(first.ids) - 1
        async for _ in answering:
            pass
    load = opened.service.load()
    assert (load.answers, load.idle, load.answering) == (2, 1, 0)
    assert load.reused_tokens == len(PROMPT) + len(first.ids) - 1
    assert load.prompt_tokens == len(PROMPT) + len(longer)
    assert load.completion_tokens == len(first.ids) + len(answering.result().ids)
    assert opened.sessions == {"anna": 1, "ben": 1}


async def test_an_answer_from_reused_caches_is_the_same(
    service_of: ServiceOf, whole: Bench
) -> None:
    opened = service_of()
    await opened.answer(PROMPT, 6)
    other = [*PROMPT[:6], 40, 41, 42]
    async with opened.service.context(other) as context:
        answering = context.answer(other, settings(10))
        assert context.reused_tokens == 6
        async for _ in answering:
            pass
    assert answering.result().ids == await alone(whole, other, 10)


async def test_idle_contexts_end_when_nobody_comes_back(service_of: ServiceOf) -> None:
    opened = service_of(idle_s=0.05)
    await opened.answer(PROMPT, 2)
    await opened.until_sessions(anna=0, ben=0)
    assert opened.service.load().idle == 0


async def test_no_more_idle_contexts_are_kept_than_asked_for(service_of: ServiceOf) -> None:
    opened = service_of(max_idle=2)
    for first in range(10, 15):
        await opened.answer([first, 20, 21], 2)
    await opened.until_sessions(anna=2, ben=2)
    assert opened.service.load().idle == 2


# Contexts that end at once


async def test_a_cancelled_answer_frees_its_caches_on_every_peer(service_of: ServiceOf) -> None:
    opened = service_of()
    with trio.CancelScope() as scope:
        async with opened.service.context(PROMPT) as context:
            async for _ in context.answer(PROMPT, settings(400)):
                scope.cancel()
    with trio.fail_after(1.0):
        await opened.until_sessions(anna=0, ben=0)
    assert (opened.service.load().answering, opened.service.load().idle) == (0, 0)


async def test_an_error_frees_the_caches_too(service_of: ServiceOf) -> None:
    opened = service_of()
    with pytest.raises(ZeroDivisionError):
        async with opened.service.context(PROMPT) as context:
            async for _ in context.answer(PROMPT, settings(400)):
                raise ZeroDivisionError
    await opened.until_sessions(anna=0, ben=0)


async def test_closing_the_service_ends_all_sessions(service_of: ServiceOf) -> None:
    opened = service_of()
    await opened.answer(PROMPT, 2)
    await opened.service.aclose()
    await opened.until_sessions(anna=0, ben=0)


async def test_contexts_that_take_the_usual_route_say_so_once(
    service_of: ServiceOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gptnode.node.events.SAME_WITHIN_S", 0.0)
    opened = service_of(max_idle=0)
    for _ in range(3):
        await opened.answer(PROMPT, 1)
    assert opened.told == ["anna serves blocks 0-1; ben serves blocks 2-3"]


# Who has to wait, and for how long


async def test_more_than_allowed_at_once_wait_in_order_and_the_rest_is_refused(
    service_of: ServiceOf,
) -> None:
    opened = service_of(max_contexts=1, max_waiting=3)
    order: list[int] = []
    may_end = trio.Event()

    async def one(number: int) -> None:
        async with opened.service.context([10 + number, 20]) as context:
            order.append(number)
            await may_end.wait()
            async for _ in context.answer([10 + number, 20], settings(8)):
                pass

    async with trio.open_nursery() as crowd:
        for number in range(4):
            crowd.start_soon(one, number)
            await wait_all_tasks_blocked()
        load = opened.service.load()
        assert (load.answering, load.waiting) == (1, 3)
        with pytest.raises(ServiceBusyError):
            await opened.answer(PROMPT, 1)
        may_end.set()
    assert order == [0, 1, 2, 3]


async def test_idle_contexts_make_room_at_a_peer_that_is_full_of_them(
    service_of: ServiceOf, whole: Bench
) -> None:
    opened = service_of(max_sessions=2)
    for first in (10, 11):
        await opened.answer([first, 20, 21], 2)
    assert opened.service.load().idle == 2
    prompt = [12, 30, 31]
    assert (await opened.answer(prompt, 6)).ids == await alone(whole, prompt, 6)
    assert max(opened.sessions.values()) <= 2


async def test_answers_wait_for_each_other_at_a_peer_that_has_no_room_for_all(
    service_of: ServiceOf, whole: Bench
) -> None:
    opened = service_of(max_sessions=2)
    found: dict[int, tuple[int, ...]] = {}

    async def one(number: int) -> None:
        found[number] = (await opened.answer(PROMPTS[number], 12)).ids

    async with trio.open_nursery() as crowd:
        for number in range(8):
            crowd.start_soon(one, number)
    for number, ids in found.items():
        assert ids == await alone(whole, PROMPTS[number], 12)
    assert len(found) == 8
    assert max(opened.sessions.values()) <= 2


async def test_an_answer_that_waits_for_room_can_be_cancelled(service_of: ServiceOf) -> None:
    opened = service_of(max_sessions=1)
    inside = trio.Event()

    async def first() -> None:
        async with opened.service.context(PROMPT) as context:
            answering = context.answer(PROMPT, settings(5))
            await anext(answering)
            inside.set()
            await trio.sleep_forever()

    async with trio.open_nursery() as crowd:
        crowd.start_soon(first)
        await inside.wait()
        with trio.move_on_after(0.1) as scope:
            await opened.answer([30, 31, 32], 3)
        assert scope.cancelled_caught
        assert len(opened.service._pool._line) == 0
        crowd.cancel_scope.cancel()
    assert len((await opened.answer([30, 31, 32], 3)).ids) > 0


# The map


async def test_an_edit_of_the_map_moves_all_contexts_and_disconnects_who_left_when_all_are_off(
    service_of: ServiceOf, whole: Bench, host: MemoryHost, make_server: MakeServer
) -> None:
    opened = service_of()
    host.servers["cleo"] = make_server(Span(2, 4))
    begun: set[int] = set()
    found: dict[int, tuple[int, ...]] = {}

    async def one(number: int) -> None:
        ids = PROMPTS[number]
        async with opened.service.context(ids) as context:
            answering = context.answer(ids, settings(24))
            async for _ in answering:
                begun.add(number)
        found[number] = answering.result().ids

    await opened.answer([40, 41, 42], 2)  # idle, with a session at ben
    async with trio.open_nursery() as crowd:
        for number in range(4):
            crowd.start_soon(one, number)
        await until(lambda: len(begun) >= 2)
        opened.service.use_map(make_map(("0-1", ("anna",)), ("2-3", ("cleo",))))
    for number, ids in found.items():
        assert ids == await alone(whole, PROMPTS[number], 24)
    await until(lambda: "ben" not in host.connected())
    assert sessions_of(host.servers["ben"]) == 0
    assert [peer.label for peer in opened.service.peers()] == ["anna", "cleo"]
    assert sum("the BlocksMap was edited" in line for line in opened.told) == 1
    assert not any(line.startswith("ben") for line in opened.told), "nobody was cut off from ben"


async def test_what_one_context_learns_of_a_peer_all_know(
    service_of: ServiceOf, host: MemoryHost
) -> None:
    opened = service_of(REPLICATED)
    host.kill("ben")
    await opened.answer(PROMPT, 2)
    host.dialled.clear()
    await opened.answer([30, 31, 32], 2)
    assert "ben" not in host.dialled
    states = {peer.label: peer.state for peer in opened.service.peers()}
    assert states == {"anna": "connected", "ben": "down", "cleo": "connected"}


async def test_a_peer_that_one_context_finds_to_be_wrong_is_left_by_all_and_they_begin_anew(
    service_of: ServiceOf, whole: Bench, host: MemoryHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = service_of(make_map(("0-1", ("anna", "cleo")), ("2-3", ("ben",))), verify=1e-9)
    forward = RemoteStage.forward

    async def wrong_at_anna(self: RemoteStage, hidden: torch.Tensor, *rest: Any) -> Any:
        return await forward(self, -hidden if self.peer_id == "anna" else hidden, *rest)

    monkeypatch.setattr(RemoteStage, "forward", wrong_at_anna)
    async with (
        opened.service.context(PROMPTS[0]) as first,
        opened.service.context(PROMPTS[1]) as second,
    ):
        for context, ids in ((first, PROMPTS[0]), (second, PROMPTS[1])):
            async for _ in context.answer(ids, settings(3)):
                pass
            assert context.uses("anna")
        first.swarm._distrust({"anna"}, StreamLostError("anna is wrong"))
        begun = [*PROMPTS[1], 20, 21]
        answering = second.answer(begun, settings(10))
        async for _ in answering:
            pass
        assert not second.uses("anna")
        assert second.prefilled_tokens >= len(begun)
    assert answering.result().ids == await alone(whole, begun, 10)


async def test_without_any_peer_the_error_names_it_and_the_next_answer_can_work(
    service_of: ServiceOf, whole: Bench, host: MemoryHost, make_server: MakeServer
) -> None:
    opened = service_of()
    host.kill("ben")
    with pytest.raises(GptNodeError, match="ben"):
        await opened.answer(PROMPT, 3)
    host.servers["ben"] = make_server(Span(2, 4))
    assert (await opened.answer(PROMPT, 3)).ids == await alone(whole, PROMPT, 3)


# How likely tokens were


@pytest.mark.parametrize("speculate", [False, True])
async def test_log_probabilities_are_those_of_the_logits(
    service_of: ServiceOf, speculate: bool, source: ModelSource
) -> None:
    opened = service_of(None, speculate=speculate)
    ids = [5, 6, 7, 5, 6, 7, 5, 6]
    async with opened.service.context(ids) as context:
        answering = context.answer(ids, settings(12, 3, top_logprobs=4))
        async for _ in answering:
            pass
    sampled = answering.result().ids
    assert [found.id for found in answering.logprobs] == list(sampled)
    embedding = source.load_embedding()
    head, blocks = source.load_head(embedding), source.load_blocks(Span(0, 4))
    for number, found in enumerate(answering.logprobs):
        before = [*ids, *sampled[:number]]
        hidden = blocks(embedding(torch.tensor([before])), blocks.new_cache(512))
        expected = head(hidden[:, -1:])[0].double().log_softmax(0)
        assert found.logprob == pytest.approx(float(expected[found.id]), abs=0.05)
        top = [logprob for _, logprob in found.top]
        assert len(top) == 4
        assert top == sorted(top, reverse=True)
        assert top[0] == pytest.approx(float(expected.max()), abs=0.05)


async def test_without_being_asked_for_no_log_probabilities_are_kept(
    service_of: ServiceOf,
) -> None:
    opened = service_of(None)
    async with opened.service.context(PROMPT) as context:
        answering = context.answer(PROMPT, settings(3))
        async for _ in answering:
            pass
    assert answering.logprobs == []


@pytest.mark.parametrize("speculate", [False, True])
@pytest.mark.parametrize("seed", [None, 1])
async def test_an_answer_keeps_to_its_grammar_with_guesses_or_without(
    speculate: bool, seed: int | None
) -> None:
    grammar = Grammar.json_schema(
        {
            "type": "object",
            "properties": {"colours": {"type": "array", "items": {"enum": ["red", "blue"]}}},
            "required": ["colours"],
            "additionalProperties": False,
        }
    )
    config = ClientConfig(model_dir=bundled_model_folder(), threads=1, speculate=speculate)
    async with open_service(config, ServiceLimits(), report=lambda line: None) as service:
        ids = service.tokenizer.encode('{"colours": ["red", "blue", "red", "blue"]} and then')
        async with service.context(ids) as context:
            answering = context.answer(ids, settings(80, seed, grammar=grammar, top_logprobs=1))
            async for _ in answering:
                pass
        found = answering.result()
        assert len(answering.logprobs) == found.completion_tokens
        if found.stop_reason == "end":
            assert set(json.loads(found.text)["colours"]) <= {"red", "blue"}
        else:
            assert re.match(r'\{\s*"colours"\s*:\s*\[', found.text)
        if not speculate:
            assert context.guesses == (0, 0)


async def test_contexts_share_the_room_for_steps_that_may_be_given_again() -> None:
    config = ClientConfig(model_dir=bundled_model_folder(), threads=1)
    limits = ServiceLimits(max_contexts=3, max_idle=1)
    async with (
        open_service(config, limits, report=lambda line: None) as service,
        service.context([1]) as first,
        service.context([2]) as second,
    ):
        rooms = [one._generator._pipeline.log.limit_bytes for one in (first, second)]
    assert rooms == [REPLAY_BYTES // 4] * 2


async def test_a_stage_that_is_cancelled_while_it_waits_does_not_block_others(
    service_of: ServiceOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = service_of()
    forward = RemoteStage.forward

    async def slow(self: RemoteStage, *args: Any) -> Any:
        await trio.sleep(0.2)
        return await forward(self, *args)

    monkeypatch.setattr(RemoteStage, "forward", slow)
    with trio.move_on_after(0.1):
        await opened.answer(PROMPT, 3)
    await wait_all_tasks_blocked()
    monkeypatch.setattr(RemoteStage, "forward", forward)
    await opened.until_sessions(anna=0, ben=0)
    assert (await opened.answer(PROMPT, 2)).completion_tokens >= 1
