"""Conversation: the token ids of a chat, and the turns that they stand for.

The ids are the truth (they are what every cache is built from); texts are kept to show them and to
build the ids anew when the system text changes. Knows no model and no terminal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from gptnode.errors import ContextError, TextError
from gptnode.text.template import ChatTemplate, Turn
from gptnode.text.tokenizer import Tokenizer
from gptnode.text.turn_join import encode_prompt, join_ids, next_turn_text

__all__ = ["Conversation"]


@dataclass(frozen=True, slots=True)
class _Exchange:
    """A question with its answer, and their ids."""

    question: str
    prompt_ids: tuple[int, ...]
    answer_ids: tuple[int, ...] = ()
    answer: str | None = None
    """None while it is awaited."""

    @property
    def ids_after(self) -> tuple[int, ...]:
        """The whole context with this exchange in it."""
        return self.prompt_ids + self.answer_ids


class Conversation:
    """A chat as ids. Each method either succeeds or leaves the conversation as it was."""

    def __init__(
        self, tokenizer: Tokenizer, template: ChatTemplate, system: str | None = None
    ) -> None:
        """Empty, with ``system`` before its first question."""
        self._tokenizer = tokenizer
        self._template = template
        self._system = system
        self._base_ids: tuple[int, ...] = ()
        self._exchanges: tuple[_Exchange, ...] = ()

    @property
    def ids(self) -> tuple[int, ...]:
        """The whole context: what was asked and exactly what was sampled."""
        return self._exchanges[-1].ids_after if self._exchanges else self._base_ids

    @property
    def system(self) -> str | None:
        """The system text."""
        return self._system

    @property
    def turns(self) -> tuple[Turn, ...]:
        """User and assistant turns whose texts are known: those since `load`, if there was one."""
        turns: list[Turn] = []
        for exchange in self._exchanges:
            turns.append(Turn("user", exchange.question))
            if exchange.answer is not None:
                turns.append(Turn("assistant", exchange.answer))
        return tuple(turns)

    @property
    def awaits_answer(self) -> bool:
        """Whether the last question has no answer yet."""
        return bool(self._exchanges) and self._exchanges[-1].answer is None

    def ask(self, text: str) -> list[int]:
        """Adds the user's turn; returns the whole prompt.

        The ids so far stay as they are, and only the new turn is rendered and encoded.

        Raises:
            ContextError: the question before has no answer yet.
            TextError: the template fails, or can't continue a context of bare ids.
        """
        if self.awaits_answer:
            raise ContextError("the question before has no answer yet")
        prompt_ids = tuple(self._prompt(text))
        self._exchanges = (*self._exchanges, _Exchange(text, prompt_ids))
        return list(prompt_ids)

    def answered(self, ids: Sequence[int], text: str) -> None:
        """Records what was sampled, the token that ended it included, and its visible text.

        No ids and no text are an answer that was stopped before it began: the question stands, and
        can be retried or undone.

        Raises:
            ContextError: no question awaits an answer.
        """
        if not self.awaits_answer:
            raise ContextError("no question awaits an answer")
        answered = replace(self._exchanges[-1], answer_ids=tuple(ids), answer=text)
        self._exchanges = (*self._exchanges[:-1], answered)

    def undo(self) -> None:
        """Takes back the last question, and its answer if it has one; the ids are as before it.

        Raises:
            ContextError: there is none.
        """
        self._last("take back")
        self._exchanges = self._exchanges[:-1]

    def retry(self) -> list[int]:
        """Takes back the last answer; returns the prompt that it answered.

        Raises:
            ContextError: there is none.
        """
        last = self._last("ask again")
        asked = replace(last, answer_ids=(), answer=None)
        self._exchanges = (*self._exchanges[:-1], asked)
        return list(asked.prompt_ids)

    def clear(self) -> None:
        """Empties the context; the system text stays."""
        self._base_ids = ()
        self._exchanges = ()

    def load(self, ids: Sequence[int]) -> None:
        """Replaces the context by bare ids, to go on from there; their texts are not known."""
        self._base_ids = tuple(ids)
        self._exchanges = ()

    def set_system(self, text: str | None) -> None:
        """Sets the system text, or removes it.

        What was asked is rendered anew around the answers, whose ids stay what was sampled.

        Raises:
            ContextError: the context was loaded: where its system text stands isn't known.
            TextError: the template fails.
        """
        if self._base_ids:
            raise ContextError("the system text of a loaded context can't be changed")
        anew = Conversation(self._tokenizer, self._template, text)
        for exchange in self._exchanges:
            anew.ask(exchange.question)
            if exchange.answer is not None:
                anew.answered(exchange.answer_ids, exchange.answer)
        self._system = text
        self._exchanges = anew._exchanges

    def _last(self, verb: str) -> _Exchange:
        """The last exchange."""
        if not self._exchanges:
            loaded = " since the context was loaded" if self._base_ids else ""
            raise ContextError(f"there is no question{loaded} to {verb}")
        return self._exchanges[-1]

    def _prompt(self, question: str) -> list[int]:
        """All ids to prefill for ``question``."""
        if not self.ids:
            return self._whole_prompt(question)
        folded = bool(self._system) and not self._template.takes_system_text()
        system = [] if folded else self._system_turns()
        joint = next_turn_text(self._template, system, question)
        if joint is not None:
            return join_ids(self._tokenizer, self._template.stops, self.ids, *joint)
        if self._base_ids:
            raise TextError(
                f"the chat template {self._template.name!r} can't continue a loaded context"
            )
        return self._whole_prompt(question)

    def _whole_prompt(self, question: str) -> list[int]:
        """All turns rendered and encoded from their texts."""
        system = self._system_turns()
        turns = [*self.turns, Turn("user", question)]
        if system and not self._template.takes_system_text():
            # What a person would do: say it with the first question.
            turns[0] = Turn("user", f"{system[0].text}\n\n{turns[0].text}")
            system = []
        text = self._template.render([*system, *turns], add_generation_prompt=True)
        return encode_prompt(self._tokenizer, text)

    def _system_turns(self) -> list[Turn]:
        """The system turn, if there is one."""
        return [Turn("system", self._system)] if self._system else []
