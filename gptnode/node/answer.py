"""An answer in the making: token ids become visible text until something ends it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from gptnode.errors import ContextError, UsageError
from gptnode.model.logprobs import TokenLogprob
from gptnode.model.sampler import Sampling
from gptnode.node.answer_sampler import AnswerSampler
from gptnode.node.generator import Generator
from gptnode.text.grammar import Grammar, GrammarMatcher
from gptnode.text.stops import StopMatcher, resolve_stops
from gptnode.text.tokenizer import StreamDecoder, Tokenizer

__all__ = ["Answer", "AnswerSettings", "Answering", "Grammar", "StopReason", "TokenLogprob"]

StopReason = Literal["end", "stop", "length", "context", "cancelled"]


@dataclass(frozen=True, slots=True)
class AnswerSettings:
    """How to answer.

    ``max_tokens``: the most, None: as the context allows. ``stop``: texts or ids that end it.
    ``top_logprobs``: to tell how likely the model found each token, and so many likeliest beside
    it; None: not at all. ``grammar``: the form that it has to have.

    Raises:
        UsageError: ``top_logprobs`` is below 0.
    """

    sampling: Sampling
    max_tokens: int | None = None
    stop: tuple[str | tuple[int, ...], ...] = ()
    top_logprobs: int | None = None
    grammar: Grammar | None = None

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.top_logprobs is not None and self.top_logprobs < 0:
            raise UsageError(f"top-logprobs must be 0 or more, not {self.top_logprobs}")


@dataclass(frozen=True, slots=True)
class Answer:
    """What came out. ``ids`` are all that was sampled, the token that ended the turn included."""

    text: str
    ids: tuple[int, ...]
    prompt_tokens: int
    completion_tokens: int
    stop_reason: StopReason
    prefill_s: float
    decode_s: float

    @property
    def tokens_per_s(self) -> float:
        """Speed of decoding: tokens after the first a second; 0 for fewer than two."""
        if self.completion_tokens < 2 or self.decode_s <= 0:
            return 0.0
        return (self.completion_tokens - 1) / self.decode_s


class Answering:
    """Async iterator over the visible text of one answer, piece by piece.

    A piece is withheld while it could be the beginning of a stop sequence or half a character.
    Cancelling leaves ``result()`` at what was shown. ``logprobs``, where they are asked for, are
    those of all tokens that were sampled so far, the token that ended the turn included.
    """

    def __init__(
        self,
        generator: Generator,
        tokenizer: Tokenizer,
        end_ids: frozenset[int],
        prompt_ids: Sequence[int],
        settings: AnswerSettings,
        *,
        on_token: Callable[[], object] = lambda: None,
    ) -> None:
        """``end_ids`` are the tokens that end a turn; ``on_token`` is called for each that comes.

        Raises:
            ContextError: the prompt leaves no room for an answer.
        """
        if not prompt_ids:
            raise ContextError("there is nothing to answer: the prompt is empty")
        if len(prompt_ids) >= generator.max_tokens:
            raise ContextError(
                f"the prompt has {len(prompt_ids)} tokens, the context {generator.max_tokens}"
            )
        self.logprobs: list[TokenLogprob] = []
        stops = resolve_stops(tokenizer, settings.stop)
        self._generator = generator
        self._on_token = on_token
        self._end_ids = end_ids
        self._max_tokens = settings.max_tokens
        grammar = settings.grammar
        self._sampler = AnswerSampler(
            settings.sampling,
            top_logprobs=settings.top_logprobs,
            prompt_tokens=len(prompt_ids),
            grammar=partial(GrammarMatcher, grammar, tokenizer, end_ids) if grammar else None,
        )
        self._decoder = StreamDecoder(tokenizer)
        self._matcher = StopMatcher(
            [stop for stop in stops if isinstance(stop, str)],
            [stop for stop in stops if not isinstance(stop, str)],
        )
        self._prompt_tokens = len(prompt_ids)
        self._ids = list(prompt_ids)
        self._text: list[str] = []
        self._stop_reason: StopReason | None = None
        self._started_s = time.perf_counter()
        self._first_s: float | None = None
        self._last_s = self._started_s
        self._meter = generator.answer_meter(len(prompt_ids))

    def __aiter__(self) -> Answering:
        """Itself."""
        return self

    async def __anext__(self) -> str:
        """The next visible text, never empty.

        Raises:
            GptNodeError: see ``Generator.next_token``; ``result()`` holds what came before.
        """
        while self._stop_reason is None:
            try:
                text = await self._advance()
            except BaseException as error:
                self._meter.ended("failed" if isinstance(error, Exception) else "cancelled")
                raise
            self._tell_end()
            if text:
                self._text.append(text)
                return text
        raise StopAsyncIteration

    def result(self) -> Answer:
        """The answer as far as it came; complete when the iteration has ended."""
        first_s = self._first_s if self._first_s is not None else self._last_s
        return Answer(
            "".join(self._text),
            tuple(self._ids[self._prompt_tokens :]),
            self._prompt_tokens,
            len(self._ids) - self._prompt_tokens,
            self._stop_reason or "cancelled",
            first_s - self._started_s,
            self._last_s - first_s,
        )

    async def _advance(self) -> str:
        """Sample one token; the text that it makes visible."""
        token_id = await self._generator.next_token(self._ids, self._sampler)
        logprob = self._sampler.take_logprob(len(self._ids))
        if logprob is not None:
            self.logprobs.append(logprob)
        self._ids.append(token_id)
        self._on_token()
        if self._generator.timing is not None:
            self._meter.token(self._generator.timing, self._generator.hops)
        self._last_s = time.perf_counter()
        if self._first_s is None:
            self._first_s = self._last_s
        if token_id in self._end_ids:
            return self._end("end")
        visible = self._matcher.push(token_id, self._decoder.push(token_id))
        if self._matcher.stopped is not None:
            self._stop_reason = "stop"
        elif len(self._ids) - self._prompt_tokens == self._max_tokens:
            visible += self._end("length")
        elif len(self._ids) >= self._generator.max_tokens:
            visible += self._end("context")
        return visible

    def _tell_end(self) -> None:
        if self._stop_reason is not None:
            self._meter.ended(self._stop_reason)

    def _end(self, reason: StopReason) -> str:
        """End the answer; the text that was withheld, now that nothing follows."""
        rest = self._matcher.finish(self._decoder.flush())
        self._stop_reason = "stop" if self._matcher.stopped is not None else reason
        return rest
