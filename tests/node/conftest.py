"""A tiny real model on disk, and a swarm of real block servers over in-memory streams."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import trio
import trio.testing
from tokenizers import Tokenizer, models, pre_tokenizers

from gptnode.errors import PeerUnreachableError, StreamLostError
from gptnode.node.block_server import BlockServer, KVBudget, ServedModel
from gptnode.node.compute import ComputeLane
from gptnode.node.head_batching import HeadBatcher
from gptnode.node.loading import ModelSource, folder_paths, open_device, open_model
from gptnode.routing.entries import NO_ENDS, PlacedEnds
from gptnode.span import Span
from tests.tiny_llama import write_tiny_llama

from .benches import Bench, MakeServer, SwarmOf, make_map

N_BLOCKS = 4
VOCAB = 64


def write_tiny_model(folder: Path, *, n_blocks: int = N_BLOCKS, max_positions: int = 1024) -> Path:
    """A random Llama with a word tokenizer."""
    write_tiny_llama(
        folder, VOCAB, n_blocks=n_blocks, bos_id=1, eos_id=2, max_positions=max_positions
    )
    words = ["<pad>", "<s>", "</s>", "<unk>", *(f"w{i}" for i in range(VOCAB - 4))]
    vocab = {word: i for i, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As many threads here as in the lane: sums are rounded by how they are divided."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a random 4-block Llama."""
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def source(tiny_model: Path) -> ModelSource:
    """The tiny model, opened in f32."""
    return open_model("tiny", folder_paths(tiny_model), "f32", open_device("cpu"))


@pytest.fixture
def lane() -> Iterator[ComputeLane]:
    """A compute lane of one thread."""
    with ComputeLane(threads=1) as lane:
        yield lane


class MemoryStream(trio.abc.Stream):
    """One end of an in-memory stream whose other end is known to be ``peer_id``."""

    def __init__(self, stream: trio.abc.Stream, peer_id: str) -> None:
        self.peer_id = peer_id
        self._stream = stream

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def reset(self) -> None:
        """Break both directions."""
        await trio.aclose_forcefully(self._stream)


class MemoryHost:
    """Stands where ``Host`` does: its streams lead to block servers of this very process."""

    def __init__(self, peer_id: str, nursery: trio.Nursery) -> None:
        self.peer_id = peer_id
        self.addrs: tuple[str, ...] = ()
        self.dialled: list[str] = []
        self.servers: dict[str, BlockServer] = {}
        self._nursery = nursery
        self._scopes: dict[str, list[trio.CancelScope]] = {}
        self._connected: set[str] = set()

    async def connect(self, peer_id: str, addrs: Sequence[str], *, timeout_s: float = 5.0) -> None:
        await trio.lowlevel.checkpoint()
        self.dialled.append(peer_id)
        if peer_id not in self.servers:
            raise PeerUnreachableError(f"cannot reach {peer_id}")
        self._connected.add(peer_id)

    async def open_stream(self, peer_id: str, *, timeout_s: float = 3.0) -> MemoryStream:
        await trio.lowlevel.checkpoint()
        if peer_id not in self.servers:
            raise StreamLostError(f"{peer_id} is gone")
        ours, theirs = trio.testing.memory_stream_pair()
        self._nursery.start_soon(self._serve, peer_id, MemoryStream(theirs, self.peer_id))
        return MemoryStream(ours, peer_id)

    async def disconnect(self, peer_id: str) -> None:
        await trio.lowlevel.checkpoint()
        self._connected.discard(peer_id)

    def connected(self) -> tuple[str, ...]:
        return tuple(self._connected)

    def kill(self, peer_id: str) -> BlockServer:
        """End the server of ``peer_id`` and all its sessions, as a crash would."""
        server = self.servers.pop(peer_id)
        self._connected.discard(peer_id)
        for scope in self._scopes.pop(peer_id, []):
            scope.cancel()
        return server

    async def _serve(self, peer_id: str, stream: MemoryStream) -> None:
        with trio.CancelScope() as scope:
            self._scopes.setdefault(peer_id, []).append(scope)
            await self.servers[peer_id].handle(stream)  # type: ignore[arg-type]
        await trio.aclose_forcefully(stream)


@pytest.fixture
async def host(nursery: trio.Nursery) -> MemoryHost:
    """A client's host without any server yet."""
    return MemoryHost("client", nursery)


@pytest.fixture
def make_server(
    lane: ComputeLane, source: ModelSource, host: MemoryHost
) -> Callable[..., BlockServer]:
    """Makes a block server that has loaded a span of the tiny model, and reaches all others."""

    def make(
        span: Span,
        *,
        max_bytes: int = 1 << 24,
        max_sessions: int = 8,
        ends: PlacedEnds = NO_ENDS,
    ) -> BlockServer:
        server = BlockServer(lane, KVBudget(max_bytes, max_sessions), epoch=secrets.randbits(32))
        embedding = source.load_embedding() if ends.embed else None
        heads = HeadBatcher(lane, source.load_head(None)) if ends.head else None
        stacks = (source.load_blocks(span),)
        server.models["tiny"] = ServedModel(source, stacks, embedding, heads)
        server.loading = False
        server.dial = host.open_stream  # type: ignore[assignment]
        return server

    return make


@pytest.fixture
async def whole(source: ModelSource, lane: ComputeLane, nursery: trio.Nursery) -> Bench:
    return Bench(source, lane, nursery)


@pytest.fixture
def swarm_of(
    source: ModelSource,
    lane: ComputeLane,
    nursery: trio.Nursery,
    host: MemoryHost,
    make_server: MakeServer,
) -> SwarmOf:
    """Makes a generator over ``(blocks, peers)`` routes, and a server for each peer."""

    def make(
        *routes: tuple[str, tuple[str, ...]],
        wait_s: float = 0.0,
        ends: PlacedEnds = NO_ENDS,
        **options: Any,
    ) -> Bench:
        blocks_map = make_map(*routes, ends=ends)
        for peer in blocks_map.peers:
            spans = blocks_map.spans_of(peer.id, "tiny")
            ends_there = blocks_map.ends_of(peer.id, "tiny")
            host.servers[peer.id] = make_server(spans[0], ends=ends_there)
        return Bench(source, lane, nursery, blocks_map, host, wait_s=wait_s, **options)

    return make


@pytest.fixture
def halves(swarm_of: SwarmOf) -> Bench:
    """anna has the first half, ben the second."""
    return swarm_of(("0-1", ("anna",)), ("2-3", ("ben",)))


@pytest.fixture
def with_replica(swarm_of: SwarmOf) -> Bench:
    """anna has the first half, ben and cleo the second."""
    return swarm_of(("0-1", ("anna",)), ("2-3", ("ben", "cleo")))
