"""Keeps the blocks that a server serves those that the map gives it, while it serves.

Blocks are loaded one by one in the compute lane, between the steps of sessions that run. Blocks
that are taken away can't be opened any more; their memory is free when the last session over them
ends, because the session's frame is what holds them. Knows no network and no file of a map.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import structlog
import trio

from gptnode.errors import GptNodeError, MapError, UsageError
from gptnode.model.layers import Block
from gptnode.model.shard import BlockStack, Embedding
from gptnode.node.block_server import BlockServer, ServedModel
from gptnode.node.compute import ComputeLane
from gptnode.node.config import ServeConfig
from gptnode.node.head_batching import HeadBatcher
from gptnode.node.loading import ModelSource, open_entry
from gptnode.routing.blocks_map import BlocksMap
from gptnode.routing.entries import NO_ENDS, ModelEntry, ModelPaths, PlacedEnds
from gptnode.span import Span

__all__ = ["Assignment", "BlockKeeper", "assigned_blocks"]


@dataclass(frozen=True, slots=True)
class Assignment:
    """Blocks of one model that a map gives to this node, and the ends that go with them."""

    entry: ModelEntry
    spans: tuple[Span, ...]
    ends: PlacedEnds = NO_ENDS


@dataclass(frozen=True, slots=True)
class _Files:
    """What decides which files of a model are meant and how they are computed."""

    paths: ModelPaths | None
    dtype: str | None
    fingerprint: str | None

    @classmethod
    def of(cls, entry: ModelEntry, blocks_map: BlocksMap) -> _Files:
        """As ``blocks_map`` says it."""
        return cls(blocks_map.model_paths(entry.name), entry.dtype, entry.fingerprint)


@dataclass(slots=True)
class _Held:
    """A model that was opened, and what is loaded of it: blocks by number, and its ends."""

    files: _Files
    source: ModelSource
    blocks: dict[int, Block] = field(default_factory=dict)
    embedding: Embedding | None = None
    heads: HeadBatcher | None = None

    def load_ends(self, wanted: PlacedEnds, lane: ComputeLane) -> bool:
        """In ``lane``: have the ends that are wanted; whether one was loaded."""
        embed = wanted.embed and self.embedding is None
        if embed:
            self.embedding = self.source.load_embedding()
        # A head that was there first is made anew: it may share the embedding's memory.
        head = wanted.head and (self.heads is None or embed)
        if head:
            self.heads = HeadBatcher(lane, self.source.load_head(self.embedding))
        return embed or head

    def drop_ends(self, wanted: PlacedEnds) -> bool:
        """Let go of ends that aren't wanted; whether there were any."""
        before = (self.embedding, self.heads)
        self.embedding = self.embedding if wanted.embed else None
        self.heads = self.heads if wanted.head else None
        return before != (self.embedding, self.heads)

    def served(self, stacks: tuple[BlockStack, ...]) -> ServedModel:
        """``stacks`` of it, with the ends that are loaded."""
        return ServedModel(self.source, stacks, self.embedding, self.heads)


def assigned_blocks(blocks_map: BlocksMap, peer_id: str) -> tuple[Assignment, ...]:
    """What the map gives to ``peer_id``; () where it gives nothing."""
    found = [
        Assignment(
            entry,
            blocks_map.spans_of(peer_id, entry.name),
            blocks_map.ends_of(peer_id, entry.name),
        )
        for entry in blocks_map.models
    ]
    return tuple(one for one in found if one.spans)


class BlockKeeper:
    """Loads and drops blocks of ``server``; ``run`` does the work, ``want`` says what is wanted."""

    def __init__(
        self, config: ServeConfig, peer_id: str, lane: ComputeLane, server: BlockServer
    ) -> None:
        """Nothing is served before `run`."""
        self.problems: tuple[str, ...] = ()
        self._config = config
        self._peer_id = peer_id
        self._lane = lane
        self._server = server
        self._held: dict[str, _Held] = {}
        self._wanted: BlocksMap | None = None
        self._news = trio.CancelScope()
        self._log = structlog.get_logger("gptnode.node")

    def open_first(self, blocks_map: BlocksMap) -> None:
        """Open the models that the server begins with, and want them.

        Raises:
            MapError: the map gives this node no blocks, or more than a model has.
            GptNodeError: a model can't be opened.
        """
        if blocks_map.peer(self._peer_id) is None:
            raise MapError(
                f"peers: this node, {self._peer_id}, is not among them; add it with its addresses"
            )
        assigned = assigned_blocks(blocks_map, self._peer_id)
        if not assigned:
            raise MapError(f"routes: none gives blocks to this node, {self._peer_id}")
        self._check_folder(assigned)
        for one in assigned:
            self._held[one.entry.name] = self._open(one.entry, blocks_map)
        self.check(blocks_map)
        self._wanted = blocks_map

    def check(self, blocks_map: BlocksMap) -> None:
        """Whether ``blocks_map`` fits the models that are open here.

        Raises:
            MapError: it routes blocks that such a model doesn't have, or leaves some out.
        """
        for entry in blocks_map.models:
            held = self._held.get(entry.name)
            if held is not None and held.files == _Files.of(entry, blocks_map):
                blocks_map.check_blocks(entry.name, held.source.config.n_blocks)

    def want(self, blocks_map: BlocksMap) -> None:
        """Serve what ``blocks_map`` gives to this node from now on."""
        self._wanted = blocks_map
        self._news.cancel()

    def served(self) -> tuple[tuple[str, tuple[Span, ...]], ...]:
        """Names of models and the spans of theirs that can be opened now."""
        return tuple(
            (name, tuple(stack.span for stack in served.stacks))
            for name, served in self._server.models.items()
        )

    async def run(self, settled: Callable[[], None]) -> None:
        """Load what is wanted, then wait for the next wish.

        Args:
            settled: Called each time when all that can be served is served.

        Raises:
            GptNodeError: what was wanted first can't be loaded. Later that is logged, and told by
                ``problems``; what was served before goes on.
        """
        first = True
        while True:
            with trio.CancelScope() as self._news:
                wanted = self._wanted
                errors = await self._settle(wanted) if wanted is not None else []
                if first and errors:
                    raise errors[0]
                first = False
                settled()
                await trio.sleep_forever()

    async def _settle(self, blocks_map: BlocksMap) -> list[GptNodeError]:
        """Serve what the map gives; the errors of models that can't be served. Cancelled, it has
        kept what it loaded."""
        assigned = assigned_blocks(blocks_map, self._peer_id)
        self._withdraw(assigned)
        self._server.loading = True
        errors: list[GptNodeError] = []
        for one in assigned:
            try:
                await self._serve_model(one, blocks_map)
            except GptNodeError as error:
                self._log.error("can't serve", model=one.entry.name, reason=error.detail)
                errors.append(error)
        self._server.loading = False
        self.problems = tuple(error.detail for error in errors)
        return errors

    def _withdraw(self, assigned: tuple[Assignment, ...]) -> None:
        """Take away what isn't assigned any more: new sessions don't get it, memory goes back."""
        spans = {one.entry.name: one.spans for one in assigned}
        ends = {one.entry.name: one.ends for one in assigned}
        for name in [name for name in self._held if name not in spans]:
            del self._held[name]
            self._server.models.pop(name, None)
            self._log.info("model dropped", model=name)
        for name, held in self._held.items():
            wanted = {number for span in spans[name] for number in span}
            extra = [number for number in held.blocks if number not in wanted]
            served = self._server.models.get(name)
            if held.drop_ends(ends[name]):
                self._log.info("ends dropped", model=name)
                if served is not None and served.source is held.source:
                    self._server.models[name] = held.served(served.stacks)
            if extra and served is not None and served.source is held.source:
                left = {n: block for n, block in held.blocks.items() if n in wanted}
                stacks = tuple(_stack(held.source, span, left) for span in _runs(left))
                self._server.models[name] = held.served(stacks)
                self._log.info("blocks dropped", model=name, blocks=len(extra))
            for number in extra:
                del held.blocks[number]

    async def _serve_model(self, wanted: Assignment, blocks_map: BlocksMap) -> None:
        name = wanted.entry.name
        self._check_folder(assigned_blocks(blocks_map, self._peer_id))
        held = self._held.get(name)
        if held is None or held.files != _Files.of(wanted.entry, blocks_map):
            # Off trio's thread: the fingerprint of a large model reads for a while.
            held = await trio.to_thread.run_sync(partial(self._open, wanted.entry, blocks_map))
            blocks_map.check_blocks(name, held.source.config.n_blocks)
            self._held[name] = held
            self._server.models.pop(name, None)  # another file or dtype: another model
        missing = [n for span in wanted.spans for n in span if n not in held.blocks]
        for number in missing:
            load = partial(held.source.load_blocks, Span(number, number + 1))
            (held.blocks[number],) = (await self._lane.run(load)).value.blocks
        ends = wanted.ends
        if (await self._lane.run(partial(held.load_ends, ends, self._lane))).value:
            self._log.info("ends loaded", model=name, embed=ends.embed, head=ends.head)
        stacks = tuple(_stack(held.source, span, held.blocks) for span in wanted.spans)
        self._server.models[name] = held.served(stacks)
        if missing:
            spans = ",".join(str(span) for span in wanted.spans)
            self._log.info("blocks loaded", model=name, blocks=spans, loaded=len(missing))

    def _open(self, entry: ModelEntry, blocks_map: BlocksMap) -> _Held:
        config = self._config
        source = open_entry(
            entry, blocks_map, config.model_dir, dtype=config.dtype, device=config.device
        )
        return _Held(_Files.of(entry, blocks_map), source)

    def _check_folder(self, assigned: tuple[Assignment, ...]) -> None:
        if self._config.model_dir is not None and len(assigned) > 1:
            names = ", ".join(one.entry.name for one in assigned)
            raise UsageError(
                f"--model-dir is for one model, the map gives this node several: {names}"
            )


def _runs(blocks: dict[int, Block]) -> tuple[Span, ...]:
    """The numbers of ``blocks`` as spans."""
    spans: list[Span] = []
    for number in sorted(blocks):
        if spans and spans[-1].stop == number:
            spans[-1] = Span(spans[-1].start, number + 1)
        else:
            spans.append(Span(number, number + 1))
    return tuple(spans)


def _stack(source: ModelSource, span: Span, blocks: dict[int, Block]) -> BlockStack:
    """The blocks of ``span``, which share their weights with all other stacks over them."""
    chosen = [blocks[number] for number in span]
    return BlockStack(source.config, span, chosen, source.key.dtype, source.device)
