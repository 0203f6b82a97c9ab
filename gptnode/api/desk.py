"""What every request is answered with: the service, the rules, and the answers given lately."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

import trio

from gptnode.api.config import ApiLimits, Defaults
from gptnode.api.errors import ApiError
from gptnode.api.prompts import prompt_text
from gptnode.api.schemas import ChatRequest
from gptnode.api.transcripts import Transcripts

if TYPE_CHECKING:
    from gptnode.node.service import Service

__all__ = ["Desk"]

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

    async def prompt(self, request: ChatRequest) -> tuple[str, list[int]]:
        """The text of a chat's prompt, and its ids.

        Raises:
            ApiError: a message is wrong or doesn't reach the model.
            TextError: the template refuses these messages.
        """
        async with self._one_at_a_time:
            size = sum(_chars(message.content) for message in request.messages)
            if size <= INLINE_CHARS:
                return self._prompt(request)
            return await trio.to_thread.run_sync(partial(self._prompt, request))

    def _prompt(self, request: ChatRequest) -> tuple[str, list[int]]:
        text = prompt_text(self.service.template, request)
        return text, self.transcripts.encode(text)


def _chars(content: object) -> int:
    if isinstance(content, str):
        return len(content)
    if isinstance(content, list):
        return sum(len(part.text or "") for part in content)
    return 0
