"""The form that an answer is held to: JSON, JSON that fits a schema, or a call of a tool.

Held to means that other tokens can't come, so the answer is right as long as it isn't cut off; what
stands in it is the model's own. Whether a schema can be used shows when the answer begins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gptnode.api.errors import ApiError, unsupported
from gptnode.api.schemas import ChatRequest, ResponseFormat, Tool
from gptnode.api.tool_calls import MISTRAL_MARK, OPENING, CallStyle
from gptnode.errors import UsageError
from gptnode.text.grammar import Grammar

__all__ = ["FREE", "Form", "answer_form", "offered_tools"]

SHARED = ("$defs", "definitions")


@dataclass(frozen=True, slots=True)
class Form:
    """``grammar`` of an answer, None if it is free; the answer begins behind ``opening``.

    ``param`` is the field of the request that asked for it.
    """

    grammar: Grammar | None = None
    opening: str = ""
    param: str = ""


FREE = Form()


def offered_tools(request: ChatRequest) -> list[Tool]:
    """The tools that the model is told of."""
    return [] if request.tool_choice == "none" else request.tools or []


def answer_form(request: ChatRequest, style: CallStyle | None) -> Form:
    """What ``request`` asks for; ``style``: how the model calls the tools that it was offered.

    Raises:
        ApiError: it contradicts itself, or can't be done.
    """
    forced = _forced_tools(request)
    shape = request.response_format
    if shape is not None and shape.type != "text":
        if style is not None:
            raise unsupported("response_format", "not together with tools: it would forbid calls")
        return Form(_grammar_of(shape), param="response_format")
    if not forced or style is None:
        return FREE
    schema = _call_schema(forced, "parameters" if style is CallStyle.LLAMA else "arguments")
    opening = {CallStyle.HERMES: f"{OPENING}\n", CallStyle.MISTRAL: MISTRAL_MARK}.get(style, "")
    if style is CallStyle.MISTRAL:
        shared = {name: schema.pop(name) for name in SHARED if name in schema}
        schema = {"type": "array", "items": schema, "minItems": 1, "maxItems": 1, **shared}
    return Form(_made(schema, "tools"), opening, "tools")


def _forced_tools(request: ChatRequest) -> list[Tool]:
    """The tools one of which has to be called; none if the model decides."""
    tools = request.tools or []
    match request.tool_choice:
        case None | "auto" | "none":
            return []
        case "required":
            found = tools
        case {"type": "function", "function": {"name": str(name)}}:
            found = [tool for tool in tools if tool.function.name == name]
        case {"type": "allowed_tools"}:
            raise unsupported("tool_choice", "offer just the tools that may be called")
        case _:
            found = []
    if not found:
        raise ApiError(
            400,
            "tool_choice is none, auto, required, or names one of the tools",
            param="tool_choice",
            code="invalid_value",
        )
    return found


def _grammar_of(shape: ResponseFormat) -> Grammar:
    if shape.type == "json_object":
        return Grammar.json_object()
    if shape.json_schema is None or shape.json_schema.schema is None:
        raise ApiError(
            400,
            "response_format.json_schema.schema is missing",
            param="response_format.json_schema.schema",
            code="missing_required_parameter",
        )
    return _made(shape.json_schema.schema, "response_format")


def _made(schema: dict[str, Any], param: str) -> Grammar:
    try:
        return Grammar.json_schema(schema)
    except UsageError as error:
        raise ApiError(
            400, f"{param}: {error.detail}", param=param, code="invalid_value"
        ) from error


def _call_schema(tools: Sequence[Tool], key: str) -> dict[str, Any]:
    """A call of one of ``tools``. What their schemas refer to by ``#/`` moves to the top."""
    shared: dict[str, dict[str, Any]] = {}
    calls: list[dict[str, Any]] = []
    for tool in tools:
        parameters = dict(tool.function.parameters or {"type": "object"})
        for name in SHARED:
            theirs = parameters.pop(name, None)
            for each, schema in theirs.items() if isinstance(theirs, dict) else ():
                if shared.setdefault(name, {}).setdefault(each, schema) != schema:
                    raise unsupported("tools", f"two of them define {each[:80]!r} differently")
        calls.append(
            {
                "type": "object",
                "properties": {"name": {"const": tool.function.name}, key: parameters},
                "required": ["name", key],
                "additionalProperties": False,
            }
        )
    return {"anyOf": calls, **shared} if len(calls) > 1 else {**calls[0], **shared}
