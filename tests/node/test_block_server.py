"""The block server, driven over in-memory streams."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import torch
import trio

from gptnode.errors import ContextError, GptNodeError, MismatchError, PeerBusyError, ProtocolError
from gptnode.net.client_channel import ClientChannel
from gptnode.node.block_server import BlockServer, KVBudget, ServedModel
from gptnode.node.compute import ComputeLane
from gptnode.node.loading import ModelSource, folder_paths, open_model
from gptnode.node.tensors import from_wire, to_wire
from gptnode.span import Span
from gptnode.wire.limits import chunk_bytes
from gptnode.wire.messages import Open, Opened, Step, Truncate, WireTensor

from .conftest import MemoryHost

D = 32
ALL = Span(0, 4)
CPU = torch.device("cpu")
MakeServer = Callable[..., BlockServer]


def open_for(source: ModelSource, span: Span = ALL, **changes: object) -> Open:
    fields = {
        "model": "tiny",
        "fingerprint": source.key.fingerprint,
        "span": span,
        "max_tokens": 128,
        "dtype": "f32",
    }
    return Open(**(fields | changes))  # type: ignore[arg-type]


@asynccontextmanager
async def session(
    host: MemoryHost, peer_id: str, request: Open
) -> AsyncIterator[tuple[ClientChannel, Opened]]:
    channel = ClientChannel(await host.open_stream(peer_id))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(channel.run)
        try:
            opened = await channel.request(request, timeout_s=5)
            channel.raise_limit(chunk_bytes(opened.max_chunk_tokens, D, "f32"))
            yield channel, opened
        finally:
            await channel.aclose()


async def opening(host: MemoryHost, request: Open) -> GptNodeError | None:
    """The error that opening with ``request`` ends in, if it does."""
    channel = ClientChannel(await host.open_stream("anna"))
    error: GptNodeError | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(channel.run)
        try:
            await channel.request(request, timeout_s=5)
        except GptNodeError as raised:
            error = raised
        await channel.aclose()
    return error


def hidden(tokens: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(1, tokens, D, generator=torch.Generator().manual_seed(seed))


async def step(channel: ClientChannel, position: int, x: torch.Tensor) -> torch.Tensor:
    reply = await channel.request(Step(position, to_wire(x)), timeout_s=5)
    return from_wire(reply.hidden, CPU)


async def test_a_session_computes_what_the_blocks_compute(
    host: MemoryHost, make_server: MakeServer, source: ModelSource
) -> None:
    span = Span(1, 3)
    host.servers["anna"] = make_server(span)
    stack = source.load_blocks(span)
    cache = stack.new_cache(16)
    async with session(host, "anna", open_for(source, span)) as (channel, opened):
        assert (opened.span, opened.fingerprint) == (span, source.key.fingerprint)
        for position, tokens in ((0, 5), (5, 1), (6, 1)):
            x = hidden(tokens, seed=position)
            assert torch.equal(await step(channel, position, x), stack(x, cache))


async def test_tensors_become_bytes_in_the_lane(
    host: MemoryHost,
    make_server: MakeServer,
    source: ModelSource,
    lane: ComputeLane,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a GPU the bytes have to be waited for, which the thread of the network must not do."""
    host.servers["anna"] = make_server(ALL)
    threads: list[int] = []

    def noted(x: torch.Tensor, *, scaled: bool) -> WireTensor:
        threads.append(threading.get_ident())
        return to_wire(x, scaled=scaled)

    monkeypatch.setattr("gptnode.node.served_context.to_wire", noted)
    async with session(host, "anna", open_for(source)) as (channel, _):
        await step(channel, 0, hidden(3))
    assert threads == [(await lane.run(threading.get_ident)).value]


async def test_part_of_a_servers_span_can_be_asked_for(
    host: MemoryHost, make_server: MakeServer, source: ModelSource
) -> None:
    host.servers["anna"] = make_server(Span(0, 4))
    part = source.load_blocks(Span(2, 3))
    async with session(host, "anna", open_for(source, Span(2, 3))) as (channel, _):
        x = hidden(4)
        assert torch.equal(await step(channel, 0, x), part(x, part.new_cache(8)))


async def test_two_sessions_of_one_peer_share_no_cache(
    host: MemoryHost, make_server: MakeServer, source: ModelSource
) -> None:
    host.servers["anna"] = make_server(Span(0, 4))
    x, y, one = hidden(6, seed=1), hidden(6, seed=2), hidden(1, seed=3)
    async with session(host, "anna", open_for(source)) as (alone, _):
        await step(alone, 0, x)
        expected = await step(alone, 6, one)
    async with (
        session(host, "anna", open_for(source)) as (first, _),
        session(host, "anna", open_for(source)) as (second, _),
    ):
        await step(first, 0, x)
        await step(second, 0, y)
        assert torch.equal(await step(first, 6, one), expected)


async def test_a_step_may_be_repeated_and_gives_the_same(
    host: MemoryHost, make_server: MakeServer, source: ModelSource
) -> None:
    host.servers["anna"] = make_server(Span(0, 4))
    async with session(host, "anna", open_for(source)) as (channel, _):
        await step(channel, 0, hidden(5))
        first = await step(channel, 5, hidden(2, seed=9))
        assert torch.equal(await step(channel, 5, hidden(2, seed=9)), first)


async def test_a_step_past_the_caches_end_is_refused(
    host: MemoryHost, make_server: MakeServer, source: ModelSource
) -> None:
    host.servers["anna"] = make_server(Span(0, 4))
    async with session(host, "anna", open_for(source)) as (channel, _):
        await step(channel, 0, hidden(3))
        with pytest.raises(MismatchError, match="the cache ends at 3"):
            await step(channel, 4, hidden(1))


async def test_truncate_forgets_and_the_rest_still_counts(
    host: MemoryHost, make_server: MakeServer, source: ModelSource
) -> None:
    host.servers["anna"] = make_server(Span(0, 4))
    async with session(host, "anna", open_for(source)) as (channel, _):
        await step(channel, 0, hidden(4))
        expected = await step(channel, 4, hidden(1, seed=5))
        assert (await channel.request(Truncate(4), timeout_s=5)).length == 4
        assert torch.equal(await step(channel, 4, hidden(1, seed=5)), expected)
        await channel.request(Truncate(0), timeout_s=5)
        with pytest.raises(MismatchError):
            await step(channel, 4, hidden(1))


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"model": "other"}, MismatchError, "other"),
        ({"fingerprint": "0" * 32}, MismatchError, "fingerprint"),
        ({"dtype": "bf16"}, MismatchError, "f32"),
        ({"span": Span(1, 5)}, MismatchError, "blocks 0-3"),
        ({"max_tokens": 1 << 20}, ContextError, "MiB"),
    ],
)
async def test_what_a_server_can_not_do_is_refused_with_the_reason(
    host: MemoryHost,
    make_server: MakeServer,
    source: ModelSource,
    changes: dict[str, object],
    error: type[GptNodeError],
    says: str,
) -> None:
    host.servers["anna"] = make_server(Span(0, 4), max_bytes=1 << 16)
    refusal = await opening(host, open_for(source, **changes))
    assert isinstance(refusal, error)
    assert says in refusal.detail


async def test_a_loading_server_says_so_and_when_to_come_back(
    host: MemoryHost, make_server: MakeServer, source: ModelSource
) -> None:
    server = host.servers["anna"] = make_server(Span(0, 4))
    server.models.clear()
    server.loading = True
    refusal = await opening(host, open_for(source))
    assert isinstance(refusal, PeerBusyError)
    assert "loading" in refusal.detail
    assert refusal.retry_after_s > 0


async def test_a_full_server_is_busy_until_a_session_ends(
    host: MemoryHost, make_server: MakeServer, source: ModelSource
) -> None:
    host.servers["anna"] = make_server(Span(0, 4), max_sessions=1)
    async with session(host, "anna", open_for(source)):
        assert isinstance(await opening(host, open_for(source)), PeerBusyError)
    async with session(host, "anna", open_for(source)) as (channel, _):
        await step(channel, 0, hidden(1))


async def test_a_lost_stream_gives_the_cache_back(
    host: MemoryHost, make_server: MakeServer, source: ModelSource
) -> None:
    host.servers["anna"] = make_server(Span(0, 4), max_sessions=1)
    stream = await host.open_stream("anna")
    channel = ClientChannel(stream)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(channel.run)
        await channel.request(open_for(source), timeout_s=5)
        await trio.aclose_forcefully(stream)
        nursery.cancel_scope.cancel()
    with trio.fail_after(5):
        while isinstance(await opening(host, open_for(source)), PeerBusyError):  # noqa: ASYNC110
            await trio.sleep(0.01)


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
async def test_numbers_that_are_not_finite_are_refused(
    host: MemoryHost, make_server: MakeServer, source: ModelSource, poison: float
) -> None:
    host.servers["anna"] = make_server(Span(0, 4))
    async with session(host, "anna", open_for(source)) as (channel, _):
        x = hidden(3)
        x[0, 1, 7] = poison
        with pytest.raises(ProtocolError, match="NaN or Inf"):
            await step(channel, 0, x)


@pytest.mark.parametrize("shape", [(2, 3, D), (1, 3, D + 1), (3, D)])
async def test_tensors_of_another_shape_are_refused(
    host: MemoryHost, make_server: MakeServer, source: ModelSource, shape: tuple[int, ...]
) -> None:
    host.servers["anna"] = make_server(Span(0, 4))
    async with session(host, "anna", open_for(source)) as (channel, _):
        with pytest.raises(GptNodeError):
            await step(channel, 0, torch.zeros(shape))


async def test_a_session_that_outgrows_its_room_is_told_so(
    host: MemoryHost, make_server: MakeServer, source: ModelSource
) -> None:
    host.servers["anna"] = make_server(Span(0, 4))
    async with session(host, "anna", open_for(source, max_tokens=4)) as (channel, _):
        await step(channel, 0, hidden(4))
        with pytest.raises(ContextError):
            await step(channel, 4, hidden(1))


@pytest.mark.parametrize("dtype", ["int8", "int4"])
async def test_blocks_with_quantised_weights_take_and_give_bf16(
    dtype: str, host: MemoryHost, lane: ComputeLane, tiny_model: Path
) -> None:
    source = open_model("tiny", folder_paths(tiny_model), dtype, CPU)
    server = BlockServer(lane, KVBudget(1 << 24, 8), epoch=1)
    server.models["tiny"] = ServedModel(source, (source.load_blocks(ALL),))
    server.loading = False
    host.servers["anna"] = server
    stack = source.load_blocks(ALL)
    cache = stack.new_cache(8)
    async with session(host, "anna", open_for(source, dtype=dtype)) as (channel, _):
        for position, tokens in ((0, 3), (3, 1)):
            x = hidden(tokens).bfloat16()
            assert torch.equal(await step(channel, position, x), stack(x, cache))
    error = await opening(host, open_for(source, dtype="bf16"))
    assert isinstance(error, MismatchError)
    assert f"computes tiny in {dtype}, not bf16" in error.detail


@pytest.mark.parametrize("dtype", ["f32", "bf16", "int8"])
async def test_sessions_at_once_are_each_as_if_alone(
    dtype: str, host: MemoryHost, lane: ComputeLane, tiny_model: Path
) -> None:
    """Prompts and steps of eight sessions, over two spans, in whatever order they come."""
    source = open_model("tiny", folder_paths(tiny_model), dtype, CPU)
    server = BlockServer(lane, KVBudget(1 << 24, 8), epoch=1)
    server.models["tiny"] = ServedModel(source, (source.load_blocks(ALL),))
    server.loading = False
    host.servers["anna"] = server
    same: list[bool] = []

    async def user(number: int) -> None:
        span = Span(number % 2, 4)
        stack = source.load_blocks(span)
        cache = stack.new_cache(128)
        async with session(host, "anna", open_for(source, span, dtype=dtype)) as (channel, _):
            for tokens in (40 + number, 1, 1, 3, 50, 1, 1):
                x = hidden(tokens, seed=100 * number + cache.length).to(source.key.dtype)
                position = cache.length
                same.append(torch.equal(await step(channel, position, x), stack(x, cache)))

    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(user, number)
    assert same == [True] * (8 * 7)
