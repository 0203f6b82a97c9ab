"""A service whose answers are written beforehand: what the API makes of them is to be seen."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import trio

from gptnode.demo.bundled import bundled_model_folder
from gptnode.node.answer import Answer, AnswerSettings, StopReason
from gptnode.node.service import ServiceLoad
from gptnode.text.template import ChatTemplate
from gptnode.text.tokenizer import Tokenizer

TOKENIZER = Tokenizer.from_folder(bundled_model_folder())
HERMES = """\
{%- if tools %}{{- '<|im_start|>system\\nTools: <tool_call>' }}
{%- for tool in tools %}{{- tool | tojson }}{%- endfor %}{{- '<|im_end|>\\n' }}{%- endif %}
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content }}
    {%- for call in message.tool_calls or [] %}
        {{- '<tool_call>' + call.function | tojson + '</tool_call>' }}
    {%- endfor %}
    {{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""
LLAMA = HERMES.replace("<tool_call>", '"parameters"')
MISTRAL = HERMES.replace("<tool_call>", "[TOOL_CALLS]")


class ScriptedAnswering:
    """Says its pieces, and counts them as tokens."""

    def __init__(self, service: ScriptedService, ids: Sequence[int], pieces: list[str]) -> None:
        self.logprobs: list[Any] = []
        self._service = service
        self._prompt_tokens = len(ids)
        self._pieces = pieces
        self._said: list[str] = []

    def __aiter__(self) -> ScriptedAnswering:
        return self

    async def __anext__(self) -> str:
        await self._service.pace()
        if self._service.error is not None and len(self._said) == self._service.error_after:
            raise self._service.error
        if len(self._said) == len(self._pieces):
            raise StopAsyncIteration
        self._said.append(self._pieces[len(self._said)])
        return self._said[-1]

    def result(self) -> Answer:
        text = "".join(self._said)
        ids = tuple(TOKENIZER.encode(text))
        return Answer(text, ids, self._prompt_tokens, len(ids), self._service.stop_reason, 0.0, 0.0)


class ScriptedService:
    """Stands where a `Service` does."""

    model_name = "scripted"
    fingerprint = "0" * 32
    dtype_name = "f32"
    context_limit_tokens = 4096
    default_stop: tuple[str, ...] = ()
    tokenizer = TOKENIZER
    blocks_map = None
    map_path = None
    peer_id = None
    model_config = SimpleNamespace(vocab_size=TOKENIZER.vocab_size, n_blocks=2)

    def __init__(
        self,
        *pieces: str,
        template: str = HERMES,
        pace_s: float = 0.0,
        queue_error: Any = None,
        stop_reason: StopReason = "end",
    ) -> None:
        self.stop_reason = stop_reason
        self.pieces = list(pieces)
        self.template = ChatTemplate("scripted", template)
        self.pace_s = pace_s
        self.queue_error = queue_error
        self.error: Exception | None = None
        self.error_after = 0
        self.prompts: list[str] = []
        self.settings: list[AnswerSettings] = []
        self.open = 0
        self.cancelled = 0

    async def pace(self) -> None:
        await trio.sleep(self.pace_s)

    @asynccontextmanager
    async def context(self, ids: Sequence[int]) -> AsyncIterator[SimpleNamespace]:
        await trio.lowlevel.checkpoint()
        if self.queue_error is not None:
            raise self.queue_error
        self.prompts.append(TOKENIZER.decode(ids, keep_special=True))
        self.open += 1

        def answer(ids: Sequence[int], settings: AnswerSettings) -> ScriptedAnswering:
            self.settings.append(settings)
            return ScriptedAnswering(self, ids, self.pieces)

        try:
            yield SimpleNamespace(reused_tokens=1, answer=answer)
        except trio.Cancelled:
            self.cancelled += 1
            raise
        finally:
            self.open -= 1

    def peers(self) -> tuple[()]:
        return ()

    def hops(self) -> tuple[()]:
        return ()

    def events(self) -> tuple[()]:
        return ()

    def load(self) -> ServiceLoad:
        return ServiceLoad(
            answering=self.open,
            waiting=0,
            idle=0,
            own_kv_bytes=0,
            answers=0,
            prompt_tokens=0,
            completion_tokens=0,
            reused_tokens=0,
            tokens_per_s=0.0,
        )
