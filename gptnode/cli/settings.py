"""Settings of a chat: what a person can set, in which range, and how it is read and shown.

One table serves the options of the command line, ``/set`` and its completion. It knows no
terminal and no tensors: `ChatSettings.answer_settings` is where settings become a `Sampling`.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gptnode.errors import UsageError

if TYPE_CHECKING:
    from gptnode.node.answer import AnswerSettings

__all__ = [
    "SETTINGS",
    "ChatSettings",
    "Setting",
    "changed",
    "model_defaults",
    "setting_named",
    "shown",
    "stop_text",
]

NO_VALUE = frozenset({"none", "off", "default", "-"})
"""Words that take a setting back to "not set"."""


@dataclass(frozen=True, slots=True)
class ChatSettings:
    """How the next answers are sampled and where they end.

    ``max_tokens`` None: as many as the context has room for. ``seed`` None: another one each
    answer. ``top_k`` 0, ``top_p`` 1, ``min_p`` 0 and ``repetition_penalty`` 1 do nothing;
    ``temperature`` 0 is greedy. ``stop`` comes on top of the model's own stop sequences.
    """

    max_tokens: int | None = None
    temperature: float = 0.7
    top_k: int = 0
    top_p: float = 0.95
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()

    def answer_settings(
        self, model_stops: tuple[str | tuple[int, ...], ...] = ()
    ) -> AnswerSettings:
        """These settings as the node takes them, with the model's stop sequences before ours."""
        # Imported here: these bring torch along, and `--help` should not wait for it.
        from gptnode.model.sampler import Sampling
        from gptnode.node.answer import AnswerSettings

        return AnswerSettings(
            sampling=Sampling(
                temperature=self.temperature,
                top_k=self.top_k,
                top_p=self.top_p,
                min_p=self.min_p,
                repetition_penalty=self.repetition_penalty,
                seed=self.seed,
            ),
            max_tokens=self.max_tokens,
            stop=(*model_stops, *self.stop),
        )


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting by the name that people type, e.g. ``top-k``."""

    name: str
    field: str
    help: str
    example: str
    parse: Callable[[str], Any]


def _whole(low: int, high: int | None = None) -> Callable[[str], int]:
    """A parser of whole numbers of at least ``low`` (and at most ``high``)."""
    wanted = f"a whole number from {low}" + (f" to {high}" if high is not None else "")

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise ValueError(wanted) from None
        if value < low or (high is not None and value > high):
            raise ValueError(wanted)
        return value

    return parse


def _real(low: float, high: float, *, above: bool = False) -> Callable[[str], float]:
    """A parser of numbers in [low, high], or in (low, high] if ``above``."""
    wanted = f"a number {'above' if above else 'from'} {low:g} {'up ' if above else ''}to {high:g}"

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise ValueError(wanted) from None
        # A NaN compares false with everything, so the range has to be asked for positively.
        if not ((low < value if above else low <= value) and value <= high):
            raise ValueError(wanted)
        return value

    return parse


def _optional(parse: Callable[[str], int]) -> Callable[[str], int | None]:
    """The same parser, with "none" for not set."""

    def optional(text: str) -> int | None:
        return None if text.lower() in NO_VALUE else parse(text)

    return optional


def _stops(text: str) -> tuple[str, ...]:
    r"""Stop sequences, quoted as in a shell; ``\n`` and ``\t`` stand for themselves."""
    if text.strip().lower() in NO_VALUE:
        return ()
    lexer = shlex.shlex(text, posix=True, punctuation_chars=False)
    lexer.whitespace_split = True
    lexer.commenters = ""
    lexer.escape = ""
    try:
        words = list(lexer)
    except ValueError:
        raise ValueError("words, each in quotes if it has spaces in it") from None
    stops = tuple(stop_text(word) for word in words)
    if not stops or "" in stops:
        raise ValueError('at least one word, such as "User:" (or none)')
    return stops


def stop_text(typed: str) -> str:
    r"""A stop sequence as it is typed: ``\n`` is a line break, ``\t`` a tab."""
    return typed.replace("\\n", "\n").replace("\\t", "\t")


SETTINGS: tuple[Setting, ...] = (
    Setting(
        "max-tokens",
        "max_tokens",
        "longest answer, in tokens (none: as far as the context reaches)",
        "256",
        _optional(_whole(1)),
    ),
    Setting("temperature", "temperature", "0 is greedy, 1 the model's own", "0.7", _real(0, 10)),
    Setting("top-k", "top_k", "only the K likeliest tokens (0: all)", "40", _whole(0)),
    Setting(
        "top-p",
        "top_p",
        "only the likeliest tokens that make up P together (1: all)",
        "0.95",
        _real(0, 1, above=True),
    ),
    Setting("min-p", "min_p", "only tokens of at least P times the likeliest", "0.05", _real(0, 1)),
    Setting(
        "repetition-penalty",
        "repetition_penalty",
        "above 1 makes tokens less likely that are there already",
        "1.1",
        _real(0, 10, above=True),
    ),
    Setting(
        "seed",
        "seed",
        "the same seed gives the same answer (none: another each time)",
        "42",
        _optional(_whole(0, 2**63 - 1)),
    ),
    Setting("stop", "stop", "texts that end an answer, besides the model's own", '"User:"', _stops),
)


def setting_named(name: str) -> Setting:
    """The setting ``name``, with ``-`` or ``_``; UsageError names the nearest one."""
    wanted = name.lower().replace("_", "-").lstrip("-")
    names = [setting.name for setting in SETTINGS]
    if wanted in names:
        return SETTINGS[names.index(wanted)]
    near = get_close_matches(wanted, names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}"
    raise UsageError(f"no setting is called {name!r} ({hint})")


def changed(settings: ChatSettings, name: str, value: str) -> ChatSettings:
    """``settings`` with one of them set from text; UsageError says what values it takes."""
    setting = setting_named(name)
    try:
        return replace(settings, **{setting.field: setting.parse(value)})
    except ValueError as error:
        raise UsageError(f"{setting.name} takes {error}, not {value!r}") from None


def shown(settings: ChatSettings, setting: Setting) -> str:
    """The value of one setting, in the form that `changed` reads."""
    value = getattr(settings, setting.field)
    if value is None or value == ():
        return "none"
    if isinstance(value, tuple):
        return " ".join(_quoted(stop) for stop in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _quoted(stop: str) -> str:
    """One stop sequence in quotes that `_stops` takes off again."""
    escaped = stop.replace("\n", "\\n").replace("\t", "\\t")
    return f"'{escaped}'" if '"' in escaped else f'"{escaped}"'


def model_defaults(folder: Path | None) -> ChatSettings:
    """What the model's own ``generation_config.json`` asks for; without one, 0.7 and 0.95.

    ``"do_sample": false`` is greedy, ``true`` takes the file's temperature, top_k, top_p, min_p
    and repetition_penalty; a file that doesn't say leaves gptnode's defaults. Values out of range
    are left out too: a chat should not fail for a wish.
    """
    plain = ChatSettings()
    if folder is None:
        return plain
    try:
        wishes = json.loads((folder / "generation_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return plain
    if not isinstance(wishes, dict) or not isinstance(wishes.get("do_sample"), bool):
        return plain
    if not wishes["do_sample"]:
        return replace(plain, temperature=0.0, top_p=1.0)
    chosen = replace(plain, temperature=1.0, top_p=1.0)
    sampled = {"temperature", "top_k", "top_p", "min_p", "repetition_penalty"}
    for setting in fields(ChatSettings):
        value = wishes.get(setting.name)
        if setting.name not in sampled or isinstance(value, bool) or value is None:
            continue
        try:
            chosen = changed(chosen, setting.name, str(value))
        except UsageError:
            continue
    return chosen
