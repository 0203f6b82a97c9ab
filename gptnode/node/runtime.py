"""A client's composition root: puts it, or a service, together from parts, and takes it apart."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from gptnode.model.shard import BlockStack, Embedding, Head
from gptnode.net.host import Host
from gptnode.node.client import Client
from gptnode.node.compute import ComputeLane
from gptnode.node.config import ClientConfig, ServiceLimits
from gptnode.node.drafting import DraftModel
from gptnode.node.ends import OwnEnds
from gptnode.node.events import EventLog
from gptnode.node.generator import Generator
from gptnode.node.ground import open_ground
from gptnode.node.loading import ModelSource
from gptnode.node.meter import NO_METER, Meter
from gptnode.node.nursery import background_nursery
from gptnode.node.opened_model import OpenedModel, find_model
from gptnode.node.readings import service_readings
from gptnode.node.service import Service, ServiceModel
from gptnode.node.swarm import Swarm

__all__ = ["Engine", "open_client", "open_engine", "open_service"]

CLOSE_TIMEOUT_S = 1.0


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
    tokenizer, template = model.text(config.template)
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
    async with open_ground(model, config, report=report, meter=meter) as ground:
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
    tokenizer, template = model.text(config.template)
    stop = template.stops + (model.entry.stop if model.entry else ())
    events = EventLog(report)
    async with (
        open_ground(
            model,
            config,
            report=events.say,
            joint=True,
            contexts=limits.max_contexts + limits.max_idle,
            meter=meter,
        ) as ground,
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
