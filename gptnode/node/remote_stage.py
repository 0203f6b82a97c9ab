"""The stage of a peer: blocks that it runs over one session of ours with it.

Every answer is checked for whose it is before it counts. Knows sessions and tensors; which peer is
asked, and what becomes of a hop that failed, is decided elsewhere.
"""

from __future__ import annotations

import secrets
import time

import torch
import trio
from torch import Tensor

from gptnode.errors import GptNodeError, MismatchError
from gptnode.net.client_channel import ClientChannel
from gptnode.net.host import Host
from gptnode.node.config import PREFILL_CHUNK_TOKENS
from gptnode.node.drawing import check_drawn
from gptnode.node.loading import ModelKey
from gptnode.node.scaled_rows import as_travelled
from gptnode.node.tensors import check_hidden, from_wire, ids_to_wire, to_wire
from gptnode.node.timing import HopTiming
from gptnode.routing.entries import NO_ENDS, PlacedEnds
from gptnode.span import Span
from gptnode.wire.limits import session_bytes
from gptnode.wire.messages import Draw, Forward, Open, Opened, Step, Truncate, WireTensor

__all__ = ["RemoteStage"]

OPEN_TIMEOUT_S = 10.0
STEP_TIMEOUT_S = 300.0  # a long prompt on a slow peer; a dead one is found by heartbeats


class RemoteStage:
    """Blocks of a peer, over one session of ours with it.

    Resource handling: the session's tasks live in the nursery given to ``open``; ``aclose`` ends
    them, and the peer frees the cache.
    """

    def __init__(
        self,
        peer_id: str,
        label: str,
        model: ModelKey,
        opened: Opened,
        channel: ClientChannel,
        feed_key: str,
        ends: PlacedEnds = NO_ENDS,
    ) -> None:
        """Use ``open``."""
        self.ends = ends
        self.peer_id = peer_id
        self.label = label
        self.model = model
        self.channel = channel
        self.span = opened.span
        self.epoch = opened.epoch
        self.max_tokens = opened.max_tokens
        self.timing = HopTiming()
        self._feed_key = feed_key
        self._hands_on = False
        self._opened = opened

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
        ends: PlacedEnds = NO_ENDS,
    ) -> RemoteStage:
        """Open a session for ``span`` with a peer that ``host`` is connected to.

        ``ends``: what the peer is to do besides.

        Raises:
            NetworkError: the peer refuses, is busy, or went away.
            MismatchError: the peer has other weights, another dtype or other blocks.
        """
        stream = await host.open_stream(peer_id)
        # A peer that takes no bytes takes none on its other streams either: dial it anew.
        channel = ClientChannel(stream, on_stuck=lambda: host.disconnect(peer_id))
        nursery.start_soon(channel.run)
        # Whoever knows it may feed the session with activations: nobody must guess it.
        feed_key = secrets.token_hex(16)
        try:
            opened = await channel.request(
                Open(
                    model.name,
                    model.fingerprint,
                    span,
                    max_tokens,
                    model.dtype_name,
                    feed_key,
                    ends.embed,
                    ends.head,
                    "int8" if model.scaled else "own",
                ),
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
            session_bytes(
                opened.max_chunk_tokens, model.d_model, model.activation_name, opened.max_tokens
            )
        )
        return cls(peer_id, label, model, opened, channel, feed_key, ends)

    @property
    def round_trip_s(self) -> float | None:
        """The last heartbeat's round trip."""
        return self.channel.round_trip_s

    @property
    def lost(self) -> GptNodeError | None:
        """Why the session is gone, if it is."""
        return self.channel.lost

    def as_sent(self, hidden: Tensor) -> Tensor:
        """What the peer makes of ``hidden`` (1, T, D) when it comes there."""
        return as_travelled(hidden) if self.model.scaled else hidden

    def given(self, hidden: Tensor) -> WireTensor:
        """What the peer is sent for ``hidden``, see ``Stage.forward``."""
        if self.ends.embed:
            return ids_to_wire(hidden[0].tolist(), tuple(hidden.shape))
        return to_wire(hidden, scaled=self.model.scaled)

    def answer(
        self, sent: WireTensor, tokens: int, draw: Draw | None, device: torch.device
    ) -> Tensor:
        """What the peer ``sent`` for a step of ``tokens``, see ``Stage.forward``.

        Raises:
            MismatchError: it can't be right.
        """
        if self.ends.head:
            return check_drawn(sent, draw, self.model.vocab_size, self.label)
        result = from_wire(sent, device, scaled=self.model.scaled)
        check_hidden(result, (1, tokens, self.model.d_model), self.model.dtype, self.label)
        return result

    async def forward(self, hidden: Tensor, position: int, draw: Draw | None = None) -> Tensor:
        """See ``Stage``; refuses an answer for other weights, blocks, position or session."""
        asked_s = time.perf_counter()
        step = Step(position, self.given(hidden), draw)
        sent_s = time.perf_counter()
        reply = await self.channel.request(step, timeout_s=STEP_TIMEOUT_S)
        answered_s = time.perf_counter()
        sent = (self._opened.fingerprint, self._opened.span, self._opened.epoch, position)
        if (reply.fingerprint, reply.span, reply.epoch, reply.position) != sent:
            raise MismatchError(
                f"{self.label} answered for position {reply.position} of blocks {reply.span}, "
                f"asked was position {position} of blocks {self.span}"
            )
        result = self.answer(reply.hidden, hidden.shape[1], draw, hidden.device)
        done_s = time.perf_counter()
        self.timing = HopTiming.round_trip(
            done_s - asked_s,
            queue_s=reply.queue_s,
            compute_s=reply.compute_s,
            serialise_s=(sent_s - asked_s) + (done_s - answered_s),
        )
        return result

    async def forward_to(self, following: RemoteStage, ticket: int, *, timeout_s: float) -> str:
        """Have the peer hand on relayed steps to ``following``; why it can't, or "".

        ``ticket`` is what it calls this by, should it no longer be able to.

        Raises:
            NetworkError: the session is lost, or no answer came in time.
        """
        request = Forward(ticket, following.peer_id, following._feed_key)
        self._hands_on = True
        return (await self.channel.request(request, timeout_s=timeout_s)).refusal

    async def answer_here(self, ticket: int, *, timeout_s: float) -> None:
        """Have the peer hand on no more: what it makes of relayed steps comes to this node.

        Raises:
            NetworkError: as ``forward_to``.
        """
        if self._hands_on:
            await self.channel.request(Forward(ticket, "", ""), timeout_s=timeout_s)
            self._hands_on = False

    async def truncate(self, length: int) -> None:
        """See ``Stage``."""
        reply = await self.channel.request(Truncate(length), timeout_s=STEP_TIMEOUT_S)
        if reply.length > length:
            raise MismatchError(f"{self.label} did not truncate its cache to {length}")

    async def aclose(self) -> None:
        """See ``Stage``."""
        await self.channel.aclose()
