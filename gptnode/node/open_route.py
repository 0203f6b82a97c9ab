"""The route that one context has open: its stages, and how they come to be whole again.

``complete`` is the one answer to every trouble of the route, and to every edit of the map: it opens
what is missing and leaves alone what is there, and waits where nobody can help now.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import trio

from gptnode.errors import GptNodeError, PeerBusyError, RouteError
from gptnode.node.opening import Opener, OpenFailure, close_all
from gptnode.node.patience import Patience
from gptnode.node.peer_book import PeerBook
from gptnode.node.planning import Planner
from gptnode.node.route_news import RouteNews
from gptnode.node.stages import HopFailure, Stage
from gptnode.routing.route import Hop
from gptnode.span import Span

__all__ = ["OpenRoute"]


class OpenRoute:
    """The stages in use, in the order of their blocks, those of lost peers among them.

    Resource handling: stages that leave are closed in the background, by ``nursery``; ``close``
    closes those in use.
    """

    def __init__(
        self,
        planner: Planner,
        opener: Opener,
        patience: Patience,
        book: PeerBook,
        news: RouteNews,
        nursery: trio.Nursery,
        make_room: Callable[[str], Awaitable[bool]] | None,
    ) -> None:
        """No stages yet.

        Args:
            planner: Knows which hops to have.
            opener: Opens them.
            patience: Waits for peers.
            book: Knows them.
            news: Told what happens.
            nursery: Closes stages in the background.
            make_room: Called with a peer that is busy; whether it is to be asked again at once.
        """
        self.stages: tuple[Stage, ...] = ()
        self._planner = planner
        self._opener = opener
        self._patience = patience
        self._book = book
        self._news = news
        self._nursery = nursery
        self._make_room = make_room
        self._edits = 0  # of the routes, so far
        self._edits_in_force = 0  # up to which the stages follow them

    @property
    def up_to_date(self) -> bool:
        """Whether the stages are those that the last edit of the routes wants."""
        return self._edits == self._edits_in_force

    @property
    def is_whole(self) -> bool:
        """Whether stages are open for all blocks, alive, and as the map wants them."""
        return (
            self.up_to_date
            and not any(stage.lost for stage in self.stages)
            and not self._planner.gaps(stage.span for stage in self.stages)
        )

    def edited(self) -> None:
        """The planner wants other hops, or a person wants the best ones again."""
        self._edits += 1

    async def complete(self, max_tokens: int) -> tuple[Stage, ...]:
        """The stages in use, with those opened that are missing, in caches of ``max_tokens``.

        After an edit of the routes, the stages that the map no longer wants are closed once their
        successors are open. Cancelled, or without success, it leaves the stages in use as they
        were and no others.

        Raises:
            GptNodeError: some blocks have no live peer, and none came in time: what the peer that
                could serve them failed with, or RouteError where several did.
        """
        for stage in self.stages:
            if stage.lost is not None:
                self.blame(HopFailure(stage, stage.lost))
        opened: list[Stage] = []
        try:
            while True:
                edits = self._edits
                hops = await self._plan(opened)
                alive = self._alive(opened)
                pool = {(stage.peer_id, stage.span, stage.ends): stage for stage in alive}
                found = [pool.get((self._opener.peer_of(hop), hop.span, hop.ends)) for hop in hops]
                if None not in found and edits == self._edits:
                    break
                missing = [hop for hop, stage in zip(hops, found, strict=True) if stage is None]
                stages, failures = await self._opener.open_all(missing, max_tokens)
                opened += stages
                for failure in failures:
                    if not await self._has_room_now(failure, opened):
                        self._note(failure.peer_id, failure.span, failure.cause, was_open=False)
        except BaseException:
            self.retire_soon(opened)
            raise
        chosen = tuple(stage for stage in found if stage is not None)
        before, self.stages, self._edits_in_force = self.stages, chosen, edits
        self._news.whole(before, chosen, opened)
        self.retire_soon([stage for stage in (*before, *opened) if stage not in chosen])
        return chosen

    def blame(self, failure: HopFailure) -> None:
        """Remember whose hop failed, and do without it; `complete` says what came of it."""
        stage = failure.stage
        if stage.peer_id is None or stage not in self.stages:
            return
        self.take_out([stage])
        self._note(stage.peer_id, stage.span, failure.cause, was_open=True, slow=failure.slow)

    def take_out(self, stages: Sequence[Stage]) -> None:
        """Use ``stages`` no more."""
        self.stages = tuple(stage for stage in self.stages if stage not in stages)
        self.retire_soon(stages)

    def retire_soon(self, stages: Sequence[Stage]) -> None:
        """Close ``stages``, then leave the peers that the map no longer knows.

        In the background: saying goodbye to a frozen peer takes a second.
        """
        self._nursery.start_soon(self._retire, stages)

    async def close(self) -> None:
        """Close all stages."""
        stages, self.stages = self.stages, ()
        await close_all(stages)

    async def _plan(self, opened: Sequence[Stage]) -> list[Hop]:
        """The hops to have; waits for peers where some blocks have none that is live."""
        while True:
            kept = self._alive(opened)
            own = () if self._planner.own_id is None else (self._planner.own_id,)
            try:
                if not self.up_to_date or not kept:
                    return list(self._planner.whole())
                hops = [
                    self._planner.hop(own if one.peer_id is None else (one.peer_id,), one.span)
                    for one in kept
                ]
                new = self._planner.around(hop.span for hop in hops)
                return sorted((*hops, *new), key=lambda hop: hop.span)
            except RouteError as no_route:
                lacks = self._planner.gaps(stage.span for stage in kept if self.up_to_date)
                self._news.waits()
                await self._patience.wait(no_route, lacks)

    async def _has_room_now(self, failure: OpenFailure, opened: list[Stage]) -> bool:
        """Whether a peer that was busy is to be asked again at once; ends the ``opened``.

        Contexts that wait for each other's peers must not each hold what the other one needs.
        """
        if self._make_room is None or not isinstance(failure.cause, PeerBusyError):
            return False
        await close_all(opened)
        opened.clear()
        return await self._make_room(failure.peer_id)

    def _note(
        self, peer_id: str, span: Span, cause: GptNodeError, *, was_open: bool, slow: bool = False
    ) -> None:
        told = cause.about(f"{self._book.label(peer_id)} (blocks {span})")
        trouble = self._planner.health.note(peer_id, told, was_open=was_open, slow=slow)
        self._news.failed(peer_id, told, trouble.kind, was_open=was_open)

    def _alive(self, opened: Sequence[Stage]) -> list[Stage]:
        """The stages in use and those just opened, in order, without those that are lost."""
        stages = (*self.stages, *opened)
        alive = (stage for stage in stages if stage.lost is None)
        return sorted(alive, key=lambda stage: stage.span)

    async def _retire(self, stages: Sequence[Stage]) -> None:
        await close_all(stages)
        await self._book.leave_strays()
