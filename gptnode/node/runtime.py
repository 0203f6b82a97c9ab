"""A client's composition root: puts it together from its parts, and takes it apart."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from gptnode.errors import UsageError
from gptnode.model.shard import BlockStack, Embedding, Head
from gptnode.net.host import Host, open_host
from gptnode.net.identity import load_identity
from gptnode.node.allow_list import AllowList
from gptnode.node.client import Client
from gptnode.node.compute import ComputeLane, device_wait
from gptnode.node.config import DEFAULT_CONTEXT_TOKENS, ClientConfig
from gptnode.node.generator import Generator
from gptnode.node.loading import ModelSource, folder_paths, open_device, open_entry, open_model
from gptnode.node.nursery import background_nursery
from gptnode.node.swarm import Swarm
from gptnode.routing.blocks_map import BlocksMap, read_blocks_map
from gptnode.routing.entries import ModelEntry
from gptnode.text.template import load_template
from gptnode.text.tokenizer import Tokenizer

__all__ = [
    "Engine",
    "OpenedModel",
    "find_model",
    "open_client",
    "open_engine",
]

CLOSE_TIMEOUT_S = 1.0


@dataclass(frozen=True, slots=True)
class OpenedModel:
    """The model that a client was asked for; its headers are read, its weights are not."""

    source: ModelSource
    blocks_map: BlocksMap | None
    entry: ModelEntry | None


@dataclass(frozen=True, slots=True)
class Engine:
    """What turns token ids into the next one: no tokenizer, no template."""

    source: ModelSource
    embedding: Embedding
    head: Head
    generator: Generator
    swarm: Swarm
    lane: ComputeLane
    peer_id: str | None
    host: Host | None = None

    @property
    def parts(self) -> tuple[Embedding | BlockStack | Head, ...]:
        """All that this node has loaded of the model so far."""
        return (self.embedding, *self.swarm.own_blocks, self.head)


@asynccontextmanager
async def open_client(
    config: ClientConfig, *, report: Callable[[str], None]
) -> AsyncIterator[Client]:
    """A client for one model, ready to answer.

    With a map it holds embedding and head, its own blocks if the map gives it any, and dials the
    other peers with the first token. Without one it holds the whole model.

    Args:
        config: What the command line said.
        report: Shows one line of progress or trouble to whoever waits.

    Raises:
        GptNodeError: map, identity or model folder are wrong.
    """
    model = find_model(config)
    tokenizer = Tokenizer.from_file(model.source.paths.tokenizer)
    template = load_template(
        model.source.paths.tokenizer.parent,
        tokenizer,
        config.template or (model.entry.template if model.entry else None),
    )
    async with (
        open_engine(model, config, report=report) as engine,
        background_nursery() as nursery,
    ):
        client = Client(
            model.source,
            tokenizer,
            template,
            template.stops + (model.entry.stop if model.entry else ()),
            engine.generator,
            engine.swarm,
            map_path=config.map_path,
            peer_id=engine.peer_id,
        )
        nursery.start_soon(client.follow_map)
        yield client


def find_model(config: ClientConfig) -> OpenedModel:
    """The model that ``config`` means, by its map or its folder.

    Raises:
        GptNodeError: map or model folder are wrong, or neither is named.
    """
    blocks_map = read_blocks_map(config.map_path) if config.map_path is not None else None
    entry = blocks_map.model(config.model_name) if blocks_map is not None else None
    if blocks_map is not None and entry is not None:
        source = open_entry(
            entry, blocks_map, config.model_dir, dtype=config.dtype, device=config.device
        )
        blocks_map.check_blocks(source.key.name, source.config.n_blocks)
    elif config.model_dir is not None:
        paths = folder_paths(config.model_dir)
        name = config.model_name or paths.folder.resolve().name
        source = open_model(name, paths, config.dtype, open_device(config.device))
    else:
        raise UsageError("name a model folder with --model-dir, or a BlocksMap with --map")
    return OpenedModel(source, blocks_map, entry)


@asynccontextmanager
async def open_engine(
    model: OpenedModel, config: ClientConfig, *, report: Callable[[str], None]
) -> AsyncIterator[Engine]:
    """Embedding and head of ``model``, loaded, around a swarm that opens with the first token.

    Args:
        model: From ``find_model`` with the same ``config``.
        config: What the command line said.
        report: Shows one line of progress or trouble to whoever waits.

    Raises:
        GptNodeError: identity or weights are wrong.
    """
    source, blocks_map = model.source, model.blocks_map
    wanted_tokens = config.context_tokens or DEFAULT_CONTEXT_TOKENS
    max_tokens = min(wanted_tokens, source.config.context_tokens)
    allow = AllowList(blocks_map)
    with ComputeLane(config.threads, wait=device_wait(source.device)) as lane:
        async with background_nursery() as nursery, _dialler(config, blocks_map, allow) as host:
            swarm = Swarm(
                source,
                lane,
                nursery,
                report,
                allow,
                blocks_map=blocks_map,
                host=host,
                wait_s=config.wait_s,
                verify=config.verify,
            )
            embedding = (await lane.run(source.load_embedding)).value
            head = (await lane.run(lambda: source.load_head(embedding))).value
            generator = Generator(
                embedding,
                head,
                swarm,
                lane,
                source.device,
                max_tokens,
                rings=config.rings,
                speculate=config.speculate,
            )
            peer_id = host.peer_id if host is not None else None
            try:
                yield Engine(source, embedding, head, generator, swarm, lane, peer_id, host)
            finally:
                with trio.move_on_after(CLOSE_TIMEOUT_S) as scope:
                    scope.shield = True
                    await generator.forget()


@asynccontextmanager
async def _dialler(
    config: ClientConfig, blocks_map: BlocksMap | None, allow: AllowList
) -> AsyncIterator[Host | None]:
    """A host that dials and doesn't listen; none where there is nobody to dial."""
    if blocks_map is None:
        yield None
        return
    if config.identity_path is None:
        raise UsageError("a chat over a BlocksMap needs an identity: --identity FILE")
    identity = load_identity(config.identity_path)
    async with open_host(identity, allow=allow.allows) as host:
        yield host
