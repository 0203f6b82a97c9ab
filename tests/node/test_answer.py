"""From token ids to visible text: what ends an answer, and what is shown of it."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest
import trio
from trio.testing import MockClock

from gptnode.errors import ContextError, StreamLostError
from gptnode.model.sampler import Sampling
from gptnode.node.answer import Answering, AnswerSettings
from gptnode.node.generator import Generator
from gptnode.node.meter import AnswerMeter
from gptnode.text.tokenizer import Tokenizer

END = 2
GREEDY = Sampling(temperature=0.0)


class Script:
    """A generator that samples what it is told to, then fails or never comes back."""

    def __init__(
        self, ids: list[int], *, max_tokens: int = 100, then: Exception | None = None
    ) -> None:
        self.max_tokens = max_tokens
        self._ids = iter(ids)
        self._then = then
        self.timing = None

    def answer_meter(self, prompt_tokens: int) -> AnswerMeter:
        return AnswerMeter()

    async def next_token(self, ids: list[int], sampler: object) -> int:
        await trio.lowlevel.checkpoint()
        for token_id in self._ids:
            return token_id
        if self._then is not None:
            raise self._then
        await trio.sleep_forever()
        raise AssertionError("unreachable")


@pytest.fixture
def tokenizer(tiny_model: Path) -> Tokenizer:
    return Tokenizer.from_folder(tiny_model)


def answering(
    tokenizer: Tokenizer, script: Script, prompt: list[int] | None = None, **settings: object
) -> Answering:
    return Answering(
        cast("Generator", script),
        tokenizer,
        frozenset({END}),
        prompt or [5, 6],
        AnswerSettings(GREEDY, **settings),  # type: ignore[arg-type]
    )


async def collect(answer: Answering) -> str:
    return "".join([piece async for piece in answer])


async def test_an_end_token_ends_the_turn_and_is_kept_in_the_ids(tokenizer: Tokenizer) -> None:
    answer = answering(tokenizer, Script([10, 11, END, 12]))
    shown = await collect(answer)
    result = answer.result()
    assert (result.ids, result.stop_reason) == ((10, 11, END), "end")
    assert shown == result.text == tokenizer.decode([10, 11])
    assert (result.prompt_tokens, result.completion_tokens) == (2, 3)


async def test_a_stop_string_ends_the_turn_and_is_not_shown(tokenizer: Tokenizer) -> None:
    whole = tokenizer.decode([10, 11, 12, 13])
    stop = tokenizer.decode([12])
    answer = answering(tokenizer, Script([10, 11, 12, 13]), stop=(stop,))
    assert await collect(answer) == whole[: whole.index(stop)]
    assert answer.result().stop_reason == "stop"
    assert answer.result().ids == (10, 11, 12)


async def test_a_stop_of_ids_ends_the_turn(tokenizer: Tokenizer) -> None:
    answer = answering(tokenizer, Script([10, 11, 12, 13]), stop=((11, 12),))
    assert (await collect(answer)).strip() == tokenizer.decode([10])
    assert answer.result().stop_reason == "stop"


async def test_max_tokens_ends_the_turn_and_nothing_is_withheld(tokenizer: Tokenizer) -> None:
    answer = answering(tokenizer, Script([10, 11, 12]), max_tokens=2, stop=((11, 60),))
    assert await collect(answer) == tokenizer.decode([10, 11])
    assert answer.result().stop_reason == "length"


async def test_a_full_context_ends_the_turn(tokenizer: Tokenizer) -> None:
    answer = answering(tokenizer, Script([10, 11, 12], max_tokens=4))
    await collect(answer)
    assert answer.result().stop_reason == "context"
    assert answer.result().completion_tokens == 2


@pytest.mark.parametrize("prompt_tokens", [100, 250])
async def test_a_prompt_that_fills_the_context_is_refused(
    tokenizer: Tokenizer, prompt_tokens: int
) -> None:
    with pytest.raises(ContextError, match="100"):
        answering(tokenizer, Script([10]), prompt=[7] * prompt_tokens)


async def test_a_cancelled_answer_holds_what_was_shown(
    tokenizer: Tokenizer, autojump_clock: MockClock
) -> None:
    answer = answering(tokenizer, Script([10, 11]))
    shown = ""
    with trio.move_on_after(1):
        async for piece in answer:
            shown += piece
    result = answer.result()
    assert result.stop_reason == "cancelled"
    assert result.ids == (10, 11)
    assert result.text == shown == tokenizer.decode([10, 11])


async def test_a_failed_request_is_an_error_and_never_an_empty_answer(tokenizer: Tokenizer) -> None:
    answer = answering(tokenizer, Script([10], then=StreamLostError("gone")))
    with pytest.raises(StreamLostError):
        await collect(answer)
    assert answer.result().ids == (10,)


async def test_speed_counts_the_tokens_after_the_first(tokenizer: Tokenizer) -> None:
    answer = answering(tokenizer, Script([END]))
    await collect(answer)
    assert answer.result().tokens_per_s == 0.0
