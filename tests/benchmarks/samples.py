"""A record as a row would make it."""

from __future__ import annotations

from benchmarks.machine import Machine, Versions
from benchmarks.record import Finding, Outcome, Record, Series, Settings, Target

RATIOS = (1.10, 1.00, 1.30)


def sample_record(
    row: str = "decode-bf16",
    *,
    values: tuple[float, ...] = RATIOS,
    target: Target | None = Target(1.05),  # noqa: B008 - frozen
    notes: tuple[str, ...] = ("a note",),
    date: str = "2020-01-02T03:04:05+00:00",
) -> Record:
    return Record(
        row=row,
        date=date,
        settings=Settings(rounds=len(values), prompt_tokens=512, tokens=64, threads=2),
        versions=Versions("0.1.0 (abc)", "3.11.7", "2.13.0", "0.3", "5.0", "2.13.0"),
        machine=Machine("A CPU", 2, 8 << 30, "Linux 6.1 x86_64"),
        outcome=Outcome(
            (Series("gptnode bf16", "tokens/s", tuple(20 * value for value in values)),),
            (Finding("decode / theirs", "x", values, target),),
            notes,
        ),
    )
