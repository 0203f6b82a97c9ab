"""Text completions without HTTP: prompts as they are, without any chat template."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from functools import partial
from secrets import token_hex
from typing import TYPE_CHECKING, Any

from gptnode.api.choices import (
    Choice,
    Piece,
    Usage,
    answer_choice,
    answer_settings,
    finish_reason,
    longest_answer,
    run_all,
)
from gptnode.api.desk import Desk
from gptnode.api.errors import ApiError
from gptnode.api.logprobs import completion_logprobs
from gptnode.api.refusals import check_completion
from gptnode.api.schemas import CompletionRequest
from gptnode.model.logprobs import TokenLogprob

if TYPE_CHECKING:
    from gptnode.node.service import Service

__all__ = ["CompletionJob", "answer_completion", "prepare_completion"]

DEFAULT_MAX_TOKENS = 16
"""OpenAI's, where a text completion doesn't say."""

Emit = Callable[[dict[str, Any]], Awaitable[None]]


async def answer_completion(
    service: Service, request: CompletionRequest, *, desk: Desk | None = None
) -> dict[str, Any]:
    """The whole answer, as the body of OpenAI's ``text_completion``.

    Raises:
        ApiError: the request is wrong.
        GptNodeError: it can't be answered.
    """
    job = await prepare_completion(desk or Desk(service), request)
    return await job.whole()


async def prepare_completion(desk: Desk, request: CompletionRequest) -> CompletionJob:
    """Check a request and encode its prompts; nothing is computed yet.

    Raises:
        ApiError: the request is wrong.
    """
    desk.check_model(request.model)
    check_completion(request, desk.limits)
    asked = DEFAULT_MAX_TOKENS if request.max_tokens is None else request.max_tokens
    max_tokens = longest_answer(asked, desk.limits, "max_tokens")
    prompts = await _prompts(desk, request)
    n = request.n or 1
    choices = [
        Choice(
            index,
            ids,
            answer_settings(
                request,
                desk.defaults,
                max_tokens=max_tokens,
                stop=request.stops,
                top_logprobs=request.logprobs,
                index=index % n,
            ),
        )
        for index, ids in enumerate(ids for ids in prompts for _ in range(n))
    ]
    return CompletionJob(desk, request, choices)


async def _prompts(desk: Desk, request: CompletionRequest) -> list[tuple[int, ...]]:
    """The ids of each prompt."""
    items: list[Any]
    match request.prompt:
        case None | "" | []:
            raise ApiError(
                400, "prompt is missing", param="prompt", code="missing_required_parameter"
            )
        case str(text):
            items = [text]
        case [*ids] if all(isinstance(item, int) for item in ids):
            return [_known(desk, ids, "prompt")]
        case [*several] if not any(isinstance(item, int) for item in several):
            items = several
        case _:
            raise ApiError(
                400,
                "prompt is a text, a list of texts, token ids, or a list of lists of them",
                param="prompt",
                code="invalid_value",
            )
    most = desk.limits.max_choices // (request.n or 1)
    if len(items) > most:
        raise ApiError(
            400,
            f"prompt has {len(items)} items, {most} are allowed with n = {request.n or 1}",
            param="prompt",
            code="array_above_max_length",
        )
    return [
        tuple(await desk.encode(item))
        if isinstance(item, str)
        else _known(desk, item, f"prompt[{index}]")
        for index, item in enumerate(items)
    ]


def _known(desk: Desk, ids: list[Any], param: str) -> tuple[int, ...]:
    """Token ids, if the model has them all."""
    size = desk.service.model_config.vocab_size
    if not ids or any(token_id >= size for token_id in ids):
        raise ApiError(
            400,
            f"{param}: token ids are below {size}, and one at least",
            param=param,
            code="invalid_value",
        )
    return tuple(ids)


class CompletionJob:
    """A text completion that is ready to be computed, once."""

    def __init__(self, desk: Desk, request: CompletionRequest, choices: list[Choice]) -> None:
        """``choices``: ``n`` for each prompt, one behind the other."""
        self._desk = desk
        self._request = request
        self._choices = choices
        self._id = f"cmpl-{token_hex(16)}"
        self._created_s = int(time.time())
        self._usage = Usage()

    async def whole(self) -> dict[str, Any]:
        """Compute it; the body of a ``text_completion``."""
        texts = [self._echo(choice) for choice in self._choices]
        tokens: list[list[TokenLogprob]] = [[] for _ in self._choices]
        reasons = ["length"] * len(self._choices)

        async def said(index: int, piece: Piece) -> None:
            texts[index] += piece.text
            tokens[index].extend(piece.tokens)

        async def ended(index: int, reason: str) -> None:
            reasons[index] = reason

        await self._run(said, ended)
        choices = [
            {
                "index": index,
                "text": texts[index],
                "logprobs": self._logprobs(tokens[index], 0),
                "finish_reason": reasons[index],
            }
            for index in range(len(self._choices))
        ]
        return self._body(choices) | {"usage": self._usage.body()}

    async def chunks(self, emit: Emit) -> None:
        """Compute it; ``emit`` gets one ``text_completion`` object for each piece."""
        offsets = [0] * len(self._choices)
        usage = {"usage": None} if self._request.wants_usage else {}

        async def send(index: int, text: str, logprobs: Any, reason: str | None) -> None:
            choice = {"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason}
            await emit(self._body([choice]) | usage)

        async def said(index: int, piece: Piece) -> None:
            logprobs = self._logprobs(piece.tokens, offsets[index]) if piece.tokens else None
            offsets[index] += len(piece.text)
            await send(index, piece.text, logprobs, None)

        async def ended(index: int, reason: str) -> None:
            await send(index, "", None, reason)

        for choice in self._choices:
            echo = self._echo(choice)
            if echo:
                await send(choice.index, echo, None, None)
        await self._run(said, ended)
        if self._request.wants_usage:
            await emit(self._body([]) | {"usage": self._usage.body()})

    async def _run(
        self,
        said: Callable[[int, Piece], Awaitable[None]],
        ended: Callable[[int, str], Awaitable[None]],
    ) -> None:
        await run_all([partial(self._run_one, choice, said, ended) for choice in self._choices])

    async def _run_one(
        self,
        choice: Choice,
        said: Callable[[int, Piece], Awaitable[None]],
        ended: Callable[[int, str], Awaitable[None]],
    ) -> None:
        first = choice.index % (self._request.n or 1) == 0
        prompt_tokens = len(choice.ids) if first else 0
        if choice.settings.max_tokens == 0:
            self._count(prompt_tokens, 0, 0)
            await ended(choice.index, "length")
            return
        answer, reused = await answer_choice(
            self._desk.service, choice, partial(said, choice.index)
        )
        self._count(prompt_tokens, answer.completion_tokens, reused if first else 0)
        await ended(choice.index, finish_reason(answer))

    def _count(self, prompt_tokens: int, completion_tokens: int, cached_tokens: int) -> None:
        before = self._usage
        self._usage = Usage(
            before.prompt_tokens + prompt_tokens,
            before.completion_tokens + completion_tokens,
            before.cached_tokens + cached_tokens,
        )

    def _echo(self, choice: Choice) -> str:
        """The prompt, where it is to stand before the answer."""
        return self._desk.service.tokenizer.decode(choice.ids) if self._request.echo else ""

    def _logprobs(
        self, tokens: tuple[TokenLogprob, ...] | list[TokenLogprob], offset: int
    ) -> dict[str, Any] | None:
        if self._request.logprobs is None:
            return None
        return completion_logprobs(self._desk.service.tokenizer, tokens, offset)

    def _body(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self._id,
            "object": "text_completion",
            "created": self._created_s,
            "model": self._desk.service.model_name,
            "system_fingerprint": self._desk.system_fingerprint,
            "choices": choices,
        }
