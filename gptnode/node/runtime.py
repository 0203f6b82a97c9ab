"""A client's composition root: puts it, or a service, together from parts, and takes it apart."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from gptnode.errors import UsageError
from gptnode.model.shard import BlockStack, Embedding, Head
from gptnode.net.host import Host, open_host
from gptnode.net.identity import load_identity
from gptnode.node.allow_list import AllowList
from gptnode.node.client import Client
from gptnode.node.commons import Commons
from gptnode.node.compute import ComputeLane, device_wait
from gptnode.node.config import DEFAULT_CONTEXT_TOKENS, ClientConfig
from gptnode.node.drafting import DraftModel, find_draft, give_draft, load_draft
from gptnode.node.ends import Ends, OwnEnds
from gptnode.node.events import EventLog
from gptnode.node.generator import Generator
from gptnode.node.loading import (
    ModelSource,
    folder_paths,
    open_device,
    open_entry,
    open_model,
    with_activations,
)
from gptnode.node.meter import NO_METER, Meter
from gptnode.node.nursery import background_nursery
from gptnode.node.readings import network_readings, service_readings
from gptnode.node.service import Service, ServiceLimits, ServiceModel
from gptnode.node.swarm import Swarm
from gptnode.routing.blocks_map import BlocksMap, read_blocks_map
from gptnode.routing.entries import NO_ENDS, ModelEntry, PlacedEnds
from gptnode.text.template import ChatTemplate, load_template
from gptnode.text.tokenizer import Tokenizer

__all__ = [
    "Engine",
    "Ground",
    "OpenedModel",
    "find_model",
    "open_client",
    "open_engine",
    "open_service",
]

CLOSE_TIMEOUT_S = 1.0


@dataclass(frozen=True, slots=True)
class OpenedModel:
    """The model that a client was asked for; its headers are read, its weights are not."""

    source: ModelSource
    blocks_map: BlocksMap | None
    entry: ModelEntry | None

    @property
    def ends(self) -> PlacedEnds:
        """The ends that the map leaves to peers."""
        return self.blocks_map.ends(self.source.key.name) if self.blocks_map else NO_ENDS


@dataclass(frozen=True, slots=True)
class Engine:
    """What turns token ids into the next one: no tokenizer, no template."""

    source: ModelSource
    ends: OwnEnds
    generator: Generator
    swarm: Swarm
    lane: ComputeLane
    peer_id: str | None
    host: Host | None = None
    draft: DraftModel | None = None

    @property
    def parts(self) -> tuple[Embedding | BlockStack | Head, ...]:
        """All that this node has loaded of the model so far."""
        ends = self.ends
        head = () if ends.heads is None else (ends.heads.head,)
        embedding = () if ends.embedding is None else (ends.embedding,)
        return (*embedding, *self.swarm.own_blocks, *head)


@asynccontextmanager
async def open_client(
    config: ClientConfig, *, report: Callable[[str], None], meter: Meter = NO_METER
) -> AsyncIterator[Client]:
    """A client for one model, ready to answer.

    With a map it holds embedding and head, its own blocks if the map gives it any, and dials the
    other peers with the first token. Without one it holds the whole model.

    Args:
        config: What the command line said.
        report: Shows one line of progress or trouble to whoever waits.
        meter: Hears what this node does.

    Raises:
        GptNodeError: map, identity or model folder are wrong.
    """
    model = find_model(config)
    tokenizer, template = _text_of(model, config)
    async with (
        open_engine(model, config, report=report, meter=meter) as engine,
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
    return OpenedModel(with_activations(source, config.activations), blocks_map, entry)


@asynccontextmanager
async def open_engine(
    model: OpenedModel,
    config: ClientConfig,
    *,
    report: Callable[[str], None],
    meter: Meter = NO_METER,
) -> AsyncIterator[Engine]:
    """Embedding and head of ``model``, loaded, around a swarm that opens with the first token.

    Args:
        model: From ``find_model`` with the same ``config``.
        config: What the command line said.
        report: Shows one line of progress or trouble to whoever waits.
        meter: Hears what this node does.

    Raises:
        GptNodeError: identity or weights are wrong.
    """
    async with _open_ground(model, config, report=report, meter=meter) as ground:
        swarm = ground.swarm("", model.blocks_map, None)
        generator = ground.generator(swarm)
        host = ground.host
        peer_id = host.peer_id if host is not None else None
        try:
            yield Engine(
                model.source,
                ground.ends,
                generator,
                swarm,
                ground.lane,
                peer_id,
                host,
                ground.draft if generator.speculation is not None else None,
            )
        finally:
            with trio.move_on_after(CLOSE_TIMEOUT_S) as scope:
                scope.shield = True
                await generator.forget()


@asynccontextmanager
async def open_service(
    config: ClientConfig,
    limits: ServiceLimits,
    *,
    report: Callable[[str], None],
    meter: Meter = NO_METER,
) -> AsyncIterator[Service]:
    """Many contexts at once over one model, ready to answer; else as ``open_client``.

    Raises:
        GptNodeError: map, identity or model folder are wrong.
    """
    model = find_model(config)
    tokenizer, template = _text_of(model, config)
    stop = template.stops + (model.entry.stop if model.entry else ())
    events = EventLog(report)
    async with (
        _open_ground(model, config, report=events.say, joint=True, meter=meter) as ground,
        background_nursery() as nursery,
    ):
        service = Service(
            ServiceModel(model.source, tokenizer, template, stop),
            ground.commons,
            ground,
            nursery,
            limits,
            events,
            blocks_map=model.blocks_map,
            map_path=config.map_path,
            peer_id=ground.host.peer_id if ground.host is not None else None,
            context_tokens=ground.max_tokens,
        )
        meter.watch(lambda: service_readings(service.load()))
        nursery.start_soon(service.run)
        try:
            yield service
        finally:
            with trio.move_on_after(CLOSE_TIMEOUT_S) as scope:
                scope.shield = True
                await service.aclose()


def _text_of(model: OpenedModel, config: ClientConfig) -> tuple[Tokenizer, ChatTemplate]:
    tokenizer = Tokenizer.from_file(model.source.paths.tokenizer)
    template = load_template(
        model.source.paths.tokenizer.parent,
        tokenizer,
        config.template or (model.entry.template if model.entry else None),
    )
    return tokenizer, template


@dataclass(frozen=True, slots=True)
class Ground:
    """What contexts are made of, and what they share."""

    source: ModelSource
    config: ClientConfig
    max_tokens: int
    lane: ComputeLane
    nursery: trio.Nursery
    allow: AllowList
    host: Host | None
    ends: OwnEnds
    commons: Commons
    draft: DraftModel | None
    report: Callable[[str], None]

    def swarm(
        self,
        owner: str,
        blocks_map: BlocksMap | None,
        make_room: Callable[[str], Awaitable[bool]] | None,
    ) -> Swarm:
        """A swarm without stages, for the context of ``owner``."""
        return Swarm(
            self.source,
            self.lane,
            self.nursery,
            self.report,
            self.allow,
            blocks_map=blocks_map,
            host=self.host,
            wait_s=self.config.wait_s,
            verify=self.config.verify,
            commons=self.commons,
            owner=owner,
            make_room=make_room,
        )

    def generator(self, swarm: Swarm) -> Generator:
        """A generator without sessions, for the context of ``swarm``."""
        generator = Generator(
            Ends(self.ends),
            swarm,
            self.max_tokens,
            rings=self.config.rings,
            speculate=self.config.speculate,
        )
        if self.draft is not None and generator.speculation is not None:
            model = self.source.config
            give_draft(generator.speculation, self.draft, model, self.max_tokens, self.report)
        return generator


@asynccontextmanager
async def _open_ground(
    model: OpenedModel,
    config: ClientConfig,
    *,
    report: Callable[[str], None],
    joint: bool = False,
    meter: Meter,
) -> AsyncIterator[Ground]:
    """What contexts need; ``joint``: the steps of several are joined to batches."""
    source = model.source
    wanted_tokens = config.context_tokens or DEFAULT_CONTEXT_TOKENS
    max_tokens = min(wanted_tokens, source.config.context_tokens)
    allow = AllowList(model.blocks_map)
    with ComputeLane(config.threads, wait=device_wait(source.device)) as lane:
        async with background_nursery() as nursery, _dialler(config, model, allow) as host:
            commons = Commons(source, lane, joint=joint, meter=meter)
            ends, placed = commons.ends, model.ends
            await ends.load(embedding=not placed.embed, head=not placed.head)
            meter.watch(lambda: network_readings(host))
            draft = await _load_draft(model, config, ends, report)
            yield Ground(
                source, config, max_tokens, lane, nursery, allow, host, ends, commons, draft, report
            )


async def _load_draft(
    model: OpenedModel, config: ClientConfig, ends: OwnEnds, report: Callable[[str], None]
) -> DraftModel | None:
    """The draft model that is asked for, if tokens are to be guessed and can be."""
    if not config.speculate:
        return None
    mapped = None
    if model.entry is not None and config.map_path is not None:
        mapped = model.entry.draft_folder(config.map_path.parent)
    source = find_draft(config.draft, mapped, model.source, report)
    if source is None:
        return None
    if model.source.key.activation_name != "bf16" or not Ends(ends).exact:
        report(
            "the draft model isn't used: tokens are computed together where that changes none of "
            "them, in bf16, int8 or int4 on a CPU with gptnode's kernels"
        )
        return None
    return await load_draft(source, ends.lane)


@asynccontextmanager
async def _dialler(
    config: ClientConfig, model: OpenedModel, allow: AllowList
) -> AsyncIterator[Host | None]:
    """A host that dials and doesn't listen; none where there is nobody to dial."""
    if model.blocks_map is None:
        yield None
        return
    if config.identity_path is None:
        raise UsageError("a chat over a BlocksMap needs an identity: --identity FILE")
    identity = load_identity(config.identity_path)
    async with open_host(identity, allow=allow.allows) as host:
        yield host
