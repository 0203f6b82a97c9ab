"""A server serves what its map gives it, while the map changes."""

from __future__ import annotations

import gc
import json
import threading
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import trio

from gptnode.errors import GptNodeError, MapError, MismatchError, PeerBusyError, UsageError
from gptnode.node.block_keeper import BlockKeeper
from gptnode.node.block_server import BlockServer
from gptnode.node.budget import KVBudget
from gptnode.node.compute import ComputeLane
from gptnode.node.config import ServeConfig
from gptnode.node.loading import ModelSource
from gptnode.node.tensors import ids_to_wire
from gptnode.routing.blocks_map import BlocksMap, parse_blocks_map
from gptnode.routing.entries import NO_ENDS, PlacedEnds
from gptnode.span import Span
from gptnode.wire.messages import Draw, Step
from tests.routing.ids import ANNA, BEN
from tests.tiny_llama import write_tiny_llama

from .conftest import MemoryHost
from .test_block_server import hidden, open_for, opening, session, step

Kept = tuple[BlockKeeper, BlockServer]
ADDR = "/ip4/127.0.0.1/tcp/1"
GREEDY = Draw(0.0, 0, 1.0, 0.0, 1.0, 0)


def map_of(
    folder: Path, blocks: str | None, *, ends: PlacedEnds = NO_ENDS, **model: Any
) -> BlocksMap:
    """ben serves all of the model, anna these blocks; both with the ends that go with them."""
    served = [("0-3", "ben"), *((part, "anna") for part in (blocks or "").split())]
    routes = [
        {
            "model": "tiny",
            "blocks": part,
            "embed": ends.within(Span.parse(part), 4).embed,
            "head": ends.within(Span.parse(part), 4).head,
            "peers": [name],
        }
        for part, name in served
    ]
    document = {
        "models": [{"name": "tiny", "path": str(folder), "dtype": "f32", **model}],
        "peers": [
            {"name": "anna", "id": ANNA, "addrs": [ADDR]},
            {"name": "ben", "id": BEN, "addrs": [ADDR]},
        ],
        "routes": routes,
    }
    return parse_blocks_map(json.dumps(document))


@pytest.fixture
def keep(lane: ComputeLane) -> Callable[[], Kept]:
    """Makes a server without blocks, and its keeper."""

    def make(model_dir: Path | None = None) -> Kept:
        server = BlockServer(lane, KVBudget(1 << 24, 8), epoch=7)
        config = ServeConfig(map_path=Path("m"), identity_path=Path("i"), model_dir=model_dir)
        return BlockKeeper(config, ANNA, lane, server), server

    return make


@asynccontextmanager
async def keeping(
    keeper: BlockKeeper, first: BlocksMap
) -> AsyncIterator[Callable[[BlocksMap], Any]]:
    """The keeper at work, with ``first`` served; what it yields asks for another map and waits."""
    settled = trio.Event()

    def note() -> None:
        settled.set()

    async def want(blocks_map: BlocksMap) -> None:
        nonlocal settled
        settled = trio.Event()
        keeper.want(blocks_map)
        with trio.fail_after(10):
            await settled.wait()

    keeper.open_first(first)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keeper.run, note)
        with trio.fail_after(10):
            await settled.wait()
        yield want
        nursery.cancel_scope.cancel()


def spans(keeper: BlockKeeper) -> list[str]:
    return [str(span) for _, found in keeper.served() for span in found]


async def test_new_blocks_are_served_and_compute_what_they_should(
    keep: Callable[[], Kept], host: MemoryHost, source: ModelSource, tiny_model: Path
) -> None:
    keeper, server = keep()
    host.servers["anna"] = server
    async with keeping(keeper, map_of(tiny_model, "0-1")) as want:
        assert spans(keeper) == ["0-1"]
        assert isinstance(await opening(host, open_for(source)), MismatchError)
        await want(map_of(tiny_model, "0-3"))
        assert spans(keeper) == ["0-3"]
        stack = source.load_blocks(Span(0, 4))
        async with session(host, "anna", open_for(source)) as (channel, _):
            x = hidden(5)
            assert torch.equal(await step(channel, 0, x), stack(x, stack.new_cache(8)))


async def test_a_session_goes_on_while_blocks_are_loaded_and_dropped(
    keep: Callable[[], Kept], host: MemoryHost, source: ModelSource, tiny_model: Path
) -> None:
    keeper, server = keep()
    host.servers["anna"] = server
    stack = source.load_blocks(Span(0, 2))
    cache = stack.new_cache(16)
    async with (
        keeping(keeper, map_of(tiny_model, "0-1")) as want,
        session(host, "anna", open_for(source, Span(0, 2))) as (channel, _),
    ):
        for position, blocks in enumerate(["0-1", "0-3", "2-3", None, "0-3"]):
            await want(map_of(tiny_model, blocks))
            x = hidden(1, seed=position)
            assert torch.equal(await step(channel, position, x), stack(x, cache))


async def test_dropped_blocks_can_not_be_opened_and_the_kept_ones_can(
    keep: Callable[[], Kept], host: MemoryHost, source: ModelSource, tiny_model: Path
) -> None:
    keeper, server = keep()
    host.servers["anna"] = server
    async with keeping(keeper, map_of(tiny_model, "0-3")) as want:
        await want(map_of(tiny_model, "0 3"))
        assert spans(keeper) == ["0", "3"]
        assert isinstance(await opening(host, open_for(source, Span(1, 2))), MismatchError)
        async with session(host, "anna", open_for(source, Span(3, 4))) as (channel, _):
            await step(channel, 0, hidden(1))
        await want(map_of(tiny_model, None))
        assert keeper.served() == ()
        assert isinstance(await opening(host, open_for(source, Span(3, 4))), MismatchError)


async def test_the_memory_of_dropped_blocks_is_free_when_their_last_session_ends(
    keep: Callable[[], Kept], host: MemoryHost, source: ModelSource, tiny_model: Path
) -> None:
    keeper, server = keep()
    host.servers["anna"] = server
    async with keeping(keeper, map_of(tiny_model, "0-3")) as want:
        block = weakref.ref(server.models["tiny"].stacks[0].blocks[3].input_layernorm.weight)
        async with session(host, "anna", open_for(source)) as (channel, _):
            await step(channel, 0, hidden(2))
            await want(map_of(tiny_model, "0-1"))
            gc.collect()
            assert block() is not None
            await step(channel, 2, hidden(1))
        with trio.fail_after(5):
            while server._streams:  # noqa: ASYNC110
                await trio.sleep(0.001)
            while block() is not None:  # the lane's thread may be on its way out of the last step
                await trio.sleep(0.001)
                gc.collect()
        assert len(server.models["tiny"].stacks[0].blocks) == 2


async def test_blocks_that_are_kept_are_not_loaded_again(
    keep: Callable[[], Kept], tiny_model: Path
) -> None:
    keeper, server = keep()
    async with keeping(keeper, map_of(tiny_model, "1-2")) as want:
        before = server.models["tiny"].stacks[0].blocks
        await want(map_of(tiny_model, "0-3", template="chatml", stop=["x"]))
        assert server.models["tiny"].stacks[0].blocks[1:3] == before


async def test_ends_are_loaded_and_dropped_with_edits_of_the_map(
    keep: Callable[[], Kept], host: MemoryHost, source: ModelSource, tiny_model: Path
) -> None:
    keeper, server = keep()
    host.servers["anna"] = server
    thin = {"embed": True, "head": True}
    async with keeping(keeper, map_of(tiny_model, "0-3")) as want:
        assert isinstance(await opening(host, open_for(source, **thin)), MismatchError)
        await want(map_of(tiny_model, "0-3", ends=PlacedEnds(True, True)))
        async with session(host, "anna", open_for(source, **thin)) as (channel, _):
            request = Step(0, ids_to_wire([1, 2, 3], (1, 3)), GREEDY)
            before = await channel.request(request, timeout_s=5)
            assert before.hidden.shape == (1, 1)
            await want(map_of(tiny_model, "0-3", ends=PlacedEnds(head=True)))
            assert isinstance(await opening(host, open_for(source, **thin)), MismatchError)
            assert server.models["tiny"].embedding is None
            assert server.models["tiny"].heads is not None
            again = await channel.request(request, timeout_s=5)
            assert again.hidden == before.hidden  # a session keeps what it was opened with
        await want(map_of(tiny_model, "1-2", ends=PlacedEnds(True, True)))
        assert server.models["tiny"].heads is None
    assert isinstance(await opening(host, open_for(source, Span(1, 3), embed=True)), MismatchError)


async def test_a_tied_head_shares_the_memory_of_the_embedding(
    keep: Callable[[], Kept], tmp_path: Path
) -> None:
    folder = write_tiny_llama(tmp_path / "tied", vocab_size=64)
    config = json.loads((folder / "config.json").read_text()) | {"tie_word_embeddings": True}
    (folder / "config.json").write_text(json.dumps(config))
    keeper, server = keep()
    async with keeping(keeper, map_of(folder, "0-3", ends=PlacedEnds(head=True))) as want:
        for ends in (PlacedEnds(True, True), PlacedEnds(head=True), PlacedEnds(True, True)):
            await want(map_of(folder, "0-3", ends=ends))
            served = server.models["tiny"]
            assert served.heads is not None
            assert (served.embedding is not None) == ends.embed
            if served.embedding is not None:
                assert served.heads.head.weight is served.embedding.weight


async def test_a_map_that_comes_while_blocks_are_loaded_is_the_one_that_counts(
    keep: Callable[[], Kept], lane: ComputeLane, tiny_model: Path
) -> None:
    keeper, server = keep()
    async with keeping(keeper, map_of(tiny_model, "0")) as want:
        hold = threading.Event()
        lane.run_soon(hold.wait)
        keeper.want(map_of(tiny_model, "0-3"))
        await trio.sleep(0.01)
        assert server.loading
        hold.set()
        await want(map_of(tiny_model, "0 2"))
        assert spans(keeper) == ["0", "2"]
        assert not server.loading


async def test_who_asks_for_blocks_that_are_being_loaded_is_told_to_come_back(
    keep: Callable[[], Kept],
    lane: ComputeLane,
    host: MemoryHost,
    source: ModelSource,
    tiny_model: Path,
) -> None:
    keeper, server = keep()
    host.servers["anna"] = server
    async with keeping(keeper, map_of(tiny_model, "0")):
        hold = threading.Event()
        lane.run_soon(hold.wait)
        keeper.want(map_of(tiny_model, "0-3"))
        try:
            await trio.sleep(0.01)
            assert isinstance(await opening(host, open_for(source)), PeerBusyError)
        finally:
            hold.set()


async def test_while_a_model_is_loaded_in_another_dtype_the_old_one_is_not_opened_any_more(
    keep: Callable[[], Kept],
    lane: ComputeLane,
    host: MemoryHost,
    source: ModelSource,
    tiny_model: Path,
) -> None:
    keeper, server = keep()
    host.servers["anna"] = server
    async with keeping(keeper, map_of(tiny_model, "0-3")):
        hold = threading.Event()
        lane.run_soon(hold.wait)
        keeper.want(map_of(tiny_model, "0-3", dtype="bf16"))
        try:
            with trio.fail_after(5):
                while keeper.served():  # noqa: ASYNC110
                    await trio.sleep(0.001)
            for dtype in ("f32", "bf16"):
                refusal = await opening(host, open_for(source, dtype=dtype))
                assert isinstance(refusal, PeerBusyError)
        finally:
            hold.set()


async def test_another_dtype_is_another_model(keep: Callable[[], Kept], tiny_model: Path) -> None:
    keeper, server = keep()
    async with keeping(keeper, map_of(tiny_model, "0-3")) as want:
        await want(map_of(tiny_model, "0-3", dtype="bf16"))
        assert server.models["tiny"].source.key.dtype_name == "bf16"
        assert server.models["tiny"].stacks[0].dtype == torch.bfloat16


async def test_what_can_not_be_loaded_is_told_and_what_was_served_goes_on(
    keep: Callable[[], Kept], tiny_model: Path, tmp_path: Path
) -> None:
    keeper, server = keep()
    async with keeping(keeper, map_of(tiny_model, "0-3")) as want:
        await want(map_of(tmp_path / "gone", "0-3"))
        assert len(keeper.problems) == 1
        assert "no such model folder" in keeper.problems[0]
        assert spans(keeper) == ["0-3"]
        assert not server.loading
        await want(map_of(tiny_model, "0-1"))
        assert keeper.problems == ()
        assert spans(keeper) == ["0-1"]


async def test_a_map_that_routes_more_blocks_than_the_model_has_is_refused(
    keep: Callable[[], Kept], tiny_model: Path
) -> None:
    keeper, _ = keep()
    async with keeping(keeper, map_of(tiny_model, "0-3")):
        with pytest.raises(MapError, match=r"routes\[1\]"):
            keeper.check(map_of(tiny_model, "0-7"))
        keeper.check(map_of(tiny_model, "0-2"))


@pytest.mark.parametrize(
    ("blocks", "changes", "says"),
    [
        (None, {}, "routes: none gives blocks to this node"),
        ("0-7", {}, r"routes\[1\]"),
        ("0-3", {"path": "/nowhere"}, "no such model folder"),
        ("0-3", {"path": None}, "has no path"),
    ],
)
def test_a_server_does_not_start_with_a_map_that_it_can_not_serve(
    keep: Callable[[], Kept],
    tiny_model: Path,
    blocks: str | None,
    changes: dict[str, Any],
    says: str,
) -> None:
    keeper, _ = keep()
    with pytest.raises(GptNodeError, match=says):
        keeper.open_first(map_of(tiny_model, blocks, **changes))


def test_one_folder_is_not_several_models(keep: Callable[..., Kept], tiny_model: Path) -> None:
    keeper, _ = keep(tiny_model)
    document = {
        "models": [{"name": "a"}, {"name": "b"}],
        "peers": [{"name": "anna", "id": ANNA, "addrs": [ADDR]}],
        "routes": [{"model": name, "blocks": "0-3", "peers": ["anna"]} for name in "ab"],
    }
    with pytest.raises(UsageError, match="several: a, b"):
        keeper.open_first(parse_blocks_map(json.dumps(document)))


def test_a_node_that_is_no_peer_of_the_map_does_not_start(
    keep: Callable[..., Kept], tiny_model: Path
) -> None:
    keeper, _ = keep()
    document = {
        "models": [{"name": "tiny", "path": str(tiny_model)}],
        "peers": [{"id": BEN, "addrs": [ADDR]}],
        "routes": [{"blocks": "0-3", "peers": [BEN]}],
    }
    with pytest.raises(MapError, match="this node"):
        keeper.open_first(parse_blocks_map(json.dumps(document)))
