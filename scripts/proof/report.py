"""Rows of a table of proofs: what was done how often, what came of it, did it hold."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field

__all__ = ["Row", "print_rows"]


@dataclass
class Row:
    """One proof. ``facts`` are its figures by name, ``failures`` say what didn't hold."""

    name: str
    count: int
    facts: dict[str, float | int | str] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether it was done at all, and nothing failed."""
        return self.count > 0 and not self.failures

    def require(self, holds: bool, failure: str) -> None:
        """Note ``failure`` unless ``holds``."""
        if not holds:
            self.failures.append(failure)


def print_rows(rows: list[Row], seed: int, *, as_json: bool) -> None:
    """All rows, to stdout."""
    if as_json:
        found = [{**asdict(row), "holds": row.holds} for row in rows]
        print(json.dumps({"seed": seed, "holds": all(r.holds for r in rows), "rows": found}))
        return
    for row in rows:
        facts = ", ".join(
            f"{name} {value:.2f}" if isinstance(value, float) else f"{name} {value}"
            for name, value in row.facts.items()
        )
        print(f"{'holds' if row.holds else 'FAILS'}  {row.count:>6,}  {row.name}: {facts}")
        for failure in row.failures[:10]:
            print(f"               - {failure}")
        if len(row.failures) > 10:
            print(f"               - and {len(row.failures) - 10} more")
    print(f"seed {seed}: {sum(r.holds for r in rows)} of {len(rows)} hold")
