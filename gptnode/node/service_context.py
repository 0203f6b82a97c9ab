"""A context of a service, that answers over caches of its own; and what all of them have done."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence

from gptnode.node.answer import Answering, AnswerSettings
from gptnode.node.generator import Generator
from gptnode.node.speculation import common_prefix
from gptnode.node.swarm import Swarm
from gptnode.node.timing import TokenTiming
from gptnode.text.tokenizer import Tokenizer

__all__ = ["Context", "WorkDone"]

RATE_OVER_S = 5.0


class WorkDone:
    """Counts answers and tokens of all contexts."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        """None yet. ``clock`` counts seconds from anywhere."""
        self.answers = 0
        self.prompt_tokens = 0
        self.completion_tokens = 0
        self.reused_tokens = 0
        self._clock = clock
        self._lately: deque[float] = deque()

    @property
    def tokens_per_s(self) -> float:
        """Tokens of answers a second, over the last ``RATE_OVER_S``."""
        self._forget()
        return len(self._lately) / RATE_OVER_S

    def begun(self, prompt_tokens: int, reused_tokens: int) -> None:
        """An answer begins."""
        self.answers += 1
        self.prompt_tokens += prompt_tokens
        self.reused_tokens += reused_tokens

    def token(self) -> None:
        """A token of some answer."""
        self.completion_tokens += 1
        self._lately.append(self._clock())
        self._forget()

    def _forget(self) -> None:
        since_s = self._clock() - RATE_OVER_S
        while self._lately and self._lately[0] <= since_s:
            self._lately.popleft()


class Context:
    """One answer at a time over one context; ``Service.context`` lends it."""

    def __init__(
        self,
        generator: Generator,
        swarm: Swarm,
        tokenizer: Tokenizer,
        end_ids: frozenset[int],
        done: WorkDone,
    ) -> None:
        """``end_ids`` are the tokens that end a turn; ``done`` counts."""
        self.swarm = swarm
        self.reused_tokens = 0
        self.idle_since_s = 0.0
        self._generator = generator
        self._tokenizer = tokenizer
        self._end_ids = end_ids
        self._done = done

    @property
    def cached_ids(self) -> Sequence[int]:
        """The ids that its caches hold."""
        return self._generator.cached_ids

    @property
    def prefilled_tokens(self) -> int:
        """How far the prompt in work has gone through the blocks."""
        return self._generator.prefilled_tokens

    @property
    def timing(self) -> TokenTiming | None:
        """Where the time of the last token went."""
        return self._generator.timing

    @property
    def guesses(self) -> tuple[int, int]:
        """Tokens that were guessed ahead since it was opened, and those that were right."""
        speculation = self._generator.speculation
        return (speculation.guessed, speculation.right) if speculation is not None else (0, 0)

    def answer(self, ids: Sequence[int], settings: AnswerSettings) -> Answering:
        """Answer the prompt ``ids``. One answer at a time.

        Raises:
            ContextError: the prompt leaves no room for an answer.
            TextError: a stop sequence is none.
        """
        generator, done = self._generator, self._done
        answering = Answering(
            generator, self._tokenizer, self._end_ids, ids, settings, on_token=done.token
        )
        ids = list(ids)
        self.reused_tokens = min(common_prefix(list(self.cached_ids), ids), len(ids) - 1)
        done.begun(len(ids), self.reused_tokens)
        return answering

    def uses(self, peer_id: str) -> bool:
        """Whether it has a session with ``peer_id``."""
        return any(stage.peer_id == peer_id for stage in self.swarm.stages)

    async def close(self) -> None:
        """End its sessions, here and on the peers."""
        await self._generator.forget()
