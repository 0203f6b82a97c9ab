"""A client's meter over a swarm of real block servers: answers, failures, new routes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import trio

from gptnode.errors import GptNodeError
from gptnode.model.sampler import Sampler, Sampling
from gptnode.node import metric_catalogue as names
from gptnode.node.answer import Answering, AnswerSettings
from gptnode.node.map_taking import MapTaker
from gptnode.node.metric_catalogue import Described
from gptnode.node.metrics import Metrics
from gptnode.node.speculation import Speculation
from gptnode.routing.blocks_map import BlocksMap
from gptnode.text.tokenizer import Tokenizer

from .benches import PROMPT, Bench, SwarmOf, make_map
from .conftest import MemoryHost

GREEDY = Sampling(temperature=0.0)
PEER = "12D3KooWNfSUe7jjETNTMxLeHxxvkxrL5KL2dweoBPobuZcsVwaK"
MAP = {
    "models": [{"name": "tiny"}],
    "peers": [{"name": "anna", "id": PEER, "addrs": ["/ip4/127.0.0.1/tcp/1"]}],
    "routes": [{"blocks": "0-3", "peers": ["anna"]}],
}
WITH_REPLICA = (("0-1", ("anna",)), ("2-3", ("ben", "cleo")))


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def swarm(swarm_of: SwarmOf, metrics: Metrics) -> Bench:
    """anna has the first half, ben and cleo the second."""
    return swarm_of(*WITH_REPLICA, meter=metrics)


@pytest.fixture
def tokenizer(tiny_model: Path) -> Tokenizer:
    return Tokenizer.from_folder(tiny_model)


def answering(bench: Bench, tokenizer: Tokenizer, ids: list[int], tokens: int) -> Answering:
    settings = AnswerSettings(GREEDY, max_tokens=tokens)
    return Answering(bench.generator, tokenizer, frozenset(), ids, settings)


async def read(answer: Answering) -> list[int]:
    async for _ in answer:
        pass
    return list(answer.result().ids)


def value(metrics: Metrics, metric: Described, suffix: str = "", **labels: str) -> float:
    return metrics.registry.get_sample_value(metric.name + suffix, labels) or 0.0


async def test_an_answer_counts_its_tokens_and_each_hop_what_it_took_of_each(
    swarm: Bench, metrics: Metrics, tokenizer: Tokenizer
) -> None:
    ids = await read(answering(swarm, tokenizer, PROMPT, 5))
    assert value(metrics, names.PROMPT_TOKENS, model="tiny") == len(PROMPT)
    assert value(metrics, names.REUSED_TOKENS, model="tiny") == 0
    assert value(metrics, names.COMPLETION_TOKENS, model="tiny") == len(ids) == 5
    assert value(metrics, names.ANSWERS, model="tiny", reason="length") == 1
    for peer in ("anna", "ben"):
        for phase, tokens in (("prefill", 1), ("decode", 4)):
            labels = {"peer": peer, "phase": phase, "part": "compute"}
            assert value(metrics, names.HOP_SECONDS, "_count", **labels) == tokens
            assert value(metrics, names.HOP_SECONDS, "_sum", **labels) > 0
    assert not value(metrics, names.HOP_SECONDS, "_count", peer="cleo", phase="decode", part="wire")


async def test_a_conversation_that_goes_on_counts_what_the_caches_held(
    swarm: Bench, metrics: Metrics, tokenizer: Tokenizer
) -> None:
    ids = await read(answering(swarm, tokenizer, PROMPT, 4))
    await read(answering(swarm, tokenizer, [*PROMPT, *ids, 7, 8], 2))
    assert value(metrics, names.PROMPT_TOKENS, model="tiny") == 2 * len(PROMPT) + 4 + 2
    # The last token of the first answer was never computed with.
    assert value(metrics, names.REUSED_TOKENS, model="tiny") == len(PROMPT) + 3


async def test_a_failover_is_counted_by_the_peer_that_failed_and_what_was_filled_again(
    swarm: Bench, metrics: Metrics, host: MemoryHost
) -> None:
    begun = await swarm.greedy(PROMPT, 3)
    assert not value(metrics, names.FAILOVERS, peer="ben", cause="lost")
    assert not value(metrics, names.REROUTES, cause="failure")
    host.kill("ben")
    await swarm.greedy(begun, 3)
    assert value(metrics, names.FAILOVERS, peer="ben", cause="lost") == 1
    assert value(metrics, names.REROUTES, cause="failure") == 1
    assert value(metrics, names.REFILLED_TOKENS, model="tiny") >= len(PROMPT) + 2
    assert not value(metrics, names.REROUTES, cause="map_edit")


async def test_a_peer_that_can_not_be_reached_at_first_is_no_failover(
    swarm: Bench, metrics: Metrics, host: MemoryHost
) -> None:
    host.kill("ben")
    await swarm.greedy(PROMPT, 2)
    assert value(metrics, names.OPEN_FAILURES, peer="ben", cause="down") == 1
    assert not value(metrics, names.FAILOVERS, peer="ben", cause="down")
    assert not value(metrics, names.REROUTES, cause="failure")


async def test_an_edit_of_the_routes_is_a_reroute_and_one_that_changes_none_is_not(
    swarm: Bench, metrics: Metrics
) -> None:
    begun = await swarm.greedy(PROMPT, 2)
    swarm.swarm.use_map(make_map(*WITH_REPLICA, clients=("phone",)))
    begun = await swarm.greedy(begun, 1)
    assert not value(metrics, names.REROUTES, cause="map_edit")
    swarm.swarm.use_map(make_map(("0-1", ("anna",)), ("2-3", ("cleo", "ben"))))
    await swarm.greedy(begun, 1)
    assert value(metrics, names.REROUTES, cause="map_edit") == 1
    assert not value(metrics, names.REROUTES, cause="failure")


async def test_an_answer_that_nobody_can_give_has_failed(
    swarm: Bench, metrics: Metrics, host: MemoryHost, tokenizer: Tokenizer
) -> None:
    host.kill("anna")
    with pytest.raises(GptNodeError):
        await read(answering(swarm, tokenizer, PROMPT, 3))
    assert value(metrics, names.ANSWERS, model="tiny", reason="failed") == 1
    assert not value(metrics, names.PROMPT_TOKENS, model="tiny")


async def test_an_answer_that_is_given_up_is_cancelled_however_it_is_given_up(
    swarm: Bench, metrics: Metrics, tokenizer: Tokenizer
) -> None:
    cancelled = {"model": "tiny", "reason": "cancelled"}
    with trio.CancelScope() as scope:
        scope.cancel()
        await read(answering(swarm, tokenizer, PROMPT, 3))
    assert value(metrics, names.ANSWERS, **cancelled) == 1
    left = answering(swarm, tokenizer, PROMPT, 3)
    await left.__anext__()  # and never again
    await read(answering(swarm, tokenizer, PROMPT, 3))
    assert value(metrics, names.ANSWERS, **cancelled) == 2
    left = answering(swarm, tokenizer, PROMPT, 3)
    await left.__anext__()
    await swarm.generator.forget()
    assert value(metrics, names.ANSWERS, **cancelled) == 3
    assert value(metrics, names.ANSWERS, model="tiny", reason="length") == 1


async def test_guesses_and_those_that_were_right_are_counted(
    swarm_of: SwarmOf, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = swarm_of(*WITH_REPLICA, meter=metrics)
    whole = await bench.greedy(PROMPT, 6)
    await bench.generator.start_over()
    bench.generator.speculation = Speculation()
    ahead = [whole[len(PROMPT) + 1], 63]  # one right, one wrong

    async def guess(self: Speculation, ids: list[int], *args: object, **kw: object) -> list[int]:
        return ahead if len(ids) == len(PROMPT) + 1 and ahead[1] != whole[len(ids) + 1] else []

    monkeypatch.setattr(Speculation, "draft", guess)
    sampler = Sampler(GREEDY)
    ids = list(PROMPT)
    for _ in range(4):
        ids.append(await bench.generator.next_token(ids, sampler))
    assert value(metrics, names.GUESSED_TOKENS, model="tiny") == 2
    assert value(metrics, names.ACCEPTED_TOKENS, model="tiny") == 1


async def test_edits_of_a_clients_map_are_counted_by_what_came_of_them(
    swarm: Bench, metrics: Metrics, tmp_path: Path, nursery: trio.Nursery
) -> None:
    path = tmp_path / "map.json"
    taken: list[BlocksMap] = []

    class Taker:
        blocks_map = swarm.swarm.blocks_map

        def use_map(self, blocks_map: BlocksMap, *, fresh: bool = False) -> None:
            taken.append(blocks_map)

    path.write_text("{")
    taker = MapTaker(path, "tiny", 4, Taker(), lambda line: None, meter=metrics)
    nursery.start_soon(taker.follow)
    with trio.fail_after(20):
        while not value(metrics, names.MAP_EDITS, outcome="rejected"):  # noqa: ASYNC110
            await trio.sleep(0.02)
    path.write_text(json.dumps(MAP))
    with trio.fail_after(20):
        while not value(metrics, names.MAP_EDITS, outcome="taken"):  # noqa: ASYNC110
            await trio.sleep(0.02)
    assert len(taken) == 1
