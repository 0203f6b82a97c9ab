"""Choices of one request: several answers side by side, each over a context of its own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import trio

from gptnode.api.config import ApiLimits, Defaults
from gptnode.api.errors import ApiError
from gptnode.api.logprobs import ShownTokens
from gptnode.api.schemas import SamplingFields
from gptnode.errors import UsageError
from gptnode.model.logprobs import TokenLogprob
from gptnode.model.sampler import Sampling
from gptnode.node.answer import Answer, AnswerSettings
from gptnode.text.grammar import Grammar

if TYPE_CHECKING:
    from gptnode.node.service import Service

__all__ = [
    "Choice",
    "Piece",
    "Usage",
    "answer_choice",
    "answer_settings",
    "finish_reason",
    "run_all",
]

MIN_TOP_P = 1e-9
SEEDS = 2**63


@dataclass(frozen=True, slots=True)
class Piece:
    """Text of an answer that is new, and its tokens where log probabilities are wanted."""

    text: str
    tokens: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Choice:
    """One answer that is wanted: to which ids, and how."""

    index: int
    ids: tuple[int, ...]
    settings: AnswerSettings
    form_param: str = ""
    """The field of the request that asked for the form of the answer, if one did."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of a request; a prompt counts once, however many answers it has."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0

    def body(self) -> dict[str, Any]:
        """As OpenAI's API has it."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens},
        }


async def answer_choice(
    service: Service, choice: Choice, emit: Callable[[Piece], Awaitable[None]]
) -> tuple[Answer, int]:
    """Answer one choice; the answer, and how many tokens of its prompt were in caches already.

    Raises:
        ApiError: the form of the answer can't be kept to.
        GptNodeError: the prompt is too long, this node is full, or no peer lives.
    """
    try:
        async with service.context(choice.ids) as context:
            answering = context.answer(choice.ids, choice.settings)
            reused_tokens = context.reused_tokens
            shown = ShownTokens(service.tokenizer)
            async for text in answering:
                await emit(Piece(text, shown.take(text, answering.logprobs)))
            return answering.result(), reused_tokens
    except UsageError as error:
        param = choice.form_param
        if not param:
            raise
        raise ApiError(
            400, f"{param}: {error.detail}", param=param, code="invalid_value"
        ) from error


def answer_settings(
    request: SamplingFields,
    defaults: Defaults,
    *,
    max_tokens: int | None,
    stop: tuple[str | tuple[int, ...], ...],
    top_logprobs: int | None,
    index: int,
    grammar: Grammar | None = None,
) -> AnswerSettings:
    """How the choice of that ``index`` is to be answered; each has a seed of its own."""

    def given(value: float | None, default: float) -> float:
        return default if value is None else value

    top_k = defaults.top_k if request.top_k is None else request.top_k
    sampling = Sampling(
        temperature=given(request.temperature, defaults.temperature),
        top_p=max(given(request.top_p, defaults.top_p), MIN_TOP_P),
        top_k=max(top_k, 0),
        min_p=given(request.min_p, defaults.min_p),
        repetition_penalty=given(request.repetition_penalty, defaults.repetition_penalty),
        seed=None if request.seed is None else (request.seed + index) % SEEDS,
    )
    return AnswerSettings(sampling, max_tokens, stop, top_logprobs, grammar)


def longest_answer(asked: int | None, limits: ApiLimits, param: str) -> int | None:
    """How many tokens an answer may have; None: as far as the context reaches.

    Raises:
        ApiError: more were asked for than this server gives.
    """
    most = limits.max_answer_tokens
    if most is not None and asked is not None and asked > most:
        raise ApiError(400, f"{param} is at most {most} here", param=param, code="invalid_value")
    return most if asked is None else asked


def finish_reason(answer: Answer) -> str:
    """Why an answer ended, in OpenAI's words."""
    return "length" if answer.stop_reason in ("length", "context") else "stop"


async def run_all(tasks: Sequence[Callable[[], Awaitable[None]]]) -> None:
    """All of ``tasks`` side by side; the first error ends the others and comes out as it is."""
    if len(tasks) == 1:
        await tasks[0]()
        return
    try:
        async with trio.open_nursery() as nursery:
            for task in tasks:
                nursery.start_soon(task)
    except BaseExceptionGroup as group:
        errors = group.split(trio.Cancelled)[1]
        if errors is None:
            raise
        raise _first(errors) from None


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
