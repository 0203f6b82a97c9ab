"""`gptnode batch`: many requests from a file, answered together, into another file."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import trio

from gptnode.cli.client_options import client_config, client_options
from gptnode.text.printable import printable

if TYPE_CHECKING:
    from gptnode.api.desk import Desk
    from gptnode.cli.batch_files import BatchInput, PartialResults, RequestLine
    from gptnode.node.config import ClientConfig

__all__ = ["batch_command"]

SOME_FAILED = 1
MAX_CHOICES = 16

EXAMPLES = """\b
Examples:
  gptnode batch questions.jsonl answers.jsonl --map swarm.json --identity laptop.key
  gptnode batch questions.jsonl answers.jsonl --model-dir ~/models/my-llama --concurrency 8
"""


@dataclass(slots=True)
class _Count:
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


@click.command("batch", epilog=EXAMPLES)
@click.argument("requests", metavar="IN", type=click.Path(path_type=Path))
@click.argument("out", metavar="OUT", type=click.Path(path_type=Path))
@click.option(
    "--concurrency",
    type=click.IntRange(min=1, max=1024),
    default=16,
    show_default=True,
    metavar="N",
    help="Requests that are answered at the same time.",
)
@client_options
@click.option("--json", "as_json", is_flag=True, help="Print a summary as one JSON object.")
def batch_command(
    requests: Path, out: Path, concurrency: int, as_json: bool, **client: Any
) -> None:
    """Answer the requests in IN, a line each, and write the results to OUT in the same order.

    Lines are those of OpenAI's batches: a JSON object with custom_id, method, url
    (/v1/chat/completions or /v1/completions) and body. A request that can't be answered has its
    error in OUT, and the exit code is 1 then.

    Results are kept in OUT.partial as they come. If the batch is interrupted, or no peer is left to
    answer, the same command goes on where it was. OUT appears when all is done.
    """
    config = client_config(**client)
    if trio.run(_until_terminated, partial(_batch, config, requests, out, concurrency, as_json)):
        from gptnode.cli.signals import TERMINATED

        sys.exit(TERMINATED)


async def _until_terminated(run: Any) -> bool:
    # Imported here for the sake of `gptnode batch --help`.
    from gptnode.cli.signals import until_terminated

    return await until_terminated(run)


async def _batch(
    config: ClientConfig, requests: Path, out: Path, concurrency: int, as_json: bool
) -> None:
    """Answers all, then says how it went; exits with `SOME_FAILED` if some couldn't be."""
    from gptnode.cli.batch_files import BatchInput, PartialResults
    from gptnode.cli.batch_requests import is_lasting

    asked = BatchInput(requests)
    with PartialResults(out, asked, keeps=is_lasting) as results:
        todo = [line for line in asked.lines if line.number not in results.done]
        count = _Count(len(asked.lines), len(results.done))
        if todo:
            await _answer_all(config, asked, todo, results, concurrency, count)
        count.failed = results.count(_failed)
        results.finish()
    _tell(count, out, as_json)
    if count.failed:
        sys.exit(SOME_FAILED)


async def _answer_all(
    config: ClientConfig,
    asked: BatchInput,
    todo: list[RequestLine],
    results: PartialResults,
    concurrency: int,
    count: _Count,
) -> None:
    from rich.console import Console

    from gptnode.api.config import ApiLimits
    from gptnode.api.desk import Desk
    from gptnode.cli.api import api_defaults
    from gptnode.errors import GptNodeError
    from gptnode.node.config import ServiceLimits
    from gptnode.node.nursery import background_nursery
    from gptnode.node.runtime import open_service

    # A request may ask for several answers, and none of them must be refused.
    limits = ServiceLimits(
        max_contexts=concurrency, max_waiting=MAX_CHOICES * concurrency, max_idle=concurrency
    )
    progress = _Progress(Console(stderr=True, highlight=False, markup=False, emoji=False), count)
    errors: list[GptNodeError] = []
    lines = iter(todo)

    async def work(desk: Desk, done: trio.CancelScope) -> None:
        for line in lines:
            try:
                await _answer_one(desk, asked, line, results, count)
            except GptNodeError as error:
                errors.append(error)
                done.cancel()
                return
            progress.show()

    with progress.shown():
        async with open_service(config, limits, report=progress.say) as service:
            desk = Desk(
                service,
                limits=ApiLimits(max_choices=MAX_CHOICES),
                defaults=api_defaults(service.model_folder),
            )
            progress.begin()
            async with background_nursery() as looking, trio.open_nursery() as workers:
                looking.start_soon(progress.keep_showing, service.load)
                for _ in range(min(concurrency, len(todo))):
                    workers.start_soon(work, desk, workers.cancel_scope)
    if errors:
        done = len(results.done)
        raise errors[0].about(f"{done} of {count.requests} requests are done and kept")


async def _answer_one(
    desk: Desk, asked: BatchInput, line: RequestLine, results: PartialResults, count: _Count
) -> None:
    from gptnode.cli.batch_requests import answer_line, failed, tokens_of

    result = await answer_line(desk, asked.read(line))
    results.add(line, result)
    count.answered += 1
    count.failed += failed(result)
    count.completion_tokens += tokens_of(result)


def _failed(result: dict[str, Any]) -> bool:
    from gptnode.cli.batch_requests import failed

    return failed(result)


class _Progress:
    """A progress bar and lines of trouble on stderr, if that is a terminal; lines alone if not."""

    def __init__(self, console: Any, count: _Count) -> None:
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


def _tell(count: _Count, out: Path, as_json: bool) -> None:
    """How it went, on standard output."""
    if as_json:
        summary = {
            "requests": count.requests,
            "answered": count.requests - count.failed,
            "failed": count.failed,
            "done_before": count.done_before,
            "completion_tokens": count.completion_tokens,
            "seconds": round(count.took_s, 3),
            "tokens_per_s": round(count.tokens_per_s, 1),
            "out": str(out),
        }
        click.echo(json.dumps(summary))
        return
    before = f", {count.done_before} of them before" if count.done_before else ""
    failed = f'; {count.failed} failed, see "error" there' if count.failed else ""
    click.echo(
        f"{count.requests} requests done{before}: {count.completion_tokens} tokens in "
        f"{count.took_s:.1f} s ({count.tokens_per_s:.1f} tokens/s), in {out}{failed}"
    )
