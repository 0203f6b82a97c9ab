"""Opening stages: over this node's own blocks, or as sessions with peers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import trio

from gptnode.errors import GptNodeError, NetworkError, PeerUnreachableError
from gptnode.net.host import Host
from gptnode.node.commons import Commons
from gptnode.node.loading import ModelSource
from gptnode.node.remote_stage import RemoteStage
from gptnode.node.stages import Stage
from gptnode.routing.entries import NO_ENDS, PlacedEnds
from gptnode.routing.route import Hop
from gptnode.span import Span

__all__ = ["OpenFailure", "Opener", "close_all"]


class OpenFailure(Exception):
    """A peer that was asked for ``span`` failed with ``cause``."""

    def __init__(self, peer_id: str, span: Span, cause: GptNodeError) -> None:
        """Not raised: what came of opening is a list."""
        super().__init__(f"blocks {span} at {peer_id}: {cause}")
        self.peer_id = peer_id
        self.span = span
        self.cause = cause


class Opener:
    """Opens stages for hops, all at once.

    Resource handling: ``nursery`` owns the tasks of the sessions; the caller closes the stages.
    """

    def __init__(
        self,
        source: ModelSource,
        commons: Commons,
        nursery: trio.Nursery,
        host: Host | None,
        label: Callable[[str], str],
        addrs: Callable[[str], tuple[str, ...]],
        *,
        owner: str = "",
    ) -> None:
        """``label`` and ``addrs`` tell of a peer what people call it and where it is.

        ``owner`` is whose context it is, where this node's own blocks are shared.

        ``watch``, where it is set, makes of a session the stage that is used.
        """
        self.watch: Callable[[RemoteStage], Stage] | None = None
        self._source = source
        self._commons = commons
        self._nursery = nursery
        self._host = host
        self._label = label
        self._addrs = addrs
        self._owner = owner

    def peer_of(self, hop: Hop) -> str | None:
        """The peer that ``hop`` is to run on; None for this node."""
        peer_id = next(iter(hop.peer_ids), None)
        return None if self._host is not None and peer_id == self._host.peer_id else peer_id

    async def open_all(
        self, hops: Sequence[Hop], max_tokens: int
    ) -> tuple[list[Stage], list[OpenFailure]]:
        """A stage for each hop, in caches of ``max_tokens``; and what failed.

        Cancelled, it leaves no session behind.

        Raises:
            GptNodeError: this node's own blocks can't be loaded.
        """
        stages: list[Stage] = []
        failures: list[OpenFailure] = []
        own_errors: list[GptNodeError] = []

        async def open_one(hop: Hop) -> None:
            peer_id = self.peer_of(hop)
            try:
                stages.append(await self._open(hop, peer_id, max_tokens))
            except GptNodeError as error:
                if peer_id is None:
                    own_errors.append(error)
                else:
                    failures.append(OpenFailure(peer_id, hop.span, error))

        complete = False
        try:
            async with trio.open_nursery() as nursery:
                for hop in hops:
                    nursery.start_soon(open_one, hop)
            complete = not own_errors
        finally:
            if not complete:  # cancelled, or no peer can help
                await close_all(stages)
        if own_errors:
            raise own_errors[0]
        return stages, failures

    async def _open(self, hop: Hop, peer_id: str | None, max_tokens: int) -> Stage:
        if peer_id is None:
            return await self._commons.open_own(hop.span, max_tokens, self._owner, hop.ends)
        stage = await self.open_session(hop.span, peer_id, max_tokens, hop.ends)
        return stage if self.watch is None else self.watch(stage)

    async def open_session(
        self, span: Span, peer_id: str, max_tokens: int, ends: PlacedEnds = NO_ENDS
    ) -> RemoteStage:
        """A session with ``peer_id``, which the caller closes.

        Raises:
            GptNodeError: it can't be had.
        """
        if self._host is None:
            raise NetworkError("this node has no identity to dial peers with")
        label, addrs = self._label(peer_id), self._addrs(peer_id)
        if not addrs:
            raise PeerUnreachableError(f"no address of {label} is known")
        await self._host.connect(peer_id, addrs)
        return await RemoteStage.open(
            self._host, peer_id, label, span, self._source.key, max_tokens, self._nursery, ends
        )

    def close_soon(self, *stages: Stage) -> None:
        """Close in the background: saying goodbye to a frozen peer takes a second."""
        self._nursery.start_soon(close_all, stages)


async def close_all(stages: Sequence[Stage]) -> None:
    """Close all at once; a peer that is gone is no error."""
    async with trio.open_nursery() as nursery:
        for stage in stages:
            nursery.start_soon(stage.aclose)
