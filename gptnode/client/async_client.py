"""A client for asyncio and for trio: nothing here blocks the event loop of whoever calls."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar, Unpack

from gptnode.client.feed import Feed
from gptnode.client.node_thread import NodeThread, Outcome
from gptnode.client.options import NodeOptions, opening
from gptnode.client.replies import Messages, Reply, Settings
from gptnode.errors import UsageError

if TYPE_CHECKING:
    from gptnode.client.answering import Ids
    from gptnode.node.service import Service, ServiceLoad
    from gptnode.node.swarm import HopView, PeerView

__all__ = ["AsyncClient", "AsyncTextStream"]

T = TypeVar("T")


class AsyncTextStream(AsyncIterator[str]):
    """As `TextStream`, for ``async for`` and ``async with``; for one task at a time."""

    def __init__(self, node: NodeThread[Service], ids: Ids, settings: Settings, is_chat: bool):
        """The answer begins."""
        from gptnode.client.answering import Asked

        self._pieces: Feed[str | Outcome[Reply]] = Feed()
        self._reply: Reply | None = None
        self._ended = False
        asked = Asked(ids, settings, is_chat, self._pieces)
        self._task = node.start(asked, self._pieces.put)

    @property
    def reply(self) -> Reply:
        """The answer.

        Raises:
            UsageError: it isn't complete, as not all of its text was read.
        """
        if self._reply is None:
            raise UsageError("the answer isn't complete: read all of the stream first")
        return self._reply

    async def __anext__(self) -> str:
        """The next text, never empty. Cancelled, it loses none.

        Raises:
            GptNodeError: the answer failed; what came before stands.
        """
        if self._ended:
            raise StopAsyncIteration
        piece = await self._pieces.aget()
        if isinstance(piece, str):
            return piece
        self._ended = True
        self._reply = piece.unwrap()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """End the answer."""
        self._ended = True
        self._task.cancel()

    async def __aenter__(self) -> Self:
        """Itself."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the answer if it is under way."""
        await self.aclose()

    def __del__(self) -> None:
        """End the answer that nobody can read any more."""
        if hasattr(self, "_task"):
            self._task.cancel()


class AsyncClient:
    """A node in this process, for asyncio and trio. ::

        async with AsyncClient(map="swarm.json", identity="laptop.key") as client:
            print(await client.chat("Why is the sky blue?"))

    Everything else is as with `Client`. Cancelling a call ends its answer.

    *Resource handling*: an async context manager; the node starts with the block, and is closed
    when the block has ended.
    """

    def __init__(self, **options: Unpack[NodeOptions]) -> None:
        """Nothing runs yet.

        Args:
            options: See `NodeOptions`.

        Raises:
            UsageError: they don't go together.
        """
        self._opening = opening(options)
        self._running: NodeThread[Service] | None = None

    async def __aenter__(self) -> Self:
        """Load the node's part of the model; peers are dialled with the first answer.

        Raises:
            GptNodeError: map, identity or model folder are wrong.
        """
        if self._running is not None:
            raise UsageError("the client has been opened before: make another one")
        self._running = NodeThread(self._opening)
        try:
            (await self._running.started.aget()).unwrap()
        except BaseException:
            self._running.stop()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""
        await self.aclose()

    async def aclose(self) -> None:
        """End what is under way, and wait until all is closed. Cancelled, it doesn't wait."""
        if self._running is not None:
            self._running.stop()
            await self._running.ended.aget()

    async def chat(self, messages: Messages, **settings: Unpack[Settings]) -> Reply:
        """See `Client.chat`."""
        return await _all_of(self.stream(messages, **settings))

    def stream(self, messages: Messages, **settings: Unpack[Settings]) -> AsyncTextStream:
        """See `Client.stream`."""
        from gptnode.client.answering import chat_ids

        return AsyncTextStream(self._node, chat_ids(messages), settings, True)

    async def complete(self, prompt: str | Sequence[int], **settings: Unpack[Settings]) -> Reply:
        """See `Client.complete`."""
        return await _all_of(self.stream_completion(prompt, **settings))

    def stream_completion(
        self, prompt: str | Sequence[int], **settings: Unpack[Settings]
    ) -> AsyncTextStream:
        """See `Client.stream_completion`."""
        from gptnode.client.answering import completion_ids

        return AsyncTextStream(self._node, completion_ids(prompt), settings, False)

    async def peers(self) -> tuple[PeerView, ...]:
        """All peers of the map, as they are now."""
        return await self._ask(lambda service: service.peers())

    async def hops(self) -> tuple[HopView, ...]:
        """The route as it is now."""
        return await self._ask(lambda service: service.hops())

    async def load(self) -> ServiceLoad:
        """How much is under way, and what was done so far."""
        return await self._ask(lambda service: service.load())

    async def reload(self) -> None:
        """See `Client.reload`."""
        await self._run(lambda service: service.reload())

    @property
    def _node(self) -> NodeThread[Service]:
        if self._running is None:
            raise UsageError("the client isn't open: use it inside `async with`")
        return self._running

    async def _ask(self, question: Callable[[Service], T]) -> T:
        async def ask(service: Service) -> T:
            return question(service)

        return await self._run(ask)

    async def _run(self, work: Callable[[Service], Awaitable[T]]) -> T:
        answers: Feed[Outcome[T]] = Feed()
        task = self._node.start(work, answers.put)
        try:
            return (await answers.aget()).unwrap()
        except BaseException:
            task.cancel()
            raise


async def _all_of(stream: AsyncTextStream) -> Reply:
    async with stream:
        async for _ in stream:
            pass
    return stream.reply
