"""How far a batch is: counted, shown while it runs, and summed up in the end.

Knows a console. Knows nothing of what is asked and answered.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from gptnode.text.printable import printable

__all__ = ["BatchCount", "BatchProgress"]


@dataclass(slots=True)
class BatchCount:
    """How far a batch is."""

    requests: int
    done_before: int
    answered: int = 0
    failed: int = 0
    completion_tokens: int = 0
    took_s: float = 0.0

    @property
    def tokens_per_s(self) -> float:
        """Of this run."""
        return self.completion_tokens / self.took_s if self.took_s > 0 else 0.0

    def summary(self, out: Path, *, as_json: bool) -> str:
        """How it went, in words or as one JSON object; the results are in ``out``."""
        if as_json:
            summary = {
                "requests": self.requests,
                "answered": self.requests - self.failed,
                "failed": self.failed,
                "done_before": self.done_before,
                "completion_tokens": self.completion_tokens,
                "seconds": round(self.took_s, 3),
                "tokens_per_s": round(self.tokens_per_s, 1),
                "out": str(out),
            }
            return json.dumps(summary)
        before = f", {self.done_before} of them before" if self.done_before else ""
        failed = f'; {self.failed} failed, see "error" there' if self.failed else ""
        return (
            f"{self.requests} requests done{before}: {self.completion_tokens} tokens in "
            f"{self.took_s:.1f} s ({self.tokens_per_s:.1f} tokens/s), in {out}{failed}"
        )


class BatchProgress:
    """A progress bar and lines of trouble on stderr, if that is a terminal; lines alone if not."""

    def __init__(self, console: Any, count: BatchCount) -> None:
        """``console`` writes to stderr."""
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        self._console = console
        self._count = count
        self._began_s: float | None = None
        self._tokens_per_s = 0.0
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task(
            "loading", total=count.requests, completed=count.done_before, speed=""
        )

    @contextmanager
    def shown(self) -> Iterator[None]:
        """The bar is there inside the block and gone after it."""
        with self._bar:
            yield

    def begin(self) -> None:
        """The first request is about to be asked."""
        self._began_s = time.perf_counter()
        self._bar.update(self._task, description="answering")

    def say(self, line: str) -> None:
        """One line of trouble."""
        self._console.print(f"· {printable(line)}", style="dim")

    def show(self) -> None:
        """A request more is done."""
        count = self._count
        if self._began_s is not None:
            count.took_s = time.perf_counter() - self._began_s
        failed = f", {count.failed} failed" if count.failed else ""
        self._bar.update(
            self._task,
            completed=count.done_before + count.answered,
            speed=f"{self._tokens_per_s:.0f} tokens/s{failed}",
        )

    async def keep_showing(self, load: Any) -> None:
        """Show the speed as it is, once a second; for ever."""
        while True:
            await trio.sleep(1.0)
            self._tokens_per_s = load().tokens_per_s
            self.show()
