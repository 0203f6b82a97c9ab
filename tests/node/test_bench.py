"""Measuring: what runs, in which order, and what is counted."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import trio
from safetensors import safe_open

from gptnode.errors import ModelFileError, StreamLostError, UsageError
from gptnode.node import bench as bench_module
from gptnode.node import generator as generator_module
from gptnode.node.allow_list import AllowList
from gptnode.node.bench import Advance, BenchPlan, measure
from gptnode.node.bench_report import BenchReport, MeasuredHop
from gptnode.node.block_server import BlockServer
from gptnode.node.compute import ComputeLane
from gptnode.node.config import ClientConfig
from gptnode.node.ends import Ends, OwnEnds
from gptnode.node.generator import Generator
from gptnode.node.joint_stage import JointStage
from gptnode.node.loading import ModelSource
from gptnode.node.opened_model import OpenedModel
from gptnode.node.runtime import Engine
from gptnode.node.served_context import ServedContext
from gptnode.node.stages import LocalStage
from gptnode.node.swarm import Swarm
from gptnode.span import Span
from tests.tiny_llama import D_MODEL, write_tiny_llama

from .benches import make_map
from .conftest import MemoryHost

VOCAB = 64
MAX_POSITIONS = 96
CHUNK = 8

Steps = list[tuple[int, int]]
"""Position and number of tokens of each step that went through a pipeline."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights and config.json: no tokenizer, no template."""
    return write_tiny_llama(
        tmp_path_factory.mktemp("models") / "bare", VOCAB, max_positions=MAX_POSITIONS
    )


@pytest.fixture
def config(folder: Path) -> ClientConfig:
    return ClientConfig(model_dir=folder, threads=1)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    """What goes through the pipelines, in chunks of CHUNK tokens."""
    taken: Steps = []
    forward = LocalStage.forward

    async def recorded(self: LocalStage, hidden: torch.Tensor, position: int) -> torch.Tensor:
        taken.append((position, hidden.shape[1]))
        return await forward(self, hidden, position)

    monkeypatch.setattr(LocalStage, "forward", recorded)
    monkeypatch.setattr(generator_module, "PREFILL_CHUNK_TOKENS", CHUNK)
    monkeypatch.setattr(bench_module, "PREFILL_CHUNK_TOKENS", CHUNK)
    return taken


def no_report(line: str) -> None:
    raise AssertionError(line)


async def measured(config: ClientConfig, **plan: int) -> BenchReport:
    return await measure(config, BenchPlan(**plan), report=no_report)


async def test_a_folder_without_a_tokenizer_can_be_measured(config: ClientConfig) -> None:
    report = await measured(config, prompt_tokens=20, tokens=5)
    assert report.model == "bare"
    assert report.dtype == "f32"
    assert report.threads == 1
    assert report.hops == (MeasuredHop("local", None, Span(0, 4)),)


async def test_the_runs_are_what_the_plan_says(config: ClientConfig) -> None:
    report = await measured(config, prompt_tokens=20, tokens=5, context_tokens=40, repeat=3)
    assert [run.prefill.tokens for run in report.runs] == [20, 20, 20]
    assert [len(run.steps) for run in report.runs] == [5, 5, 5]
    assert {step.tokens for run in report.runs for step in run.steps} == {1}
    assert report.context_tokens == 40


async def test_the_parts_of_each_token_add_up_to_its_time(config: ClientConfig) -> None:
    report = await measured(config, prompt_tokens=20, tokens=5, repeat=2)
    for token in (token for run in report.runs for token in (run.prefill, *run.steps)):
        parts_s = token.client.total_s + sum(hop.total_s for hop in token.hops)
        assert parts_s == pytest.approx(token.total_s)
        assert token.hops[0].compute_s > 0
        assert token.client.compute_s > 0


@pytest.mark.parametrize("context", [3, CHUNK, 20, 21, 27, 28, 29, 60])
async def test_decoding_begins_where_the_context_was_asked_to_end(
    config: ClientConfig, steps: Steps, context: int
) -> None:
    report = await measured(config, prompt_tokens=20, tokens=4, context_tokens=context)
    assert steps[-4:] == [(context + i, 1) for i in range(4)]
    assert report.context_tokens == context
    assert max(tokens for _, tokens in steps) <= CHUNK


async def test_without_a_context_decoding_goes_on_from_the_prefill(
    config: ClientConfig, steps: Steps
) -> None:
    await measured(config, prompt_tokens=20, tokens=3)
    assert steps[-6:] == [(0, 8), (8, 8), (16, 4), (20, 1), (21, 1), (22, 1)]


@pytest.mark.parametrize("prompt", [1, 5, 8, 16, 21])
async def test_every_shape_that_is_measured_was_warmed_up_before(
    config: ClientConfig, steps: Steps, prompt: int
) -> None:
    await measured(config, prompt_tokens=prompt, tokens=2)
    begin = max(i for i, (position, _) in enumerate(steps) if position == 0)
    before, counted = steps[:begin], steps[begin:]
    assert {tokens for _, tokens in counted} == {tokens for _, tokens in before}
    assert sum(tokens for _, tokens in counted) == prompt + 2


async def test_each_run_prefills_into_empty_caches(config: ClientConfig, steps: Steps) -> None:
    await measured(config, prompt_tokens=20, tokens=1, repeat=3)
    run = [(0, 8), (8, 8), (16, 4), (20, 1)]
    assert steps[-12:] == run * 3


async def test_two_measurements_take_the_same_steps(
    config: ClientConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[int]] = []
    next_token = Generator.next_token

    async def recorded(self: Generator, ids: list[int], sampler: object) -> int:
        asked.append(list(ids))
        return await next_token(self, ids, sampler)  # type: ignore[arg-type]

    monkeypatch.setattr(Generator, "next_token", recorded)
    await measured(config, prompt_tokens=20, tokens=6)
    first, asked[:] = list(asked), []
    await measured(config, prompt_tokens=20, tokens=6)
    assert asked == first


async def test_memory_is_that_of_weights_and_caches_at_the_end(
    config: ClientConfig, folder: Path
) -> None:
    report = await measured(config, prompt_tokens=20, tokens=5)
    with safe_open(folder / "model.safetensors", "pt") as file:
        stored = sum(file.get_tensor(name).nbytes for name in file.keys())  # noqa: SIM118
    assert report.weight_bytes == stored
    kv_bytes_a_token = 2 * 4 * 16 * 4  # keys and values, 4 blocks, 16 wide, f32
    assert report.kv_bytes >= 25 * kv_bytes_a_token
    assert report.resident_bytes > report.weight_bytes


@pytest.mark.parametrize(
    ("plan", "named"),
    [
        (BenchPlan(prompt_tokens=97), "97"),
        (BenchPlan(prompt_tokens=90, tokens=7), "97"),
        (BenchPlan(prompt_tokens=1, tokens=10, context_tokens=90), "100"),
    ],
    ids=["prompt", "steps", "context"],
)
async def test_more_than_the_model_allows_is_said_before_weights_are_loaded(
    plan: BenchPlan, named: str, config: ClientConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(bench_module, "open_engine")
    with pytest.raises(UsageError, match=rf"{named}.*{MAX_POSITIONS}"):
        await measure(config, plan, report=no_report)


async def test_all_of_the_models_context_can_be_used(config: ClientConfig) -> None:
    report = await measured(config, prompt_tokens=MAX_POSITIONS, tokens=6, context_tokens=90)
    assert len(report.steps_s) == 6


async def test_a_folder_that_is_not_there_is_an_error_of_the_model(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="no such model folder"):
        await measured(ClientConfig(model_dir=tmp_path / "missing"))


async def test_progress_names_every_phase_in_order(config: ClientConfig, steps: Steps) -> None:
    seen: list[Advance] = []
    plan = BenchPlan(prompt_tokens=8, tokens=2, context_tokens=30)
    await measure(config, plan, report=no_report, progress=seen.append)
    phases = list(dict.fromkeys(advance.phase for advance in seen))
    assert phases == ["warm-up", "prefill", "filling the context", "decode"]
    assert all(0 <= advance.done_tokens <= advance.total_tokens for advance in seen)


# --- over a swarm ---------------------------------------------------------------------------------


@pytest.fixture
def swarm_config(
    source: ModelSource,
    lane: ComputeLane,
    nursery: trio.Nursery,
    host: MemoryHost,
    make_server: Callable[..., BlockServer],
    monkeypatch: pytest.MonkeyPatch,
) -> ClientConfig:
    """anna has blocks 0-1, ben and cleo 2-3; what is measured goes over them."""
    blocks_map = make_map(("0-1", ("anna",)), ("2-3", ("ben", "cleo")))
    host.servers["anna"] = make_server(Span(0, 2))
    host.servers["ben"] = make_server(Span(2, 4))
    host.servers["cleo"] = make_server(Span(2, 4))

    @asynccontextmanager
    async def open_engine(
        model: OpenedModel, config: ClientConfig, *, report: Callable[[str], None]
    ) -> AsyncIterator[Engine]:
        swarm = Swarm(
            source,
            lane,
            nursery,
            report,
            AllowList(blocks_map),
            blocks_map=blocks_map,
            host=host,  # type: ignore[arg-type]
        )
        ends = OwnEnds(source, lane)
        await ends.load()
        assert config.context_tokens is not None
        generator = Generator(Ends(ends), swarm, max_tokens=config.context_tokens)
        yield Engine(source, ends, generator, swarm, lane, host.peer_id, host)  # type: ignore[arg-type]
        await generator.forget()

    monkeypatch.setattr(
        bench_module, "find_model", lambda config: OpenedModel(source, blocks_map, None)
    )
    monkeypatch.setattr(bench_module, "open_engine", open_engine)
    return ClientConfig()


def ignore(line: str) -> None:
    """Where peers are dialled."""


async def test_over_a_swarm_each_peer_is_a_hop_with_all_four_parts(
    swarm_config: ClientConfig,
) -> None:
    plan = BenchPlan(prompt_tokens=20, tokens=5)
    report = await measure(swarm_config, plan, report=ignore)
    assert report.hops == (
        MeasuredHop("anna", "anna", Span(0, 2)),
        MeasuredHop("ben", "ben", Span(2, 4)),
    )
    for token in (token for run in report.runs for token in (run.prefill, *run.steps)):
        parts_s = token.client.total_s + sum(hop.total_s for hop in token.hops)
        assert parts_s == pytest.approx(token.total_s)
        for hop in token.hops:
            assert min(hop.queue_s, hop.compute_s, hop.serialise_s, hop.wire_s) > 0


async def test_what_peers_hold_is_not_counted_here(swarm_config: ClientConfig) -> None:
    plan = BenchPlan(prompt_tokens=20, tokens=2)
    report = await measure(swarm_config, plan, report=ignore)
    assert report.kv_bytes == 0
    assert report.weight_bytes == (2 * VOCAB + 1) * D_MODEL * 4  # embedding, head, final norm


@pytest.fixture
def lose_ben(
    swarm_config: ClientConfig, host: MemoryHost, monkeypatch: pytest.MonkeyPatch
) -> Callable[[int], None]:
    """Makes ben die in the middle of the step with that number."""
    serve_step = ServedContext.step
    ben = host.servers["ben"]
    fatal, served = 0, 0

    async def counted(self: ServedContext, *args: Any) -> object:
        nonlocal served
        served += (at_ben := self._batcher is ben._batcher)
        if at_ben and served == fatal:
            host.kill("ben")
            await trio.sleep_forever()
        return await serve_step(self, *args)

    def arm(step: int) -> None:
        nonlocal fatal
        fatal = step

    monkeypatch.setattr(ServedContext, "step", counted)
    return arm


@pytest.mark.parametrize("step", [6, 12], ids=["prefill", "decode"])
async def test_a_peer_that_is_lost_while_it_is_measured_spoils_the_measurement(
    swarm_config: ClientConfig, lose_ben: Callable[[int], None], step: int
) -> None:
    lose_ben(step)  # the warm-up takes five
    with pytest.raises(StreamLostError, match="measure again"):
        await measure(swarm_config, BenchPlan(prompt_tokens=4, tokens=20), report=ignore)


async def test_a_peer_that_is_lost_before_is_not_missed(
    swarm_config: ClientConfig, lose_ben: Callable[[int], None]
) -> None:
    lose_ben(3)
    report = await measure(swarm_config, BenchPlan(prompt_tokens=4, tokens=6), report=ignore)
    assert [hop.label for hop in report.hops] == ["anna", "cleo"]
    assert {step.attempts for run in report.runs for step in run.steps} == {1}


# --- several users at once ------------------------------------------------------------------------


async def test_each_user_has_a_run_of_its_own_and_all_together_are_counted(
    config: ClientConfig,
) -> None:
    report = await measured(config, prompt_tokens=20, tokens=5, users=3, repeat=2)
    assert report.users == 3
    assert report.hops == (MeasuredHop("local", None, Span(0, 4)),)
    assert len(report.runs) == 3 * 2
    assert [run.prefill.tokens for run in report.runs] == [20] * 6
    assert {len(run.steps) for run in report.runs} == {5}
    assert len(report.together) == 2
    kv_bytes_a_token = 2 * 4 * 16 * 4
    assert report.kv_bytes >= 3 * 25 * kv_bytes_a_token
    for run in report.runs[:3]:
        assert sum(step.total_s for step in run.steps) <= report.together[0].decode_s
        assert run.prefill.total_s <= report.together[0].prefill_s


async def test_tokens_per_second_of_several_users_are_those_of_all(config: ClientConfig) -> None:
    report = await measured(config, prompt_tokens=8, tokens=4, users=2)
    (both,) = report.together
    assert report.decode_tokens_per_s == pytest.approx(2 * 4 / both.decode_s)
    assert report.prefill_tokens_per_s == pytest.approx(2 * 8 / both.prefill_s)


async def test_several_users_decode_from_the_context_that_was_asked_for(
    config: ClientConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: Steps = []
    forward = JointStage.forward

    async def recorded(self: JointStage, hidden: torch.Tensor, position: int) -> torch.Tensor:
        taken.append((position, hidden.shape[1]))
        return await forward(self, hidden, position)

    monkeypatch.setattr(JointStage, "forward", recorded)
    report = await measured(config, prompt_tokens=20, tokens=3, users=2, context_tokens=40)
    assert sorted(taken[-6:]) == sorted([(40 + i, 1) for i in range(3)] * 2)
    assert report.context_tokens == 40


async def test_over_a_swarm_each_user_has_sessions_of_its_own(
    swarm_config: ClientConfig, host: MemoryHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    most: dict[str, int] = {}
    serve_step = ServedContext.step

    async def counted(self: ServedContext, *args: Any) -> object:
        for name in ("anna", "ben"):
            server = host.servers[name]
            if self._batcher is server._batcher:
                most[name] = max(most.get(name, 0), server._budget.total.sessions)
        return await serve_step(self, *args)

    monkeypatch.setattr(ServedContext, "step", counted)
    plan = BenchPlan(prompt_tokens=20, tokens=5, users=4)
    report = await measure(swarm_config, plan, report=ignore)
    assert most == {"anna": 4, "ben": 4}
    assert [hop.label for hop in report.hops] == ["anna", "ben"]
    for step in (step for run in report.runs for step in run.steps):
        parts_s = step.client.total_s + sum(hop.total_s for hop in step.hops)
        assert parts_s == pytest.approx(step.total_s)


async def test_a_peer_that_is_lost_under_several_users_spoils_the_measurement(
    swarm_config: ClientConfig, lose_ben: Callable[[int], None]
) -> None:
    lose_ben(12)
    plan = BenchPlan(prompt_tokens=4, tokens=20, users=2)
    with pytest.raises(StreamLostError, match="measure again"):
        await measure(swarm_config, plan, report=ignore)
