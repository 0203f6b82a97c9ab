"""A client for plain Python: each call blocks its thread, several threads may call at once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
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

__all__ = ["Client", "TextStream"]

T = TypeVar("T")


class TextStream(Iterator[str]):
    """The text of one answer, piece by piece, and the whole ``reply`` once it is complete.

    *Resource handling*: a context manager; ``close``, or leaving the block, ends an answer that is
    still under way, and peers free its caches. For one thread at a time.
    """

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

    def __next__(self) -> str:
        """The next text, never empty.

        Raises:
            GptNodeError: the answer failed; what came before stands.
        """
        if self._ended:
            raise StopIteration
        piece = self._pieces.get()
        if isinstance(piece, str):
            return piece
        self._ended = True
        self._reply = piece.unwrap()
        raise StopIteration

    def close(self) -> None:
        """End the answer."""
        self._ended = True
        self._task.cancel()

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the answer if it is under way."""
        self.close()

    def __del__(self) -> None:
        """End the answer that nobody can read any more."""
        if hasattr(self, "_task"):
            self._task.cancel()


class Client:
    """A node in this process, for plain threads. ::

        with Client(map="swarm.json", identity="laptop.key") as client:
            print(client.chat("Why is the sky blue?"))

    The node runs in a thread of its own. Answers that are asked for at once, by several threads,
    are computed together; each is what it would be alone. An answer that continues an earlier one
    finds the beginning in the peers' caches.

    *Resource handling*: a context manager; ``close`` ends what is under way, says goodbye to the
    peers and waits until all is closed. Safe for use from several threads.

    *Errors*: those of `gptnode.errors`, all of them `GptNodeError`.
    """

    def __init__(self, **options: Unpack[NodeOptions]) -> None:
        """Loads the node's part of the model; peers are dialled with the first answer.

        Args:
            options: See `NodeOptions`.

        Raises:
            GptNodeError: map, identity or model folder are wrong.
        """
        self._node: NodeThread[Service] = NodeThread(opening(options))
        try:
            self._node.started.get().unwrap()
        except BaseException:
            self._node.stop()
            raise

    def chat(self, messages: Messages, **settings: Unpack[Settings]) -> Reply:
        """The answer to a question, or to a conversation.

        Args:
            messages: A text, or mappings with ``role`` and ``content``.
            settings: See `Settings`.

        Raises:
            GptNodeError: it can't be answered.
        """
        return _all_of(self.stream(messages, **settings))

    def stream(self, messages: Messages, **settings: Unpack[Settings]) -> TextStream:
        """As `chat`, but the text as it comes. Closing the stream early ends the answer.

        Raises:
            UsageError: a message isn't one, or the client is closed.
        """
        from gptnode.client.answering import chat_ids

        return TextStream(self._node, chat_ids(messages), settings, True)

    def complete(self, prompt: str | Sequence[int], **settings: Unpack[Settings]) -> Reply:
        """What follows ``prompt``, a text or token ids, without any chat template.

        Raises:
            GptNodeError: it can't be answered.
        """
        return _all_of(self.stream_completion(prompt, **settings))

    def stream_completion(
        self, prompt: str | Sequence[int], **settings: Unpack[Settings]
    ) -> TextStream:
        """As `complete`, but the text as it comes."""
        from gptnode.client.answering import completion_ids

        return TextStream(self._node, completion_ids(prompt), settings, False)

    def peers(self) -> tuple[PeerView, ...]:
        """All peers of the map, as they are now."""
        return self._ask(lambda service: service.peers())

    def hops(self) -> tuple[HopView, ...]:
        """The route as it is now."""
        return self._ask(lambda service: service.hops())

    def load(self) -> ServiceLoad:
        """How much is under way, and what was done so far."""
        return self._ask(lambda service: service.load())

    def reload(self) -> None:
        """Read the BlocksMap again, and ask every peer anew.

        Raises:
            MapError: the file is wrong; the old map stays in force.
            UsageError: there is no map.
        """
        self._run(lambda service: service.reload())

    def close(self) -> None:
        """End what is under way, and wait until all is closed."""
        self._node.stop()
        self._node.join()

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""
        self.close()

    def _ask(self, question: Callable[[Service], T]) -> T:
        async def ask(service: Service) -> T:
            return question(service)

        return self._run(ask)

    def _run(self, work: Callable[[Service], Awaitable[T]]) -> T:
        answers: Feed[Outcome[T]] = Feed()
        task = self._node.start(work, answers.put)
        try:
            return answers.get().unwrap()
        except BaseException:
            task.cancel()
            raise


def _all_of(stream: TextStream) -> Reply:
    with stream:
        for _ in stream:
            pass
    return stream.reply
