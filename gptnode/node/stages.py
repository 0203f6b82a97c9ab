"""Stages: a span of blocks with the cache of one context, here or on a peer.

A caller can't tell a local stage from a remote one (design law 4).
"""

from __future__ import annotations

import time
from typing import Protocol

import trio
from torch import Tensor

from gptnode.errors import GptNodeError, MismatchError
from gptnode.model.kv_cache import KVCache
from gptnode.model.shard import BlockStack
from gptnode.net.channel import ClientChannel
from gptnode.net.host import Host
from gptnode.node.compute import ComputeLane
from gptnode.node.config import PREFILL_CHUNK_TOKENS
from gptnode.node.loading import ModelKey
from gptnode.node.tensors import check_hidden, from_wire, to_wire
from gptnode.node.timing import HopTiming
from gptnode.span import Span
from gptnode.wire.limits import chunk_bytes
from gptnode.wire.messages import Open, Opened, Step, Truncate

__all__ = ["LocalStage", "RemoteStage", "Stage", "step_blocks"]

OPEN_TIMEOUT_S = 10.0
STEP_TIMEOUT_S = 300.0  # a long prompt on a slow peer; a dead one is found by heartbeats


class Stage(Protocol):
    """A span of blocks that holds the keys and values of one context."""

    @property
    def span(self) -> Span:
        """The blocks it runs."""
        ...

    @property
    def peer_id(self) -> str | None:
        """Who runs it; None for this node."""
        ...

    @property
    def lost(self) -> GptNodeError | None:
        """Why its cache is gone, if it is."""
        ...

    @property
    def timing(self) -> HopTiming:
        """Where the time of the last ``forward`` went; all zero before the first."""
        ...

    async def forward(self, hidden: Tensor, position: int) -> Tensor:
        """Run ``hidden`` (B, T, D), whose first token is at ``position``, through the span.

        What the cache held from ``position`` on is replaced, so a step may be repeated.
        """
        ...

    async def truncate(self, length: int) -> None:
        """Forget all tokens from position ``length`` on."""
        ...

    async def aclose(self) -> None:
        """Give the cache back."""
        ...


def step_blocks(stack: BlockStack, cache: KVCache, hidden: Tensor, position: int) -> Tensor:
    """One step (B, T, D) -> (B, T, D) at ``position``; in the lane, for sessions here and remote.

    Raises:
        MismatchError: there is a gap between the cache and ``position``.
        ContextError: the step ends past the cache's room.
    """
    if position > cache.length:
        raise MismatchError(f"step at position {position}, but the cache ends at {cache.length}")
    if position < cache.length:
        cache.truncate(position)
    return stack(hidden, cache)


class LocalStage:
    """Blocks of this node."""

    peer_id = None
    lost = None

    def __init__(self, stack: BlockStack, max_tokens: int, lane: ComputeLane) -> None:
        """Reserve a cache for ``max_tokens``; it is freed with the stage."""
        self.span = stack.span
        self.timing = HopTiming()
        self._stack = stack
        self._cache = stack.new_cache(max_tokens)
        self._lane = lane

    @property
    def kv_bytes(self) -> int:
        """Memory that holds keys and values now, in whole pages."""
        return self._cache.bytes_in_use

    async def forward(self, hidden: Tensor, position: int) -> Tensor:
        """See ``Stage``."""
        asked_s = time.perf_counter()
        work = await self._lane.run(lambda: step_blocks(self._stack, self._cache, hidden, position))
        self.timing = HopTiming.here(time.perf_counter() - asked_s, work.compute_s)
        return work.value

    async def truncate(self, length: int) -> None:
        """See ``Stage``."""
        await self._lane.run(lambda: self._cache.truncate(min(length, self._cache.length)))

    async def aclose(self) -> None:
        """See ``Stage``; in the lane, as a step that was cancelled may still be writing."""
        self._lane.run_soon(self._cache.close)
        await trio.lowlevel.checkpoint()


class RemoteStage:
    """Blocks of a peer, over one session of ours with it.

    Resource handling: the session's tasks live in the nursery given to ``open``; ``aclose`` ends
    them, and the peer frees the cache.
    """

    def __init__(
        self, peer_id: str, label: str, model: ModelKey, opened: Opened, channel: ClientChannel
    ) -> None:
        """Use ``open``."""
        self.peer_id = peer_id
        self.span = opened.span
        self.max_tokens = opened.max_tokens
        self.timing = HopTiming()
        self._label = label
        self._model = model
        self._opened = opened
        self._channel = channel

    @classmethod
    async def open(
        cls,
        host: Host,
        peer_id: str,
        label: str,
        span: Span,
        model: ModelKey,
        max_tokens: int,
        nursery: trio.Nursery,
    ) -> RemoteStage:
        """Open a session for ``span`` with a peer that ``host`` is connected to.

        Raises:
            NetworkError: the peer refuses, is busy, or went away.
            MismatchError: the peer has other weights, another dtype or other blocks.
        """
        stream = await host.open_stream(peer_id)
        # A peer that takes no bytes takes none on its other streams either: dial it anew.
        channel = ClientChannel(stream, on_stuck=lambda: host.disconnect(peer_id))
        nursery.start_soon(channel.run)
        try:
            opened = await channel.request(
                Open(model.name, model.fingerprint, span, max_tokens, model.dtype_name),
                timeout_s=OPEN_TIMEOUT_S,
            )
            if opened.fingerprint != model.fingerprint or opened.span != span:
                raise MismatchError(
                    f"{label} opened blocks {opened.span} of model {opened.fingerprint[:12]} "
                    f"instead of blocks {span} of {model.fingerprint[:12]}"
                )
            if opened.max_chunk_tokens < PREFILL_CHUNK_TOKENS:
                raise MismatchError(
                    f"{label} takes {opened.max_chunk_tokens} tokens at once, "
                    f"this node sends {PREFILL_CHUNK_TOKENS}"
                )
        except BaseException:
            await channel.aclose()
            raise
        channel.raise_limit(
            chunk_bytes(opened.max_chunk_tokens, model.d_model, model.activation_name)
        )
        return cls(peer_id, label, model, opened, channel)

    @property
    def round_trip_s(self) -> float | None:
        """The last heartbeat's round trip."""
        return self._channel.round_trip_s

    @property
    def lost(self) -> GptNodeError | None:
        """Why the session is gone, if it is."""
        return self._channel.lost

    async def forward(self, hidden: Tensor, position: int) -> Tensor:
        """See ``Stage``; refuses an answer for other weights, blocks, position or session."""
        asked_s = time.perf_counter()
        step = Step(position, to_wire(hidden))
        sent_s = time.perf_counter()
        reply = await self._channel.request(step, timeout_s=STEP_TIMEOUT_S)
        answered_s = time.perf_counter()
        sent = (self._opened.fingerprint, self._opened.span, self._opened.epoch, position)
        if (reply.fingerprint, reply.span, reply.epoch, reply.position) != sent:
            raise MismatchError(
                f"{self._label} answered for position {reply.position} of blocks {reply.span}, "
                f"asked was position {position} of blocks {self.span}"
            )
        result = from_wire(reply.hidden, hidden.device)
        batch, tokens, width = hidden.shape
        check_hidden(result, (batch, tokens, width), self._model.dtype, self._label)
        done_s = time.perf_counter()
        self.timing = HopTiming.round_trip(
            done_s - asked_s,
            queue_s=reply.queue_s,
            compute_s=reply.compute_s,
            serialise_s=(sent_s - asked_s) + (done_s - answered_s),
        )
        return result

    async def truncate(self, length: int) -> None:
        """See ``Stage``."""
        reply = await self._channel.request(Truncate(length), timeout_s=STEP_TIMEOUT_S)
        if reply.length > length:
            raise MismatchError(f"{self._label} did not truncate its cache to {length}")

    async def aclose(self) -> None:
        """See ``Stage``."""
        await self._channel.aclose()
