"""Jinja for chat templates: what Hugging Face's renderer offers, inside bounds.

A chat template is a program that came with a model. jinja2's sandbox keeps it away from Python;
the bounds here keep it from running for ever and from filling the memory: loops, calls, filters
and operators that make something large are counted, and one rendering may spend so much. A single
operation costs at most what the size of its operands implies. Knows no roles and no tokens.

What templates may rely on is that of `transformers.utils.chat_template_utils`: ``trim_blocks`` and
``lstrip_blocks``, loop controls, ``{% generation %}``, ``raise_exception``, ``strftime_now`` and a
``tojson`` that escapes no HTML.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import datetime
from itertools import islice
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

__all__ = ["BoundedEnvironment", "TemplateTooLargeError"]

MAX_STEPS = 200_000
MAX_CHARS = 16 * 1024 * 1024
MAX_WIDTH = 10_000
# Filters and methods that make something of a size that a number decides.
SIZED = frozenset(
    ["batch", "center", "expandtabs", "indent", "ljust", "rjust", "round", "slice", "truncate",
     "wordwrap", "zfill"]
)  # fmt: skip
PRODUCTS = frozenset(["join", "replace"])
WIDE_PERCENT = re.compile(r"%[^a-zA-Z%]*(\*|\d{5})")
WIDE_BRACES = re.compile(r"\{[^}]*(\{|\d{5})")


class TemplateTooLargeError(jinja2.TemplateRuntimeError):
    """A rendering that would take too many steps or make too much text."""


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """A sandbox whose renderings end. One rendering at a time: call `start` before each."""

    intercepted_binops = frozenset(["+", "*", "**", "%"])

    def __init__(self) -> None:
        """An environment without a loader: templates include no others."""
        self._steps = 0
        self._chars = 0
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[_GenerationTag, loopcontrols],
            finalize=self._checked,
        )
        self.filters["tojson"] = _to_json  # jinja2's own escapes HTML characters
        for name, function in self.filters.items():
            self.filters[name] = self._counted_filter(name, function)
        del self.globals["lipsum"]
        self.globals["raise_exception"] = _raise_exception
        self.globals["strftime_now"] = _strftime_now
        self.globals["namespace"] = _TemplateNamespace

    def start(self) -> None:
        """Gives the next rendering its whole budget."""
        self._steps = 0
        self._chars = 0

    def spend(self, steps: int = 0, chars: int = 0) -> None:
        """Counts work, before it is done where that can be known.

        Raises:
            TemplateTooLargeError: the budget of this rendering is used up.
        """
        self._steps += steps
        self._chars += chars
        if self._steps > MAX_STEPS:
            raise TemplateTooLargeError(f"it takes more than {MAX_STEPS:,} steps")
        if self._chars > MAX_CHARS:
            raise TemplateTooLargeError(f"it makes more than {MAX_CHARS:,} characters")

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        """Calls from a template: macros, methods, functions."""
        owner = getattr(__obj, "__self__", None)
        if isinstance(owner, str):
            __self._count_sized(getattr(__obj, "__name__", ""), (owner, *args), kwargs)
        __self.spend(steps=1, chars=_length(owner))
        result = super().call(__context, __obj, *args, **kwargs)
        __self.spend(chars=_length(result))
        return result

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Operators that can make something large out of something small."""
        if operator == "+":
            self.spend(chars=_length(left) + _length(right))
        elif operator == "*":
            for value, times in ((left, right), (right, left)):
                if isinstance(times, int):
                    self.spend(chars=_length(value) * max(times, 0))
            if _bits(left) + _bits(right) > 4096:
                raise TemplateTooLargeError("it computes too large a number")
        elif operator == "**":
            if not all(isinstance(v, (int, float)) and abs(v) <= 1024 for v in (left, right)):
                raise TemplateTooLargeError("it computes too large a power")
        elif isinstance(left, str) and WIDE_PERCENT.search(left):
            raise TemplateTooLargeError("it formats a value too widely")
        return super().call_binop(context, operator, left, right)

    def concat_values(self, *values: Any) -> str:
        """The operator ``~``."""
        texts = [str(self._checked(value)) for value in values]
        self.spend(chars=sum(map(len, texts)))
        return "".join(texts)

    def counted(self, iterable: Iterable[Any]) -> Any:
        """What a ``for`` runs over; something of unknown length is read up to the bound."""
        if not isinstance(iterable, Collection):
            iterable = list(islice(iterable, MAX_STEPS + 1))
        self.spend(steps=len(iterable))
        return iterable

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """``str.format`` only with narrow fields."""
        wrapped = super().wrap_str_format(value)
        if wrapped is not None and WIDE_BRACES.search(value.__self__):
            raise TemplateTooLargeError("it formats a value too widely")
        return wrapped

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        """Puts the counting into each template."""
        counting: nodes.Template = _Counting().visit(super()._parse(source, name, filename))
        return counting

    def _counted_filter(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """A filter whose operands and result are counted."""

        def counted(*args: Any, **kwargs: Any) -> Any:
            values = [*args, *kwargs.values()]
            self.spend(steps=1, chars=sum(map(_length, values)))
            for value in values:
                self._checked(value)
            own = args[1:] if hasattr(function, "jinja_pass_arg") else args
            self._count_sized(name, own, kwargs)
            result = function(*args, **kwargs)
            self.spend(chars=_length(result))
            return result

        # The marks by which jinja2 knows what a filter wants to be given first.
        counted.__dict__.update(getattr(function, "__dict__", {}))
        return counted

    def _count_sized(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Refuses what would be far larger than its operands."""
        values = [*args, *kwargs.values()]
        if name in SIZED and any(isinstance(v, int) and abs(v) > MAX_WIDTH for v in values):
            raise TemplateTooLargeError(f"it asks for a width of more than {MAX_WIDTH:,}")
        if name == "format" and any(isinstance(v, str) and WIDE_PERCENT.search(v) for v in args):
            raise TemplateTooLargeError("it formats a value too widely")
        if name in PRODUCTS:
            items, *others = map(_length, values)
            self.spend(chars=(items + 1) * max(others, default=0) if len(values) > 1 else 0)

    def _checked(self, value: Any) -> Any:
        """``value``, whose text is not far longer than what it is made of: lists can nest."""
        pending = [value] if isinstance(value, (list, tuple, dict)) else []
        while pending:
            inner = pending.pop()
            items = [*inner, *inner.values()] if isinstance(inner, dict) else inner
            self.spend(steps=1 + len(items), chars=sum(map(_length, items)))
            pending.extend(item for item in items if isinstance(item, (list, tuple, dict)))
        return value


class _Counting(NodeTransformer):
    """Routes loops and ``~`` of a parsed template through its environment."""

    def visit_For(self, node: nodes.For) -> nodes.For:  # noqa: N802
        """``for x in y`` runs over ``environment.counted(y)``."""
        self.generic_visit(node)
        node.iter = _environment_call("counted", [node.iter], node.lineno)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Expr:  # noqa: N802
        """``a ~ b`` is ``environment.concat_values(a, b)``."""
        self.generic_visit(node)
        return _environment_call("concat_values", node.nodes, node.lineno)


class _GenerationTag(Extension):
    """``{% generation %}`` marks what a model wrote, for training; here its body is just text."""

    tags = {"generation"}  # noqa: RUF012 (the base class declares it so)

    def parse(self, parser: Parser) -> nodes.Node:
        """The body, with a scope of its own."""
        line_no = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line_no)


class _TemplateNamespace(Namespace):
    """A namespace that holds no names of Python's inner life."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        """As jinja2's, which takes a ``self`` among the names."""
        self, *rest = args
        attrs = dict(*rest, **kwargs)
        for name in attrs:
            _check_name(name)
        Namespace.__init__(self, attrs)

    def __setitem__(self, name: str, value: Any) -> None:
        """``{% set ns.name = value %}``."""
        _check_name(name)
        super().__setitem__(name, value)


def _environment_call(method: str, args: list[Any], line_no: int) -> nodes.Expr:
    """A call of a method of the environment, which templates themselves can't reach."""
    attribute = nodes.EnvironmentAttribute(method, lineno=line_no)
    return nodes.Call(attribute, args, [], None, None, lineno=line_no)


def _check_name(name: object) -> None:
    """Refuses names that begin with an underscore."""
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"a namespace can't hold {name!r}")


def _length(value: object) -> int:
    """How long a text, list or other collection is; 0 for what has no length to grow."""
    return len(value) if isinstance(value, (str, list, tuple, dict, range)) else 0


def _bits(value: object) -> int:
    """How many bits an integer has; 0 for anything else."""
    return value.bit_length() if isinstance(value, int) else 0


def _raise_exception(message: object) -> None:
    """How a template says that it can't take a conversation."""
    raise jinja2.TemplateError(str(message))


def _strftime_now(format_: str) -> str:
    """The local time in a format of the template's own."""
    return datetime.now().strftime(format_)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON with the options that Hugging Face's filter takes."""
    if isinstance(indent, int) and indent > 64:
        raise TemplateTooLargeError("it indents too far")
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )
