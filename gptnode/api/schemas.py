"""What requests look like: the fields of OpenAI's API as msgspec Structs, and how they are read.

A field that is wrong becomes an `ApiError` that names its place, as ``messages[0].content``. A
field that nobody knows is an error; those that OpenAI knows and gptnode doesn't are in
`gptnode.api.refusals`. Bodies only: what they ask for is the business of others.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from gptnode.api.errors import ApiError

__all__ = [
    "ChatRequest",
    "CompletionRequest",
    "EmbeddingRequest",
    "Function",
    "FunctionCall",
    "Message",
    "Part",
    "RequestedCall",
    "ResponseFormat",
    "SamplingFields",
    "StreamOptions",
    "Tool",
    "convert",
    "decode",
]

MAX_INT = 2**63 - 1

Temperature = Annotated[float, Meta(ge=0, le=2)]
Chance = Annotated[float, Meta(ge=0, le=1)]
Count = Annotated[int, Meta(ge=1, le=MAX_INT)]
CountFromZero = Annotated[int, Meta(ge=0, le=MAX_INT)]
Seed = Annotated[int, Meta(ge=-MAX_INT, le=MAX_INT)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
RepetitionPenalty = Annotated[float, Meta(gt=0, le=10)]
TokenId = Annotated[int, Meta(ge=0, le=2**31 - 1)]
StopText = Annotated[str, Meta(min_length=1, max_length=1024)]
Stop = StopText | Annotated[list[StopText], Meta(max_length=4)]

Request = TypeVar("Request", bound=Struct)


class StreamOptions(Struct, kw_only=True, forbid_unknown_fields=True):
    """How a stream looks."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class Part(Struct, kw_only=True):
    """A part of a message; only ``text`` and ``refusal`` can be read by a language model."""

    type: str
    text: str | None = None
    refusal: str | None = None


class FunctionCall(Struct, kw_only=True):
    """A call as an assistant's message has it; ``arguments`` is JSON in a string."""

    name: Annotated[str, Meta(max_length=256)]
    arguments: str = "{}"


class RequestedCall(Struct, kw_only=True):
    """A tool call in an assistant's message."""

    function: FunctionCall
    id: Annotated[str, Meta(max_length=256)] = ""
    type: Literal["function"] = "function"


class Message(Struct, kw_only=True):
    """One message. Fields that other servers put into their answers are ignored here."""

    role: Literal["developer", "system", "user", "assistant", "tool"]
    content: str | list[Part] | None = None
    name: str | None = None
    tool_calls: list[RequestedCall] | None = None
    tool_call_id: str | None = None
    refusal: str | None = None


class Function(Struct, kw_only=True):
    """What a tool is called and what it takes, as JSON schema."""

    name: Annotated[str, Meta(pattern=r"^[a-zA-Z0-9_.-]{1,128}$")]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(Struct, kw_only=True, forbid_unknown_fields=True):
    """A tool that the model may call."""

    type: Literal["function"]
    function: Function


class JsonSchema(Struct, kw_only=True):
    """The schema of an answer."""

    name: str = ""
    description: str | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None


class ResponseFormat(Struct, kw_only=True):
    """What form an answer has to have."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class SamplingFields(Struct, kw_only=True, forbid_unknown_fields=True):
    """What both kinds of completion take. ``top_k`` to ``repetition_penalty`` are extensions."""

    model: str
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: CountFromZero | None = None
    temperature: Temperature | None = None
    top_p: Chance | None = None
    top_k: Annotated[int, Meta(ge=-1, le=MAX_INT)] | None = None
    min_p: Chance | None = None
    repetition_penalty: RepetitionPenalty | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    seed: Seed | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    stop: Stop | None = None
    logit_bias: dict[str, float] | None = None
    user: str | None = None

    @property
    def stops(self) -> tuple[str, ...]:
        """Stop strings, however many."""
        if self.stop is None:
            return ()
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    @property
    def wants_usage(self) -> bool:
        """Whether a stream ends with a chunk of usage."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)


class ChatRequest(SamplingFields, kw_only=True, forbid_unknown_fields=True):
    """The body of ``POST /v1/chat/completions``."""

    messages: Annotated[list[Message], Meta(min_length=1)]
    max_completion_tokens: Count | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    tools: list[Tool] | None = None
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    # Known, and refused unless they say what is so anyway: see gptnode.api.refusals.
    audio: Any = None
    function_call: Any = None
    functions: Any = None
    modalities: list[str] | None = None
    moderation: Any = None
    prediction: Any = None
    reasoning_effort: str | None = None
    store: bool | None = None
    verbosity: str | None = None
    web_search_options: Any = None
    # Known and harmless: they change no answer.
    metadata: dict[str, Any] | None = None
    prompt_cache_key: str | None = None
    prompt_cache_options: Any = None
    prompt_cache_retention: str | None = None
    safety_identifier: str | None = None
    service_tier: str | None = None


class CompletionRequest(SamplingFields, kw_only=True, forbid_unknown_fields=True):
    """The body of ``POST /v1/completions``."""

    prompt: str | list[str | TokenId | list[TokenId]] | None = None
    best_of: Annotated[int, Meta(ge=0, le=128)] | None = None
    echo: bool | None = None
    logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    suffix: str | None = None


class EmbeddingRequest(Struct, kw_only=True):
    """The body of ``POST /v1/embeddings``, as far as it is looked at."""

    model: str
    input: Any


def decode(type_: type[Request], body: bytes) -> Request:
    """``body`` as ``type_``.

    Raises:
        ApiError: it isn't JSON, or not what the type says; ``param`` says where.
    """
    try:
        return msgspec.json.decode(body, type=type_)
    except msgspec.ValidationError as error:
        raise _wrong(str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ApiError(400, f"the body is not JSON: {error}", code="invalid_json") from error


def convert(type_: type[Request], value: Any) -> Request:
    """``value``, JSON that was decoded already, as ``type_``.

    Raises:
        ApiError: as `decode`.
    """
    try:
        return msgspec.convert(value, type=type_)
    except msgspec.ValidationError as error:
        raise _wrong(str(error)) from error


def _wrong(text: str) -> ApiError:
    """What msgspec says, with the place as OpenAI's ``param`` has it."""
    reason, _, path = text.partition(" - at `$")
    path = path.rstrip("`").lstrip(".")
    field = re.search(r"(unknown|missing required) field `([^`]*)`", reason)
    if field is None:
        return ApiError(
            400, f"{path or 'the body'}: {reason}", param=path or None, code="invalid_value"
        )
    param = f"{path}.{field[2]}" if path else field[2]
    if field[1] == "unknown":
        return ApiError(400, f"unknown parameter: {param}", param=param, code="unknown_parameter")
    return ApiError(400, f"{param} is missing", param=param, code="missing_required_parameter")
