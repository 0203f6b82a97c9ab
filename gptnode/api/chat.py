"""Chat completions without HTTP: a request becomes answers, as a whole or chunk by chunk.

`answer_chat` is what `gptnode batch` calls too.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
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
from gptnode.api.forms import answer_form, offered_tools
from gptnode.api.logprobs import chat_logprobs
from gptnode.api.refusals import check_chat
from gptnode.api.schemas import ChatRequest
from gptnode.api.tool_calls import CallReader, MadeCall, call_style
from gptnode.model.logprobs import TokenLogprob

if TYPE_CHECKING:
    from gptnode.node.service import Service

__all__ = ["ChatJob", "answer_chat", "prepare_chat"]

Emit = Callable[[dict[str, Any]], Awaitable[None]]


async def answer_chat(
    service: Service, request: ChatRequest, *, desk: Desk | None = None
) -> dict[str, Any]:
    """The whole answer, as the body of OpenAI's ``chat.completion``.

    Args:
        service: Answers.
        request: Its field ``stream`` is not looked at.
        desk: Of that service; makes conversations that go on reuse their ids.

    Raises:
        ApiError: the request is wrong.
        GptNodeError: it can't be answered.
    """
    job = await prepare_chat(desk or Desk(service), request)
    return await job.whole()


async def prepare_chat(desk: Desk, request: ChatRequest) -> ChatJob:
    """Check a request and make its prompt; nothing is computed yet.

    Raises:
        ApiError: the request is wrong.
        TextError: the chat template refuses it.
    """
    desk.check_model(request.model)
    check_chat(request, desk.limits)
    param = "max_completion_tokens" if request.max_completion_tokens else "max_tokens"
    max_tokens = longest_answer(
        request.max_completion_tokens or request.max_tokens, desk.limits, param
    )
    style = call_style(desk.service.template.tool_source) if offered_tools(request) else None
    form = answer_form(request, style)
    text, ids = await desk.prompt(request, form.opening)
    choices = [
        Choice(
            index,
            tuple(ids),
            answer_settings(
                request,
                desk.defaults,
                max_tokens=max_tokens,
                stop=(*desk.service.default_stop, *request.stops),
                top_logprobs=(request.top_logprobs or 0) if request.logprobs else None,
                index=index,
                grammar=form.grammar,
            ),
            form.param,
        )
        for index in range(request.n or 1)
    ]
    reader = partial(CallReader, style, form.opening) if style is not None else None
    return ChatJob(desk, request, text, choices, reader)


@dataclass(slots=True)
class _Said:
    """What a choice has said so far."""

    texts: list[str] = field(default_factory=list)
    calls: list[MadeCall] = field(default_factory=list)
    tokens: list[TokenLogprob] = field(default_factory=list)
    finish_reason: str = "stop"


class ChatJob:
    """A chat completion that is ready to be computed, once."""

    def __init__(
        self,
        desk: Desk,
        request: ChatRequest,
        prompt: str,
        choices: list[Choice],
        reader: Callable[[], CallReader] | None,
    ) -> None:
        """``reader`` makes what reads calls out of one answer; None where there are no tools."""
        self._desk = desk
        self._request = request
        self._prompt = prompt
        self._choices = choices
        self._reader = reader
        self._id = f"chatcmpl-{token_hex(16)}"
        self._created_s = int(time.time())
        self._usage = Usage()

    async def whole(self) -> dict[str, Any]:
        """Compute it; the body of a ``chat.completion``."""
        said = [_Said() for _ in self._choices]

        async def gather(index: int, found: str | MadeCall, piece: Piece | None) -> None:
            if isinstance(found, str):
                said[index].texts.append(found)
            else:
                said[index].calls.append(found)
            said[index].tokens.extend(piece.tokens if piece is not None else ())

        async def ended(index: int, reason: str) -> None:
            said[index].finish_reason = reason

        await self._run(gather, ended)
        choices = [self._choice(index, one) for index, one in enumerate(said)]
        return self._body("chat.completion", choices) | {"usage": self._usage.body()}

    async def chunks(self, emit: Emit) -> None:
        """Compute it; ``emit`` gets the ``chat.completion.chunk`` objects."""
        begun: set[int] = set()
        n_calls = [0] * len(self._choices)

        async def send(index: int, delta: dict[str, Any], **more: Any) -> None:
            choice = {
                "index": index,
                "delta": delta,
                "logprobs": None,
                "finish_reason": None,
                **more,
            }
            await self._emit_chunk(emit, [choice])

        async def begin(index: int) -> None:
            if index not in begun:
                begun.add(index)
                await send(index, {"role": "assistant", "content": "", "refusal": None})

        async def said(index: int, found: str | MadeCall, piece: Piece | None) -> None:
            await begin(index)
            if isinstance(found, str):
                delta: dict[str, Any] = {"content": found}
            else:
                delta = {"tool_calls": [{"index": n_calls[index], **_call_body(found)}]}
                n_calls[index] += 1
            tokens = piece.tokens if piece is not None else ()
            logprobs = self._logprobs(tokens) if tokens else None
            await send(index, delta, logprobs=logprobs)

        async def ended(index: int, reason: str) -> None:
            await begin(index)
            await send(index, {}, finish_reason=reason)

        await self._run(said, ended)
        if self._request.wants_usage:
            await emit(self._body("chat.completion.chunk", []) | {"usage": self._usage.body()})

    async def _run(
        self,
        said: Callable[[int, str | MadeCall, Piece | None], Awaitable[None]],
        ended: Callable[[int, str], Awaitable[None]],
    ) -> None:
        """All choices; ``said`` gets text and calls, with the piece whose tokens are new."""
        await run_all([partial(self._run_one, choice, said, ended) for choice in self._choices])

    async def _run_one(
        self,
        choice: Choice,
        said: Callable[[int, str | MadeCall, Piece | None], Awaitable[None]],
        ended: Callable[[int, str], Awaitable[None]],
    ) -> None:
        reader = self._reader() if self._reader is not None else None
        held: list[TokenLogprob] = []
        n_calls = 0

        async def tell(found: list[str | MadeCall]) -> None:
            nonlocal n_calls
            for each in found:
                if isinstance(each, MadeCall):
                    n_calls += 1
                    if n_calls > 1 and self._request.parallel_tool_calls is False:
                        continue
                tokens, held[:] = tuple(held), []
                await said(choice.index, each, Piece("", tokens))

        async def read(piece: Piece) -> None:
            held.extend(piece.tokens)
            await tell([piece.text] if reader is None else reader.push(piece.text))

        desk = self._desk
        answer, reused_tokens = await answer_choice(desk.service, choice, read)
        if reader is not None:
            await tell(reader.finish())
        desk.transcripts.remember(self._prompt, choice.ids, answer.ids, answer.text)
        self._usage = Usage(
            answer.prompt_tokens,
            self._usage.completion_tokens + answer.completion_tokens,
            reused_tokens if choice.index == 0 else self._usage.cached_tokens,
        )
        reason = finish_reason(answer)
        await ended(choice.index, "tool_calls" if n_calls and reason == "stop" else reason)

    def _choice(self, index: int, said: _Said) -> dict[str, Any]:
        text = "".join(said.texts)
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
        if said.calls:
            message["content"] = text or None
            message["tool_calls"] = [_call_body(call) for call in said.calls]
        return {
            "index": index,
            "message": message,
            "logprobs": self._logprobs(said.tokens) if self._request.logprobs else None,
            "finish_reason": said.finish_reason,
        }

    def _logprobs(self, tokens: tuple[TokenLogprob, ...] | list[TokenLogprob]) -> dict[str, Any]:
        return chat_logprobs(self._desk.service.tokenizer, tokens)

    async def _emit_chunk(self, emit: Emit, choices: list[dict[str, Any]]) -> None:
        usage = {"usage": None} if self._request.wants_usage else {}
        await emit(self._body("chat.completion.chunk", choices) | usage)

    def _body(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self._id,
            "object": kind,
            "created": self._created_s,
            "model": self._desk.service.model_name,
            "system_fingerprint": self._desk.system_fingerprint,
            "choices": choices,
        }


def _call_body(call: MadeCall) -> dict[str, Any]:
    return {
        "id": call.id,
        "type": "function",
        "function": {"name": call.name, "arguments": call.arguments},
    }
