"""ChatTemplate: turns of a conversation become the text that a model was trained on.

The model's own Jinja template comes first, rendered as Hugging Face renders it; without one, the
vocabulary tells which of the built-in templates fits. Knows no ids, apart from asking the
tokenizer which of the marks are tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from gptnode.errors import TextError
from gptnode.text.builtin_templates import (
    BUILTIN_TEMPLATES,
    builtin_template,
    detect_template,
)
from gptnode.text.model_files import read_json_object, read_text
from gptnode.text.sandbox import BoundedEnvironment
from gptnode.text.stops import resolve_stops
from gptnode.text.tokenizer import Tokenizer

__all__ = ["ChatTemplate", "ToolCall", "Turn", "load_template"]

MAX_PROMPT_CHARS = 8 * 1024 * 1024
QUESTION = "gptnodeQuestion7"
ANSWER = "gptnodeAnswer7"


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool that an assistant's turn makes; ``arguments`` are JSON values by name."""

    name: str
    arguments: Mapping[str, Any]
    id: str = ""


@dataclass(frozen=True, slots=True)
class Turn:
    """What one side said. ``role`` is ``system``, ``user``, ``assistant`` or ``tool``.

    An assistant's turn may call tools; a tool's turn names the call that it answers by its id, and
    the tool by its name.
    """

    role: str
    text: str
    calls: tuple[ToolCall, ...] = ()
    call_id: str | None = None
    name: str | None = None

    def message(self) -> dict[str, Any]:
        """As Hugging Face's templates expect it."""
        message: dict[str, Any] = {"role": self.role, "content": self.text}
        if self.calls:
            message["tool_calls"] = [
                {
                    "type": "function",
                    "id": call.id,
                    "function": {"name": call.name, "arguments": dict(call.arguments)},
                }
                for call in self.calls
            ]
        if self.call_id is not None:
            message["tool_call_id"] = self.call_id
        if self.name is not None:
            message["name"] = self.name
        return message


class ChatTemplate:
    """A compiled template; renders one conversation at a time.

    Attributes:
        name: Of the built-in template, or ``model`` for the model's own, ``custom`` for one that
            was given as text.
        stops: What ends an answer besides the model's own end-of-text tokens.
    """

    def __init__(
        self,
        name: str,
        source: str,
        *,
        bos_token: str | None = None,
        eos_token: str | None = None,
        stops: tuple[str | tuple[int, ...], ...] = (),
        tool_source: str | None = None,
    ) -> None:
        """Compiles ``source``, and ``tool_source`` for conversations with tools if it has its own.

        Raises:
            TextError: it is not a Jinja template.
        """
        self.name = name
        self.stops = stops
        self.tool_source = source if tool_source is None else tool_source
        self._tokens = {"bos_token": bos_token, "eos_token": eos_token}
        self._environment = BoundedEnvironment()
        try:
            self._template = self._environment.from_string(source)
            self._tool_template = (
                self._template
                if tool_source is None
                else self._environment.from_string(tool_source)
            )
        except Exception as error:  # besides syntax errors: whatever folding constants raises
            raise TextError(f"the chat template {name!r} is not valid: {_reason(error)}") from error

    def render(
        self,
        turns: Sequence[Turn],
        *,
        add_generation_prompt: bool,
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> str:
        """The text of ``turns``, and of the opening of an answer if ``add_generation_prompt``.

        ``tools`` are JSON objects in the form of OpenAI's API, which is what templates know.

        Raises:
            TextError: the template fails or refuses these turns, takes too many steps, or makes
                more than 8 Mi characters.
        """
        tokens = {name: token for name, token in self._tokens.items() if token is not None}
        messages = [turn.message() for turn in turns]
        template = self._tool_template if tools else self._template
        pieces: list[str] = []
        chars = 0
        self._environment.start()
        try:
            for piece in template.generate(
                messages=messages,
                tools=list(tools) if tools else None,
                documents=None,
                add_generation_prompt=add_generation_prompt,
                **tokens,
            ):
                pieces.append(piece)
                chars += len(piece)
                if chars > MAX_PROMPT_CHARS:
                    break
        except Exception as error:  # a template is a program: it can raise anything
            raise TextError(f"the chat template {self.name!r} fails: {_reason(error)}") from error
        if chars > MAX_PROMPT_CHARS:
            raise TextError(
                f"the chat template {self.name!r} makes more than {MAX_PROMPT_CHARS:,} characters"
            )
        return "".join(pieces)

    def takes_system_text(self) -> bool:
        """Whether a system turn reaches the model; some templates refuse or ignore it."""
        turns = [Turn("system", ANSWER), Turn("user", QUESTION)]
        try:
            return ANSWER in self.render(turns, add_generation_prompt=True)
        except TextError:
            return False

    def takes_tools(self) -> bool:
        """Whether the model is told of tools; most templates were written for none."""
        function = {"name": ANSWER, "description": "", "parameters": {"type": "object"}}
        tools = [{"type": "function", "function": function}]
        try:
            asked = [Turn("user", QUESTION)]
            return ANSWER in self.render(asked, add_generation_prompt=True, tools=tools)
        except TextError:
            return False

    def text_after_answer(self) -> str:
        """What stands between an answer and the question after it; empty if that can't be told."""
        turns = [Turn("user", "x"), Turn("assistant", ANSWER), Turn("user", QUESTION)]
        try:
            text = self.render(turns, add_generation_prompt=True)
        except TextError:
            return ""
        _, answer, rest = text.partition(ANSWER)
        after, question, _ = rest.partition(QUESTION)
        return after if answer and question else ""


def load_template(folder: Path | None, tokenizer: Tokenizer, name: str | None) -> ChatTemplate:
    """The template to chat with.

    Args:
        folder: Of the model; its own template is in ``chat_template.jinja`` or in
            ``tokenizer_config.json``.
        tokenizer: Whose vocabulary tells which template fits, and which marks are tokens.
        name: Of a built-in template, or a Jinja template itself; None, ``""`` and ``"auto"`` take
            the model's own and else what the vocabulary suggests.

    Raises:
        TextError: the name is unknown, or the template is not valid.
    """
    label, source, stops = _choose(folder, tokenizer, (name or "").strip())
    tool_source = _own_template(folder, "tool_use") if folder and label == "model" else None
    bos_token, eos_token = tokenizer.bos_token, tokenizer.eos_token
    bare = ChatTemplate(label, source, bos_token=bos_token, eos_token=eos_token)
    marker = _first_special(tokenizer, bare.text_after_answer())
    resolved = resolve_stops(tokenizer, (marker, *stops) if marker else stops)
    return ChatTemplate(
        label,
        source,
        bos_token=bos_token,
        eos_token=eos_token,
        stops=resolved,
        tool_source=tool_source,
    )


def _choose(
    folder: Path | None, tokenizer: Tokenizer, name: str
) -> tuple[str, str, tuple[str, ...]]:
    """Label, source and default stops."""
    if "{{" in name or "{%" in name:
        return "custom", name, ()
    if name and name.lower() != "auto":
        chosen = builtin_template(name)
        if chosen is None:
            known = ", ".join(template.name for template in BUILTIN_TEMPLATES)
            raise TextError(f"there is no chat template {name[:40]!r}: choose auto, {known}")
        return chosen.name, chosen.source, chosen.stops
    own = _own_template(folder) if folder is not None else None
    if own is not None:
        return "model", own, ()
    found = detect_template(tokenizer)
    return found.name, found.source, found.stops


def _own_template(folder: Path, wanted: str = "default") -> str | None:
    """The template that came with the model: a file of its own wins, as in transformers.

    A list of templates has one for conversations with tools as ``tool_use``, where they differ.
    """
    text = read_text(folder / "chat_template.jinja")
    if text is not None:
        return text if wanted == "default" else None
    path = folder / "tokenizer_config.json"
    match read_json_object(path).get("chat_template"):
        case None:
            return None
        case str(source):
            return source if wanted == "default" else None
        case [*entries]:
            for entry in entries:
                match entry:
                    case {"name": str(name), "template": str(source)} if name == wanted:
                        return source
            if wanted != "default":
                return None
            raise TextError(f"{path}: chat_template lists no template named 'default'")
        case _:
            raise TextError(f"{path}: chat_template is neither a text nor a list of templates")


def _first_special(tokenizer: Tokenizer, text: str) -> str | None:
    """The control token that ``text`` begins with, white space apart."""
    text = text.lstrip()
    found = [token for token in tokenizer.added_texts if token and text.startswith(token)]
    longest = max(found, key=len, default="")
    return longest if tokenizer.special_id(longest) is not None else None


def _reason(error: Exception) -> str:
    """What a template error says, on one line."""
    text = " ".join(str(error).split())[:200] or type(error).__name__
    if isinstance(error, jinja2.TemplateSyntaxError):
        return f"line {error.lineno}: {text}"
    return text
