"""Parameters that OpenAI knows and gptnode can't honour: an error each, and never a silent no.

A value that asks for what is so anyway passes: penalties of 0, ``modalities: ["text"]``.
"""

from __future__ import annotations

from gptnode.api.config import ApiLimits
from gptnode.api.errors import ApiError, unsupported
from gptnode.api.schemas import ChatRequest, CompletionRequest, SamplingFields

__all__ = ["check_chat", "check_completion"]


def check_chat(request: ChatRequest, limits: ApiLimits) -> None:
    """Refuse what a chat completion can't do.

    Raises:
        ApiError: one such parameter, by name.
    """
    _check_both(request, limits)
    if len(request.messages) > limits.max_messages:
        raise ApiError(
            400,
            f"messages has {len(request.messages)} items, {limits.max_messages} are allowed",
            param="messages",
            code="array_above_max_length",
        )
    if len(request.tools or ()) > limits.max_tools:
        raise ApiError(
            400,
            f"tools has {len(request.tools or ())} items, {limits.max_tools} are allowed",
            param="tools",
            code="array_above_max_length",
        )
    asks = {
        "audio": (request.audio is not None, "this model neither hears nor speaks"),
        "modalities": (
            request.modalities not in (None, ["text"]),
            "this model writes text and nothing else",
        ),
        "functions": (request.functions, "use tools, which took its place"),
        "function_call": (request.function_call, "use tool_choice, which took its place"),
        "moderation": (request.moderation is not None, "nothing here judges texts"),
        "prediction": (request.prediction is not None, "gptnode guesses ahead by itself"),
        "reasoning_effort": (
            request.reasoning_effort not in (None, "none"),
            "how much a model thinks is not to be set here",
        ),
        "verbosity": (
            request.verbosity not in (None, "medium"),
            "say in the prompt how long the answer should be",
        ),
        "web_search_options": (
            request.web_search_options is not None,
            "nothing here searches the web",
        ),
        "store": (request.store, "nothing is stored here"),
        "max_tokens": (request.max_tokens == 0, "an answer has at least one token"),
    }
    for param, (asked, why) in asks.items():
        if asked:
            raise unsupported(param, why)
    if request.top_logprobs is not None and not request.logprobs:
        raise ApiError(
            400, "top_logprobs needs logprobs: true", param="top_logprobs", code="invalid_value"
        )


def check_completion(request: CompletionRequest, limits: ApiLimits) -> None:
    """Refuse what a text completion can't do.

    Raises:
        ApiError: one such parameter, by name.
    """
    _check_both(request, limits)
    if request.suffix:
        raise unsupported("suffix", "this model can't fill in the middle")
    if request.best_of is not None and request.best_of != (request.n or 1):
        raise unsupported("best_of", "all answers are returned: ask for n of them")
    if request.echo and request.logprobs is not None:
        raise unsupported("logprobs", "of a prompt that is echoed there are none")


def _check_both(request: SamplingFields, limits: ApiLimits) -> None:
    """What neither kind can do."""
    if request.logit_bias:
        raise unsupported("logit_bias", "single tokens can't be made likelier here")
    if request.frequency_penalty:
        raise unsupported("frequency_penalty", "use repetition_penalty")
    if request.presence_penalty:
        raise unsupported("presence_penalty", "use repetition_penalty")
    if (request.n or 1) > limits.max_choices:
        raise ApiError(
            400, f"n is at most {limits.max_choices} here", param="n", code="invalid_value"
        )
    if request.stream_options is not None and not request.stream:
        raise ApiError(
            400, "stream_options needs stream: true", param="stream_options", code="invalid_value"
        )
