"""The block server: one stream, one session; the session's frame owns its cache.

When the stream ends, for whatever reason, the frame ends and the cache is free (design law 2). The
frame also holds the blocks that it was opened over: `models` may change under a running session.
A stream may also come from another server, which feeds a session of a ring.
Nothing here knows sockets or libp2p: a session is driven through a channel.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import structlog
import trio

from gptnode.errors import NetworkError, ProtocolError
from gptnode.model.kv_cache import kv_bytes_per_token
from gptnode.model.shard import BlockStack, Embedding
from gptnode.net.host import PeerStream
from gptnode.net.server_channel import ServerChannel
from gptnode.node.batching import Batcher
from gptnode.node.budget import KVBudget, Refusal
from gptnode.node.compute import ComputeLane
from gptnode.node.head_batching import HeadBatcher
from gptnode.node.loading import ModelSource
from gptnode.node.meter import NO_METER, Meter
from gptnode.node.relaying import Dial, RelayedSession, RelayedSessions, dial_nobody
from gptnode.node.served_context import MAX_CHUNK_TOKENS, ServedContext
from gptnode.node.session_fate import SessionFate
from gptnode.wire.limits import session_bytes
from gptnode.wire.messages import (
    Close,
    ErrorCode,
    Fed,
    Feed,
    Forward,
    Open,
    Opened,
    Relay,
    Request,
    Step,
    Truncate,
    Truncated,
)

__all__ = ["BlockServer", "KVBudget", "ServedModel"]

RETRY_LOADING_S = 1.0


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model, the runs of its blocks that this node has loaded, and its ends if it has them."""

    source: ModelSource
    stacks: tuple[BlockStack, ...]
    embedding: Embedding | None = None
    heads: HeadBatcher | None = None


class BlockServer:
    """Answers sessions of allowed peers over the blocks that this node has loaded."""

    def __init__(
        self,
        lane: ComputeLane,
        budget: KVBudget,
        epoch: int,
        *,
        dial: Dial = dial_nobody,
        meter: Meter = NO_METER,
    ) -> None:
        """A server that has no models yet.

        Args:
            lane: Where steps run.
            budget: What sessions may have.
            epoch: Tells this life of the server from any other in every answer.
            dial: Opens streams to the next hops of rings.
            meter: Hears what the server does.
        """
        self.models: dict[str, ServedModel] = {}
        self.dial = dial
        self.loading = True
        self.leaving = False
        self._streams = 0
        self._idle: set[trio.CancelScope] = set()  # of sessions that wait for a request
        self._ended = trio.Event()
        self._lane = lane
        self._meter = meter
        self._batcher = Batcher(lane, meter=meter)
        self._relayed = RelayedSessions()
        self._budget = budget
        self._epoch = epoch
        self._log = structlog.get_logger("gptnode.node")

    async def drain(self) -> None:
        """Give all clients away: refuse new sessions, end running ones after their step.

        They are told GOING_AWAY and lose nothing: they go on over another peer. Returns when all
        sessions have ended.
        """
        self.leaving = True
        for scope in tuple(self._idle):
            scope.cancel()
        while self._streams:
            self._ended = trio.Event()
            await self._ended.wait()

    async def handle(self, stream: PeerStream) -> None:
        """Serve one session; returns when it has ended. Its cache lives in here only."""
        self._streams += 1
        try:
            await self._handle(stream)
        finally:
            self._streams -= 1
            self._ended.set()

    async def _handle(self, stream: PeerStream) -> None:
        log = self._log.bind(peer=stream.peer_id)
        channel = ServerChannel(stream)
        fate = SessionFate(self._meter)
        async with trio.open_nursery() as nursery:
            # A server that leaves answers before it has read anything: then it must be running.
            await nursery.start(channel.run)
            try:
                await self._session(channel, stream.peer_id, nursery, log, fate)
                fate.ended("closed")
            except Refusal as refusal:
                fate.failed(refusal.code)
                if refusal.code is ErrorCode.GOING_AWAY:
                    log.info("session handed over", reason=refusal.message)
                else:
                    log.warning("refused", code=refusal.code.name, reason=refusal.message)
                await channel.fail(
                    refusal.code, refusal.message, retry_after_s=refusal.retry_after_s
                )
            except NetworkError as error:
                log.info("session lost", reason=error.detail)
            except ProtocolError as error:
                log.warning("peer broke the protocol", reason=error.detail)
                fate.failed(ErrorCode.PROTOCOL)
                await channel.fail(ErrorCode.PROTOCOL, error.detail)
            except Exception:
                log.exception("session failed")
                fate.ended("failed")
                await channel.fail(ErrorCode.INTERNAL, "the server failed; its log says how")
            finally:
                fate.ended("lost")  # if nothing was said before
                await channel.aclose()
                nursery.cancel_scope.cancel()  # a stream to the next hop of a ring

    async def _session(
        self,
        channel: ServerChannel,
        peer_id: str,
        nursery: trio.Nursery,
        log: structlog.typing.FilteringBoundLogger,
        fate: SessionFate,
    ) -> None:
        first = await self._next(channel)
        if isinstance(first, Close):
            return
        if isinstance(first, Feed):
            await self._be_fed(channel, self._relayed.find(first.feed_key))
            return
        if not isinstance(first, Open):
            raise Refusal(ErrorCode.PROTOCOL, "a stream begins with Open or Feed")
        served, stack = self._find(first)
        config, key = served.source.config, served.source.key
        max_tokens = min(first.max_tokens, config.context_tokens)
        n_bytes = max_tokens * kv_bytes_per_token(config, len(stack.span), key.dtype)
        with self._budget.lease(n_bytes, peer_id):
            cache = stack.new_cache(max_tokens)
            payload_bytes = session_bytes(
                MAX_CHUNK_TOKENS, key.d_model, key.activation_name, max_tokens
            )
            channel.raise_limit(payload_bytes)
            await channel.send(
                Opened(key.fingerprint, stack.span, self._epoch, max_tokens, MAX_CHUNK_TOKENS)
            )
            fate.opened(key.name)
            log.info(
                "session opened", model=key.name, blocks=str(stack.span), max_tokens=max_tokens
            )
            try:
                context = ServedContext(
                    peer_id,
                    served.source,
                    stack,
                    cache,
                    self._batcher,
                    self._epoch,
                    self._meter,
                    embedding=served.embedding if first.embed else None,
                    heads=served.heads if first.head else None,
                    scaled=first.activations == "int8",
                )
                relayed = RelayedSession(channel, context.step, payload_bytes, self.dial, nursery)
                with self._relayed.listed(first.feed_key, relayed):
                    await self._serve_steps(channel, context, relayed)
                log.info("session closed", tokens=cache.length)
            finally:
                # In the lane: a step that was cancelled may still be writing.
                self._lane.run_soon(cache.close)

    def _find(self, request: Open) -> tuple[ServedModel, BlockStack]:
        try:
            return self._look_up(request)
        except Refusal:
            if self.loading:  # what isn't here may be on its way
                raise Refusal(
                    ErrorCode.LOADING, "still loading its blocks", RETRY_LOADING_S
                ) from None
            raise

    def _look_up(self, request: Open) -> tuple[ServedModel, BlockStack]:
        served = self.models.get(request.model)
        if served is None:
            raise Refusal(ErrorCode.NO_MODEL, f"does not serve the model {request.model!r}")
        key = served.source.key
        if request.fingerprint != key.fingerprint:
            raise Refusal(
                ErrorCode.MISMATCH,
                f"has other files of {key.name} (fingerprint {key.fingerprint[:12]} there, "
                f"{request.fingerprint[:12]} here)",
            )
        if request.dtype != key.dtype_name:
            raise Refusal(
                ErrorCode.MISMATCH, f"computes {key.name} in {key.dtype_name}, not {request.dtype}"
            )
        _check_ends(request, served)
        for stack in served.stacks:
            if stack.span.covers(request.span):
                return served, stack.part(request.span)
        held = ", ".join(str(stack.span) for stack in served.stacks)
        raise Refusal(ErrorCode.NO_SPAN, f"serves blocks {held} of {key.name}, not {request.span}")

    async def _serve_steps(
        self, channel: ServerChannel, context: ServedContext, relayed: RelayedSession
    ) -> None:
        cache = context.cache
        while True:
            match await self._next(channel):
                case Step() as step:
                    async with relayed.turn:
                        stepped = await context.step(step.position, step.hidden, step.draw)
                    await channel.send(stepped)
                case Relay() as relay:
                    await relayed.relay(relay)
                    channel.done_with_relay()
                case Truncate() as truncate:
                    async with relayed.turn:
                        length = min(truncate.length, cache.length)
                        await self._lane.run(partial(cache.truncate, length))
                    await channel.send(Truncated(length))
                case Forward() as forward:
                    await channel.send(await relayed.forward(forward))
                case Close():
                    return
                case _:
                    raise Refusal(ErrorCode.PROTOCOL, "a session is opened once")

    async def _be_fed(self, channel: ServerChannel, session: RelayedSession) -> None:
        """Take the steps that another server hands on to ``session``, for as long as it lives."""
        channel.raise_limit(session.payload_bytes)
        await channel.send(Fed(MAX_CHUNK_TOKENS))
        with session.fed():
            while isinstance(request := await self._next(channel), Relay):
                await session.relay(request)
                channel.done_with_relay()
        if not isinstance(request, Close):
            raise Refusal(ErrorCode.PROTOCOL, "a feeder relays, and nothing else")

    async def _next(self, channel: ServerChannel) -> Request | Relay | Close:
        """The session's next request, unless the server is leaving."""
        with trio.CancelScope() as scope:
            self._idle.add(scope)
            try:
                if not self.leaving:
                    return await channel.receive()  # cancelled, it has taken none
            finally:
                self._idle.discard(scope)
        raise _going_away()


def _check_ends(request: Open, served: ServedModel) -> None:
    """Refuse ends that aren't here, or that the asked blocks aren't beside."""
    name, last = served.source.key.name, served.source.config.n_blocks
    if request.embed and (request.span.start > 0 or served.embedding is None):
        raise Refusal(ErrorCode.NO_SPAN, f"has no embedding of {name} for blocks {request.span}")
    if request.head and (request.span.stop < last or served.heads is None):
        raise Refusal(ErrorCode.NO_SPAN, f"has no head of {name} for blocks {request.span}")


def _going_away() -> Refusal:
    return Refusal(ErrorCode.GOING_AWAY, "the server is shutting down")
