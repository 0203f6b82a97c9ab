"""Activations that travel in 8 bit: the same tokens on every way through the same hops."""

from __future__ import annotations

from pathlib import Path

import pytest

from gptnode.errors import UsageError
from gptnode.model.native.binding import kernels
from gptnode.model.sampler import Sampling
from gptnode.node.compute import ComputeLane
from gptnode.node.config import ClientConfig
from gptnode.node.draft_length import DraftLength
from gptnode.node.drafting import give_draft, load_draft
from gptnode.node.loading import (
    ModelSource,
    folder_paths,
    open_device,
    open_model,
    with_activations,
)
from gptnode.node.opened_model import find_model
from gptnode.node.served_context import ServedContext
from gptnode.wire.messages import Draw, Stepped, WireTensor

from .benches import PROMPT, Bench, SwarmOf
from .conftest import MemoryHost

SAMPLED = Sampling(temperature=0.8, seed=5)
HALVES = (("0-1", ("anna",)), ("2-3", ("ben", "cleo")))

needs_kernels = pytest.mark.skipif(kernels is None, reason="the kernels aren't built here")


@pytest.fixture
def source(tiny_model: Path) -> ModelSource:
    """The tiny model in bf16, for a client that wants 8 bit."""
    model = open_model("tiny", folder_paths(tiny_model), "bf16", open_device("cpu"))
    return with_activations(model, "int8")


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[WireTensor]:
    """What servers were given and gave."""
    seen: list[WireTensor] = []
    step = ServedContext.step

    async def noted(
        context: ServedContext, position: int, given: WireTensor, draw: Draw | None = None
    ) -> Stepped:
        answer = await step(context, position, given, draw)
        seen.extend((given, answer.hidden))
        return answer

    monkeypatch.setattr(ServedContext, "step", noted)
    return seen


@pytest.mark.parametrize("rings", [False, True])
async def test_everything_travels_in_8_bit(
    swarm_of: SwarmOf, sent: list[WireTensor], whole: Bench, rings: bool
) -> None:
    said = await swarm_of(*HALVES, rings=rings).greedy(PROMPT, 6)
    assert len(said) == len(PROMPT) + 6
    assert {tensor.dtype for tensor in sent} == {"int8"}
    assert all(len(tensor.data) == tensor.shape[1] * (32 + 4) for tensor in sent)
    ours = await whole.greedy(PROMPT, 6)  # nothing travels
    assert len(ours) == len(said)


async def test_a_row_is_rounded_once_whether_it_comes_through_the_client_or_not(
    swarm_of: SwarmOf, sent: list[WireTensor]
) -> None:
    star = await swarm_of(*HALVES, rings=False).sampled(PROMPT, 40, SAMPLED)
    through_client = [bytes(tensor.data) for tensor in sent]
    sent.clear()
    ring = await swarm_of(*HALVES, rings=True).sampled(PROMPT, 40, SAMPLED)
    assert ring == star
    assert [bytes(tensor.data) for tensor in sent] == through_client
    handed_on = zip(through_client[1::4], through_client[2::4], strict=True)
    assert all(given == taken for given, taken in handed_on)


@pytest.mark.parametrize("rings", [False, True])
async def test_a_replica_that_takes_over_is_given_the_same_and_says_the_same(
    swarm_of: SwarmOf, host: MemoryHost, rings: bool
) -> None:
    undisturbed = await swarm_of(*HALVES, rings=rings).greedy(PROMPT, 40)
    swarm = swarm_of(*HALVES, rings=rings)
    begun = await swarm.greedy(PROMPT, 17)
    host.kill("ben")
    assert await swarm.greedy(begun, 23) == undisturbed
    assert swarm.swarm.hops()[1].label == "cleo"


@needs_kernels
@pytest.mark.parametrize("rings", [False, True])
async def test_guesses_change_no_token(
    swarm_of: SwarmOf,
    source: ModelSource,
    lane: ComputeLane,
    monkeypatch: pytest.MonkeyPatch,
    rings: bool,
) -> None:
    monkeypatch.setattr(DraftLength, "best", lambda length: 3)
    guessing = swarm_of(*HALVES, rings=rings, speculate=True)
    plain = swarm_of(*HALVES, rings=rings)
    speculation = guessing.generator.speculation
    assert speculation is not None
    # The model itself, without rounding in between: often right, and not always.
    give_draft(speculation, await load_draft(source, lane), source.config, 1024, pytest.fail)
    for sampling in (Sampling(temperature=0.0), SAMPLED):
        said = await guessing.sampled(PROMPT, 60, sampling)
        assert said == await plain.sampled(PROMPT, 60, sampling)
    assert 0 < speculation.right < speculation.guessed


async def test_honest_peers_agree(swarm_of: SwarmOf) -> None:
    swarm = swarm_of(("0-1", ("anna", "dora")), ("2-3", ("ben", "cleo")), verify=1.0)
    await swarm.greedy(PROMPT, 12)
    assert swarm.swarm.verifier.tally.compared == 24
    assert swarm.swarm.verifier.tally.wrong == 0
    assert not any("differ" in line for line in swarm.reports)


def test_activations_that_are_not_bf16_travel_as_they_are(tiny_model: Path) -> None:
    for form in ("int8", "bf16"):
        config = ClientConfig(model_dir=tiny_model, dtype="f32", activations=form)
        with pytest.raises(UsageError, match="are f32 and travel so"):
            find_model(config)
    assert not find_model(ClientConfig(model_dir=tiny_model, dtype="f32")).source.key.scaled
    forms: dict[str | None, bool] = {None: False, "bf16": False, "int8": True}
    for dtype in ("bf16", "int8", "int4"):
        for chosen, scaled in forms.items():
            config = ClientConfig(model_dir=tiny_model, dtype=dtype, activations=chosen)
            assert find_model(config).source.key.scaled is scaled
