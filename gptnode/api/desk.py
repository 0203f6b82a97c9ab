"""What every request is answered with: the service, the rules, and the answers given lately."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import trio

from gptnode.api.config import ApiLimits, Defaults
from gptnode.api.errors import ApiError
from gptnode.api.prompts import prompt_text
from gptnode.api.schemas import ChatRequest
from gptnode.api.transcripts import Transcripts
from gptnode.text.turn_join import encode_prompt

if TYPE_CHECKING:
    from gptnode.node.service import Service

__all__ = ["Desk"]

Result = TypeVar("Result")

INLINE_CHARS = 32 * 1024
"""A longer conversation is rendered and encoded in a thread: other streams go on meanwhile."""


class Desk:
    """One for a service. Holds nothing that has to be closed."""

    def __init__(
        self,
        service: Service,
        *,
        limits: ApiLimits = ApiLimits(),  # noqa: B008 - frozen
        defaults: Defaults = Defaults(),  # noqa: B008 - frozen
    ) -> None:
        """Nothing was answered yet."""
        self.service = service
        self.limits = limits
        self.defaults = defaults
        self.transcripts = Transcripts(service.tokenizer)
        self.started_s = int(time.time())
        self._one_at_a_time = trio.Lock()  # a template renders one conversation at a time

    @property
    def system_fingerprint(self) -> str:
        """Names weights and dtype: the same one and the same seed make the same answer."""
        return f"fp_{self.service.fingerprint[:12]}_{self.service.dtype_name}"

    def check_model(self, name: str) -> None:
        """Refuse a request for another model than the one that is here.

        Raises:
            ApiError: it is another one.
        """
        own = self.service.model_name
        if name != own:
            raise ApiError(
                404,
                f"there is no model {name[:80]!r} here: this server has {own!r}",
                param="model",
                code="model_not_found",
            )

    async def prompt(self, request: ChatRequest, opening: str = "") -> tuple[str, list[int]]:
        """The text of a chat's prompt with ``opening`` behind it, and its ids.

        Raises:
            ApiError: a message is wrong or doesn't reach the model.
            TextError: the template refuses these messages.
        """
        long = sum(_chars(message.content) for message in request.messages) > INLINE_CHARS
        async with self._one_at_a_time:
            text = await _run(partial(prompt_text, self.service.template, request), in_thread=long)
        text += opening
        return text, await _run(partial(self.transcripts.encode, text), in_thread=long)

    async def encode(self, text: str) -> list[int]:
        """The ids of a text completion's prompt."""
        encode = partial(encode_prompt, self.service.tokenizer, text)
        return await _run(encode, in_thread=len(text) > INLINE_CHARS)


async def _run(work: Callable[[], Result], *, in_thread: bool) -> Result:
    """What ``work`` returns; in a thread others go on meanwhile."""
    return await trio.to_thread.run_sync(work) if in_thread else work()


def _chars(content: object) -> int:
    if isinstance(content, str):
        return len(content)
    if isinstance(content, list):
        return sum(len(part.text or "") for part in content)
    return 0
