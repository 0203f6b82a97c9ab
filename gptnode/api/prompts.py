"""From a request's messages to the text of a prompt, through the model's own chat template.

Nothing is dropped in silence: a template that ignores a message, tools or a role makes an error
that names the message.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import msgspec

from gptnode.api.errors import ApiError, unsupported
from gptnode.api.forms import offered_tools
from gptnode.api.schemas import ChatRequest, Message, RequestedCall
from gptnode.text.template import ChatTemplate, ToolCall, Turn

__all__ = ["prompt_text"]


def prompt_text(template: ChatTemplate, request: ChatRequest) -> str:
    """The whole prompt, with the opening of the answer.

    Raises:
        ApiError: a message can't be read, or doesn't reach the model.
        TextError: the template refuses these messages.
    """
    tools = offered_tools(request)
    turns = _turns(request.messages)
    uses_tools = next(
        (i for i, turn in enumerate(turns) if turn.calls or turn.role == "tool"), None
    )
    if (tools or uses_tools is not None) and not template.takes_tools():
        param = "tools" if tools else f"messages[{uses_tools}]"
        raise unsupported(param, "this model's chat template knows no tools")
    if any(turn.role == "system" for turn in turns) and not template.takes_system_text():
        turns = _folded(turns)
    described = [msgspec.to_builtins(tool) for tool in tools]
    for tool in described:
        tool["function"] = {k: v for k, v in tool["function"].items() if v is not None}
    text = template.render(turns, add_generation_prompt=True, tools=described or None)
    for index, turn in enumerate(turns):
        if turn.role in ("system", "user") and turn.text.strip() not in text:
            raise ApiError(
                400,
                f"messages[{index}]: this model's chat template leaves it out",
                param=f"messages[{index}]",
                code="unsupported_message",
            )
    return text


def _turns(messages: Sequence[Message]) -> list[Turn]:
    """The messages as a template takes them."""
    names: dict[str, str] = {}
    turns: list[Turn] = []
    for index, message in enumerate(messages):
        where = f"messages[{index}]"
        calls = [_call(call, f"{where}.tool_calls") for call in message.tool_calls or ()]
        if calls and message.role != "assistant":
            raise ApiError(
                400,
                f"{where}: only an assistant calls tools",
                param=f"{where}.tool_calls",
                code="invalid_value",
            )
        names |= {call.id: call.name for call in calls}
        role = "system" if message.role == "developer" else message.role
        if message.content is None and not (calls or message.refusal):
            raise ApiError(
                400,
                f"{where}.content is missing",
                param=f"{where}.content",
                code="missing_required_parameter",
            )
        name = message.name
        if role == "tool":
            if message.tool_call_id is None:
                raise ApiError(
                    400,
                    f"{where}.tool_call_id is missing: it says which call this answers",
                    param=f"{where}.tool_call_id",
                    code="missing_required_parameter",
                )
            name = name or names.get(message.tool_call_id)
        text = _text(message, where)
        turns.append(Turn(role, text, tuple(calls), message.tool_call_id, name))
    return turns


def _text(message: Message, where: str) -> str:
    """The text of a message, its parts on lines of their own."""
    if message.content is None:
        return message.refusal or ""
    if isinstance(message.content, str):
        return message.content
    texts: list[str] = []
    for index, part in enumerate(message.content):
        place = f"{where}.content[{index}]"
        text = {"text": part.text, "refusal": part.refusal}.get(part.type)
        if part.type not in ("text", "refusal"):
            raise ApiError(
                400,
                f"{place}: this model reads text, not {part.type[:40]}",
                param=place,
                code="unsupported_content",
            )
        if text is None:
            raise ApiError(
                400, f"{place}.{part.type} is missing", param=place, code="invalid_value"
            )
        texts.append(text)
    return "\n".join(texts)


def _call(call: RequestedCall, where: str) -> ToolCall:
    """A call of an earlier answer, with its arguments as values."""
    try:
        arguments: Any = json.loads(call.function.arguments or "{}")
    except (ValueError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        raise ApiError(
            400,
            f"{where}: function.arguments is no JSON object",
            param=where,
            code="invalid_value",
        )
    return ToolCall(call.function.name, arguments, call.id)


def _folded(turns: Sequence[Turn]) -> list[Turn]:
    """System texts said with the first question, as a person would, for models without them."""
    said = "\n\n".join(turn.text for turn in turns if turn.role == "system")
    others = [turn for turn in turns if turn.role != "system"]
    for index, turn in enumerate(others):
        if turn.role == "user":
            others[index] = Turn("user", f"{said}\n\n{turn.text}", name=turn.name)
            return others
    return list(turns)
