"""On the node's thread: messages become ids, and an answer's pieces go into a feed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gptnode.client.feed import Feed
from gptnode.client.node_thread import Outcome
from gptnode.client.replies import FinishReason, Messages, Reply, Settings, Usage
from gptnode.errors import UsageError
from gptnode.model.sampler import Sampling
from gptnode.node.answer import AnswerSettings
from gptnode.node.service import Service
from gptnode.text.template import Turn
from gptnode.text.turn_join import encode_prompt

__all__ = ["Asked", "chat_ids", "completion_ids"]

ROLES = ("system", "user", "assistant")

Ids = Callable[[Service], list[int]]


@dataclass(frozen=True, slots=True)
class Asked:
    """An answer that somebody waits for."""

    ids: Ids
    settings: Settings
    is_chat: bool
    pieces: Feed[str | Outcome[Reply]]

    async def __call__(self, service: Service) -> Reply:
        """Answer: text goes into ``pieces`` as it comes, the reply is returned.

        Raises:
            GptNodeError: it can't be answered.
        """
        settings = self._settings(service)
        ids = self.ids(service)
        async with service.context(ids) as context:
            answering = context.answer(ids, settings)
            reused_tokens = context.reused_tokens
            async for piece in answering:
                self.pieces.put(piece)
        answer = answering.result()
        ended: FinishReason = "length" if answer.stop_reason in ("length", "context") else "stop"
        return Reply(
            answer.text,
            ended,
            Usage(answer.prompt_tokens, answer.completion_tokens, reused_tokens),
            answer.prefill_s,
            answer.tokens_per_s,
            tuple(answering.logprobs),
        )

    def _settings(self, service: Service) -> AnswerSettings:
        """As the node takes them."""
        asked = self.settings
        stop = asked.get("stop", ())
        stops = (stop,) if isinstance(stop, str) else tuple(stop)
        own = service.sampling
        return AnswerSettings(
            Sampling(
                temperature=asked.get("temperature", own.temperature),
                top_k=asked.get("top_k", own.top_k),
                top_p=asked.get("top_p", own.top_p),
                min_p=asked.get("min_p", own.min_p),
                repetition_penalty=asked.get("repetition_penalty", own.repetition_penalty),
                seed=asked.get("seed"),
            ),
            max_tokens=asked.get("max_tokens"),
            stop=(*(service.default_stop if self.is_chat else ()), *stops),
            top_logprobs=asked.get("top_logprobs"),
            grammar=asked.get("grammar"),
        )


def chat_ids(messages: Messages) -> Ids:
    """The ids of ``messages`` and of the opening of an answer, once there is a service.

    Raises:
        UsageError: a message isn't one.
    """
    turns = [Turn("user", messages)] if isinstance(messages, str) else _turns(messages)

    def ids(service: Service) -> list[int]:
        template = service.template
        told = turns
        if len(turns) > 1 and turns[0].role == "system" and not template.takes_system_text():
            # What a person would do: say it with the first question.
            first = Turn(turns[1].role, f"{turns[0].text}\n\n{turns[1].text}")
            told = [first, *turns[2:]]
        text = template.render(told, add_generation_prompt=True)
        return encode_prompt(service.tokenizer, text)

    return ids


def completion_ids(prompt: str | Sequence[int]) -> Ids:
    """The ids of a text that is to go on, or those that are given."""
    if not isinstance(prompt, str):
        given = list(prompt)
        return lambda service: given
    return lambda service: encode_prompt(service.tokenizer, prompt)


def _turns(messages: Sequence[object]) -> list[Turn]:
    turns: list[Turn] = []
    for number, message in enumerate(messages):
        match message:
            case {"role": "system" | "user" | "assistant" as role, "content": str(content)}:
                turns.append(Turn(role, content))
            case _:
                raise UsageError(
                    f"messages[{number}] isn't a message: it needs a role ({', '.join(ROLES)}) and "
                    "its text as content"
                )
    if not turns:
        raise UsageError("there are no messages to answer")
    return turns
