"""Stop sequences: what ends an answer, and what of an answer may be shown before that is clear.

Knows ids and text as they come out of a tokenizer, not what they mean or who shows them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from gptnode.errors import TextError
from gptnode.text.tokenizer import Tokenizer

__all__ = ["StopMatcher", "resolve_stops"]


class StopMatcher:
    """Watches a stream of tokens for the first stop sequence, across token and chunk borders.

    The visible text is the whole text up to the first place where a stop string begins, or up to
    the first token of a stop sequence of ids. What could still become a stop is withheld, and no
    more than that: fewer characters than the longest string, fewer tokens than the longest
    sequence.
    """

    def __init__(
        self, strings: Sequence[str] = (), id_sequences: Sequence[Sequence[int]] = ()
    ) -> None:
        """Duplicates are harmless.

        Raises:
            TextError: a stop sequence is empty, and would end every answer before it begins.
        """
        self._strings = tuple(dict.fromkeys(strings))
        self._id_sequences = tuple(dict.fromkeys(tuple(ids) for ids in id_sequences))
        if "" in self._strings or () in self._id_sequences:
            raise TextError("a stop sequence is empty")
        self._longest_string = max(map(len, self._strings), default=0)
        self._held_tokens: deque[tuple[int, str]] = deque()
        self._held_text = ""
        self._finished = False
        self.stopped: str | tuple[int, ...] | None = None
        """The stop sequence that was found."""

    def push(self, token_id: int, text: str) -> str:
        """Takes a token and the text that it made complete; returns what may be shown now."""
        if self.stopped is not None or self._finished:
            return ""
        self._held_tokens.append((token_id, text))
        ids = tuple(held_id for held_id, _ in self._held_tokens)
        for sequence in sorted(self._id_sequences, key=len, reverse=True):
            if ids[-len(sequence) :] == sequence:
                return self._stop_at(sequence)
        return self._show(self._release_tokens(self._tokens_in_doubt(ids)))

    def finish(self, text: str = "") -> str:
        """Ends the stream with ``text``, which belongs to no token; returns all that is left."""
        if self.stopped is not None or self._finished:
            return ""
        self._finished = True
        return self._show_all(self._release_tokens(0) + text)

    def flush(self) -> str:
        """Ends the stream; returns all that is left to show."""
        return self.finish()

    def _tokens_in_doubt(self, ids: tuple[int, ...]) -> int:
        """How many of the last ids could begin a stop sequence of ids."""
        longest = max(map(len, self._id_sequences), default=1) - 1
        for length in range(min(longest, len(ids)), 0, -1):
            if any(sequence[:length] == ids[-length:] for sequence in self._id_sequences):
                return length
        return 0

    def _release_tokens(self, keep: int) -> str:
        """The text of the held tokens except the last ``keep``."""
        pieces: list[str] = []
        while len(self._held_tokens) > keep:
            pieces.append(self._held_tokens.popleft()[1])
        return "".join(pieces)

    def _stop_at(self, sequence: tuple[int, ...]) -> str:
        """Ends the answer before the tokens of ``sequence``, unless a string ends it earlier."""
        visible = self._show_all(self._release_tokens(len(sequence)))
        self._held_tokens.clear()
        if self.stopped is None:
            self.stopped = sequence
        return visible

    def _show(self, text: str) -> str:
        """Withholds what could begin a stop string; an earlier beginning wins over a later stop."""
        self._held_text += text
        position, stop = self._first_stop()
        doubtful_from = max(0, len(self._held_text) - self._longest_string + 1)
        for start in range(doubtful_from, min(position, len(self._held_text))):
            rest = self._held_text[start:]
            if any(string.startswith(rest) for string in self._strings):
                visible, self._held_text = self._held_text[:start], rest
                return visible
        self.stopped = stop
        visible, self._held_text = self._held_text[:position], ""
        return visible

    def _show_all(self, text: str) -> str:
        """As `_show`, now that no more text follows."""
        self._held_text += text
        position, self.stopped = self._first_stop()
        visible, self._held_text = self._held_text[:position], ""
        return visible

    def _first_stop(self) -> tuple[int, str | None]:
        """Where the first whole stop string begins in the held text; its end if there is none."""
        best: tuple[int, str | None] = (len(self._held_text), None)
        for string in self._strings:
            position = self._held_text.find(string)
            if 0 <= position < best[0]:
                best = (position, string)
        return best


def resolve_stops(
    tokenizer: Tokenizer, stops: Iterable[str | Sequence[int]]
) -> tuple[str | tuple[int, ...], ...]:
    """Stop sequences as `StopMatcher` can find them, without duplicates.

    A special token has no text in an answer: a stop string that is one becomes its id.
    """
    resolved: list[str | tuple[int, ...]] = []
    for stop in stops:
        if not isinstance(stop, str):
            resolved.append(tuple(stop))
            continue
        token_id = tokenizer.special_id(stop)
        resolved.append(stop if token_id is None else (token_id,))
    return tuple(dict.fromkeys(resolved))
