"""The ground that contexts stand on: lane, host, weights and draft model, opened once for all.

What a context is made of is made here; how many there are, and for whom, is the caller's business.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from gptnode.errors import UsageError
from gptnode.net.host import Host, open_host
from gptnode.net.identity import load_identity
from gptnode.node.allow_list import AllowList
from gptnode.node.commons import Commons
from gptnode.node.compute import ComputeLane, device_wait
from gptnode.node.config import DEFAULT_CONTEXT_TOKENS, ClientConfig
from gptnode.node.drafting import DraftModel, find_draft, give_draft, load_draft
from gptnode.node.ends import Ends, OwnEnds
from gptnode.node.generator import Generator
from gptnode.node.loading import ModelSource
from gptnode.node.meter import Meter
from gptnode.node.nursery import background_nursery
from gptnode.node.opened_model import OpenedModel
from gptnode.node.readings import network_readings
from gptnode.node.replay import REPLAY_BYTES
from gptnode.node.swarm import Swarm
from gptnode.routing.blocks_map import BlocksMap

__all__ = ["Ground", "open_ground"]


@dataclass(frozen=True, slots=True)
class Ground:
    """What contexts are made of, and what they share.

    ``replay_bytes``: of activations, which each context may keep.
    """

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
    replay_bytes: int = REPLAY_BYTES

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
            replay_bytes=self.replay_bytes,
        )
        if self.draft is not None and generator.speculation is not None:
            model = self.source.config
            give_draft(generator.speculation, self.draft, model, self.max_tokens, self.report)
        return generator


@asynccontextmanager
async def open_ground(
    model: OpenedModel,
    config: ClientConfig,
    *,
    report: Callable[[str], None],
    joint: bool = False,
    contexts: int = 1,
    meter: Meter,
) -> AsyncIterator[Ground]:
    """What contexts need, loaded; they are opened later.

    Args:
        model: From ``find_model`` with the same ``config``.
        config: What the command line said.
        report: Shows one line of progress or trouble to whoever waits.
        joint: Whether the steps of several contexts are joined to batches.
        contexts: The most that there are at once, which share ``REPLAY_BYTES``.
        meter: Hears what this node does.

    Raises:
        GptNodeError: identity or weights are wrong.
    """
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
                source,
                config,
                max_tokens,
                lane,
                nursery,
                allow,
                host,
                ends,
                commons,
                draft,
                report,
                REPLAY_BYTES // contexts,
            )


async def _load_draft(
    model: OpenedModel, config: ClientConfig, ends: OwnEnds, report: Callable[[str], None]
) -> DraftModel | None:
    """The draft model that is asked for, if tokens are to be guessed and can be."""
    if not config.speculate:
        return None
    blocks_map = model.blocks_map
    mapped = blocks_map.draft_folder(config.model_name) if blocks_map is not None else None
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
