"""Jinja for chat templates: what Hugging Face's renderer offers, inside bounds.

A chat template is a program that came with a model. jinja2's sandbox keeps it away from Python;
the bounds here keep it from running for ever or filling the memory. Everything that loops, calls
or grows a value is counted, and one rendering may spend so much. Knows no roles and no tokens.

What templates may rely on is that of `transformers.utils.chat_template_utils`: ``trim_blocks`` and
``lstrip_blocks``, loop controls, ``{% generation %}``, ``raise_exception``, ``strftime_now`` and a
``tojson`` that escapes no HTML.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import Any, ClassVar

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

__all__ = ["BoundedEnvironment", "TemplateTooLargeError"]

MAX_STEPS = 1_000_000
MAX_CHARS = 64 * 1024 * 1024
MAX_WIDTH = 10_000
# Filters that make text or lists of a size that a number decides.
SIZED_FILTERS = ("batch", "center", "format", "indent", "round", "slice", "truncate", "wordwrap")
SIZED_METHODS = frozenset(["center", "expandtabs", "ljust", "rjust", "zfill"])
FORMAT_WIDTH = re.compile(r"\d{5,}|\*")


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
            trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, loopcontrols]
        )
        # Jinja's own tojson escapes HTML characters.
        self.filters["tojson"] = _to_json
        for name in SIZED_FILTERS:
            self.filters[name] = _narrow(self.filters[name])
        for name in ("join", "replace"):
            self.filters[name] = _counted(self.filters[name], self)
        self.globals["raise_exception"] = _raise_exception
        self.globals["strftime_now"] = _strftime_now
        self.globals["namespace"] = _TemplateNamespace

    def start(self) -> None:
        """Gives the next rendering its whole budget."""
        self._steps = 0
        self._chars = 0

    def spend(self, steps: int = 0, chars: int = 0) -> None:
        """Counts work before it is done.

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
        __self.spend(steps=1)
        __self._check_method(__obj, args, kwargs)
        result = super().call(__context, __obj, *args, **kwargs)
        if isinstance(result, (str, list, range)):
            __self.spend(chars=len(result))
        return result

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Operators that can make something large out of something small."""
        if operator == "+":
            self.spend(chars=_size(left) + _size(right))
        elif operator == "*":
            for value, times in ((left, right), (right, left)):
                if isinstance(value, Sequence) and isinstance(times, int):
                    self.spend(chars=len(value) * max(times, 0))
            self._check_numbers(left, right)
        elif operator == "**":
            if not all(isinstance(v, (int, float)) and abs(v) <= 1024 for v in (left, right)):
                raise TemplateTooLargeError("it computes too large a power")
        elif isinstance(left, str) and FORMAT_WIDTH.search(left):
            raise TemplateTooLargeError("it formats a value too widely")
        return super().call_binop(context, operator, left, right)

    def concat_values(self, *values: Any) -> str:
        """The operator ``~``."""
        texts = [str(value) for value in values]
        self.spend(chars=sum(map(len, texts)))
        return "".join(texts)

    def counted(self, iterable: Iterable[Any]) -> Any:
        """What a ``for`` runs over; something of unknown length is read up to the bound."""
        if not isinstance(iterable, (Sequence, Mapping, range)):
            iterable = list(islice(iterable, MAX_STEPS + 1))
        self.spend(steps=len(iterable))
        return iterable

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        """Puts the counting into each template."""
        template = super()._parse(source, name, filename)
        counting: nodes.Template = _Counting().visit(template)
        return counting

    def _check_numbers(self, left: Any, right: Any) -> None:
        """Keeps products of integers small, which Python would compute at any length."""
        if isinstance(left, int) and isinstance(right, int):
            if left.bit_length() + right.bit_length() > 4096:
                raise TemplateTooLargeError("it computes too large a number")

    def _check_method(self, method: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Methods of text whose result is much larger than what they are given."""
        text = getattr(method, "__self__", None)
        if not isinstance(text, str):
            return
        name = getattr(method, "__name__", "")
        if name in SIZED_METHODS:
            _check_widths(args, kwargs)
        elif name in ("format", "format_map") and FORMAT_WIDTH.search(text):
            raise TemplateTooLargeError("it formats a value too widely")
        elif name in ("join", "replace"):
            self.spend_product(text, args)

    def spend_product(self, text: Any, args: Sequence[Any]) -> None:
        """Counts what joining or replacing can make at most."""
        largest = max((len(arg) for arg in args if isinstance(arg, (str, Sequence))), default=0)
        items = len(text) + 1 if isinstance(text, (str, Sequence)) else 1
        if items * largest > MAX_CHARS // 4:
            raise TemplateTooLargeError(f"it makes more than {MAX_CHARS:,} characters")


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

    tags: ClassVar[set[str]] = {"generation"}

    def parse(self, parser: Parser) -> nodes.Node:
        """The body, with a scope of its own."""
        line_no = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line_no)


class _TemplateNamespace(Namespace):
    """A namespace that holds no names of Python's inner life."""

    def __init__(*args: Any, **kwargs: Any) -> None:  # noqa: N805
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


def _check_name(name: object) -> None:
    """Refuses names that begin with an underscore."""
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"a namespace can't hold {name!r}")


def _environment_call(method: str, args: list[nodes.Expr], line_no: int) -> nodes.Expr:
    """A call of a method of the environment, which templates themselves can't reach."""
    attribute = nodes.EnvironmentAttribute(method, lineno=line_no)
    return nodes.Call(attribute, args, [], None, None, lineno=line_no)


def _narrow(function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that takes no width above `MAX_WIDTH`."""

    def narrow(*args: Any, **kwargs: Any) -> Any:
        _check_widths(args, kwargs)
        if any(isinstance(arg, str) and FORMAT_WIDTH.search(arg) for arg in args[:1]) and (
            getattr(function, "__name__", "") == "do_format"
        ):
            raise TemplateTooLargeError("it formats a value too widely")
        return function(*args, **kwargs)

    return _like(narrow, function)


def _counted(function: Callable[..., Any], environment: BoundedEnvironment) -> Callable[..., Any]:
    """``join`` and ``replace`` as filters, with their largest result counted first."""

    def counted(context: Any, value: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(value, (str, Sequence)):
            value = environment.counted(value) if isinstance(value, Iterable) else value
        environment.spend_product(value, [*args, *kwargs.values()])
        result = function(context, value, *args, **kwargs)
        environment.spend(chars=_size(result))
        return result

    return _like(counted, function)


def _like(wrapper: Callable[..., Any], function: Callable[..., Any]) -> Callable[..., Any]:
    """``wrapper`` with the marks by which jinja2 knows what to pass first."""
    wrapper.__dict__.update(getattr(function, "__dict__", {}))
    return wrapper


def _check_widths(args: Iterable[Any], kwargs: Mapping[str, Any]) -> None:
    """Refuses numbers that are too large for a width or a count."""
    for value in (*args, *kwargs.values()):
        if isinstance(value, int) and abs(value) > MAX_WIDTH:
            raise TemplateTooLargeError(f"it asks for a width of more than {MAX_WIDTH:,}")


def _size(value: object) -> int:
    """How long a value is, as far as it can grow."""
    return len(value) if isinstance(value, (str, list, tuple)) else 0


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
    if isinstance(indent, int):
        _check_widths([indent], {})
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )
