"""A chat without a terminal: one client, one conversation, the settings, and what was measured.

Everything that a command or a prompt does to a chat happens here, and each operation either
succeeds or leaves the chat as it was. This file knows no terminal, no commands and no network.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from gptnode.cli.settings import ChatSettings, changed
from gptnode.errors import ContextError, ContextFileError
from gptnode.text.context_file import load_context, save_context
from gptnode.text.conversation import Conversation

if TYPE_CHECKING:
    from gptnode.node.answer import Answer, Answering
    from gptnode.node.client import Client

__all__ = ["ChatSession", "SessionTotals"]


@dataclass(frozen=True, slots=True)
class SessionTotals:
    """What a chat has cost so far."""

    answers: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    prefill_s: float = 0.0
    decode_s: float = 0.0

    def plus(self, answer: Answer) -> SessionTotals:
        """These totals with one more answer in them."""
        return SessionTotals(
            answers=self.answers + 1,
            prompt_tokens=self.prompt_tokens + answer.prompt_tokens,
            completion_tokens=self.completion_tokens + answer.completion_tokens,
            prefill_s=self.prefill_s + answer.prefill_s,
            decode_s=self.decode_s + answer.decode_s,
        )

    @property
    def tokens_per_s(self) -> float:
        """Mean decoding speed; 0 before the first token."""
        return self.completion_tokens / self.decode_s if self.decode_s > 0 else 0.0


class ChatSession:
    """One chat over one client.

    *Cancellation*: `ask` and `retry` may be cancelled, or ended early by `stop`, at any time. What
    was generated until then stays in the context as the (partial) answer; a question that got no
    token at all is taken back, and `retry` asks it again.

    *Errors*: a `GptNodeError` of the client passes through after the same clean-up.
    """

    def __init__(
        self, client: Client, settings: ChatSettings, *, system: str | None = None
    ) -> None:
        """An empty chat, with ``system`` before its first question."""
        self.client = client
        self.settings = settings
        self.conversation = Conversation(client.tokenizer, client.template, system)
        self.totals = SessionTotals()
        self.last_answer: Answer | None = None
        self.asked_tokens = 0
        self._unanswered: str | None = None
        self._under_way: trio.CancelScope | None = None

    @property
    def context_tokens(self) -> int:
        """How many tokens the context holds now."""
        return len(self.conversation.ids)

    @property
    def answering(self) -> bool:
        """Whether an answer is under way."""
        return self._under_way is not None

    async def ask(self, text: str, show: Callable[[str], None]) -> Answer:
        """Asks ``text`` and calls ``show`` with each piece of the answer as it comes."""
        ids = self.conversation.ask(text)
        self._unanswered = text
        return await self._answer(ids, show)

    async def retry(self, show: Callable[[str], None]) -> Answer:
        """Asks the last question again: the one without an answer, or else the last turn's.

        Raises:
            ContextError: there is none.
        """
        if self._unanswered is not None:
            return await self.ask(self._unanswered, show)
        return await self._answer(self.conversation.retry(), show)

    def stop(self) -> None:
        """Ends the answer that is under way, if there is one; it becomes a "cancelled" one."""
        if self._under_way is not None:
            self._under_way.cancel()

    async def _answer(self, ids: list[int], show: Callable[[str], None]) -> Answer:
        """Streams one answer; whatever ends it, the conversation holds just what was generated."""
        question = self.conversation.turns[-1].text
        self.asked_tokens = len(ids)
        answering: Answering | None = None
        try:
            answering = self.client.answer(
                ids, self.settings.answer_settings(self.client.default_stop)
            )
            with trio.CancelScope() as self._under_way:
                async for piece in answering:
                    show(piece)
        finally:
            self._under_way = None
            answer = None if answering is None else answering.result()
            self._record(question, answer)
        return answering.result()

    def _record(self, question: str, answer: Answer | None) -> None:
        """Puts the answer into the conversation, or takes the question back if there is none."""
        if answer is not None:
            self.last_answer = answer
            self.totals = self.totals.plus(answer)
        if answer is None or not answer.ids:
            self.conversation.undo()
            self._unanswered = question
        else:
            self.conversation.answered(answer.ids, answer.text)
            self._unanswered = None

    def undo(self) -> None:
        """Takes back the last question with its answer; ContextError if there is none."""
        self._unanswered = None
        self.conversation.undo()

    async def clear(self) -> None:
        """Empties the context (not the system text), its caches on all peers, and the totals."""
        self.conversation.clear()
        self._unanswered = None
        self.last_answer = None
        self.totals = SessionTotals()
        await self.client.forget()

    def save(self, path: Path) -> int:
        """Writes the token context to ``path``; returns how many tokens it was.

        An existing file is replaced only when the new one is complete.

        Raises:
            ContextError: the context is empty, or the file can't be written.
        """
        ids = self.conversation.ids
        if not ids:
            raise ContextError("there is nothing to save: the context is empty")
        save_context(path, ids, self.client.fingerprint, self.client.model_name)
        return len(ids)

    def load(self, path: Path) -> int:
        """Replaces the context by that of a file; returns how many tokens it was.

        Raises:
            ContextError: the file is not a context of this model, or longer than the context may
                be. The chat then stays as it was.
        """
        ids = load_context(path, self.client.model_config.vocab_size, self.client.fingerprint)
        if len(ids) >= self.client.context_limit_tokens:
            raise ContextFileError(
                f"{path} holds {len(ids)} tokens and the context has room for "
                f"{self.client.context_limit_tokens}"
            )
        self.conversation.load(ids)
        self._unanswered = None
        return len(ids)

    def set_system(self, text: str) -> None:
        """Sets the system text, or removes it if ``text`` is empty, from the next question on."""
        self.conversation.set_system(text or None)

    def set(self, name: str, value: str) -> None:
        """Sets one setting from text; UsageError leaves all of them as they were."""
        self.settings = changed(self.settings, name, value)

    async def reload(self) -> None:
        """Reads the BlocksMap again; an error leaves the old map in force."""
        await self.client.reload()

    async def connect(self, peer_id: str, addr: str) -> None:
        """Dials a peer at an address."""
        await self.client.connect(peer_id, addr)
