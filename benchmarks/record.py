"""What a row found, with all that is needed to judge it later, and its form in JSON.

One file a row holds a list of records, the newest last. Knows no processes and no screen.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from benchmarks.machine import Machine, Versions
from benchmarks.stats import Summary

__all__ = ["Finding", "Outcome", "Record", "Series", "Settings", "Target", "append", "newest"]


@dataclass(frozen=True, slots=True)
class Target:
    """What the median has to reach, or must not exceed."""

    bound: float
    at_least: bool = True

    def met_by(self, median: float) -> bool:
        """Whether ``median`` is good enough."""
        return median >= self.bound if self.at_least else median <= self.bound

    def __str__(self) -> str:
        """Such as ``>= 1.05``."""
        return f"{'>=' if self.at_least else '<='} {self.bound:g}"


@dataclass(frozen=True, slots=True)
class Series:
    """One measured quantity of one side: a value for each round."""

    name: str
    unit: str
    values: tuple[float, ...]

    @property
    def summary(self) -> Summary:
        """Over the rounds."""
        return Summary.of(self.values)


@dataclass(frozen=True, slots=True)
class Finding:
    """What a row is about: a ratio or a difference for each round, and what it shall be."""

    name: str
    unit: str
    values: tuple[float, ...]
    target: Target | None = None

    @property
    def summary(self) -> Summary:
        """Over the rounds."""
        return Summary.of(self.values)

    @property
    def met(self) -> bool | None:
        """Whether the median meets the target; None without one."""
        return None if self.target is None else self.target.met_by(self.summary.median)


@dataclass(frozen=True, slots=True)
class Outcome:
    """All that one run of a row measured; ``notes`` are sentences for the reader."""

    series: tuple[Series, ...]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Settings:
    """How a row was measured."""

    rounds: int
    prompt_tokens: int
    tokens: int
    threads: int


@dataclass(frozen=True, slots=True)
class Record:
    """One run of a row. ``date`` is ISO 8601 in UTC."""

    row: str
    date: str
    settings: Settings
    versions: Versions
    machine: Machine
    outcome: Outcome

    def to_json(self) -> dict[str, Any]:
        """As an object of JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`.

        Raises:
            KeyError, TypeError: ``value`` is no record.
        """
        outcome = value["outcome"]
        return cls(
            row=value["row"],
            date=value["date"],
            settings=Settings(**value["settings"]),
            versions=Versions(**value["versions"]),
            machine=Machine(**value["machine"]),
            outcome=Outcome(
                series=tuple(
                    Series(each["name"], each["unit"], tuple(each["values"]))
                    for each in outcome["series"]
                ),
                findings=tuple(_finding(each) for each in outcome["findings"]),
                notes=tuple(outcome["notes"]),
            ),
        )


def append(folder: Path, record: Record) -> Path:
    """Add ``record`` to the file of its row in ``folder``, which is made if it isn't there.

    Returns:
        The file. It is replaced in one step, so an interrupted run loses no earlier record.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{record.row}.json"
    records = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    text = json.dumps([*records, record.to_json()], indent=1, ensure_ascii=False)
    partial = path.with_suffix(".partial")
    partial.write_text(text + "\n", encoding="utf-8")
    partial.replace(path)
    return path


def newest(folder: Path, row: str) -> Record | None:
    """The last record of ``row``; None if it was never measured."""
    path = folder / f"{row}.json"
    if not path.exists():
        return None
    return Record.from_json(json.loads(path.read_text(encoding="utf-8"))[-1])


def _finding(value: Mapping[str, Any]) -> Finding:
    target = value["target"]
    return Finding(
        value["name"],
        value["unit"],
        tuple(value["values"]),
        Target(**target) if target is not None else None,
    )
