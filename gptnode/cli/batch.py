"""`gptnode batch`: many requests from a file, answered together, into another file."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import trio

from gptnode.cli.batch_progress import BatchCount, BatchProgress
from gptnode.cli.client_options import client_config, client_options
from gptnode.cli.options import host_and_port
from gptnode.cli.traces import open_traces, traces_option

if TYPE_CHECKING:
    from gptnode.api.desk import Desk
    from gptnode.cli.batch_files import BatchInput, PartialResults, RequestLine
    from gptnode.node.config import ClientConfig
    from gptnode.node.meter import Meter
    from gptnode.node.service import Service

__all__ = ["batch_command"]

SOME_FAILED = 1
MAX_CHOICES = 16

EXAMPLES = """\b
Examples:
  gptnode batch questions.jsonl answers.jsonl --map swarm.json --identity laptop.key
  gptnode batch questions.jsonl answers.jsonl --model-dir ~/models/my-llama --concurrency 8
"""


@dataclass(frozen=True, slots=True)
class _Watched:
    """By whom a batch is watched: ``spans`` hears of answers, metrics are served at ``address``."""

    spans: Meter
    address: tuple[str, int] | None

    def meter(self) -> tuple[Meter, Callable[..., Awaitable[None]] | None]:
        """What the service is to be opened with; and what then serves its metrics, if asked for."""
        if self.address is None:
            return self.spans, None
        from gptnode.api.health import why_not_ready
        from gptnode.node.health_pages import HealthPages
        from gptnode.node.metrics import Metrics
        from gptnode.node.metrics_endpoint import serve_pages

        metrics, address = Metrics(traces=self.spans), self.address

        async def serve(service: Service, task_status: trio.TaskStatus[str]) -> None:
            pages = HealthPages(metrics, partial(why_not_ready, service))
            await serve_pages(address, pages, task_status)

        return metrics, serve


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
@traces_option
@click.option(
    "--metrics",
    callback=host_and_port,
    metavar="HOST:PORT",
    help="Serve /metrics (Prometheus), /healthz and /readyz over HTTP there while it runs,"
    " e.g. 127.0.0.1:9100.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a summary as one JSON object.")
def batch_command(
    requests: Path,
    out: Path,
    concurrency: int,
    traces: str | None,
    metrics: tuple[str, int] | None,
    as_json: bool,
    **client: Any,
) -> None:
    """Answer the requests in IN, a line each, and write the results to OUT in the same order.

    Lines are those of OpenAI's batches: a JSON object with custom_id, method, url
    (/v1/chat/completions or /v1/completions) and body. A request that can't be answered has its
    error in OUT, and the exit code is 1 then.

    Results are kept in OUT.partial as they come. If the batch is interrupted, or no peer is left to
    answer, the same command goes on where it was. OUT appears when all is done.
    """
    config = client_config(**client)
    with open_traces(traces) as spans:
        watched = _Watched(spans, metrics)
        run = partial(_batch, config, requests, out, concurrency, watched, as_json)
        terminated = trio.run(_until_terminated, run)
    if terminated:
        from gptnode.cli.signals import TERMINATED

        sys.exit(TERMINATED)


async def _until_terminated(run: Any) -> bool:
    # Imported here for the sake of `gptnode batch --help`.
    from gptnode.cli.signals import until_terminated

    return await until_terminated(run)


async def _batch(
    config: ClientConfig,
    requests: Path,
    out: Path,
    concurrency: int,
    watched: _Watched,
    as_json: bool,
) -> None:
    """Answers all, then says how it went; exits with `SOME_FAILED` if some couldn't be."""
    from gptnode.cli.batch_files import BatchInput, PartialResults
    from gptnode.cli.batch_requests import is_lasting

    asked = BatchInput(requests)
    with PartialResults(out, asked, keeps=is_lasting) as results:
        todo = [line for line in asked.lines if line.number not in results.done]
        count = BatchCount(len(asked.lines), len(results.done))
        if todo:
            await _answer_all(config, asked, todo, results, concurrency, watched, count)
        count.failed = results.count(_failed)
        results.finish()
    click.echo(count.summary(out, as_json=as_json))
    if count.failed:
        sys.exit(SOME_FAILED)


async def _answer_all(
    config: ClientConfig,
    asked: BatchInput,
    todo: list[RequestLine],
    results: PartialResults,
    concurrency: int,
    watched: _Watched,
    count: BatchCount,
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
    console = Console(stderr=True, highlight=False, markup=False, emoji=False)
    progress = BatchProgress(console, count)
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
        meter, serve = watched.meter()
        async with open_service(config, limits, report=progress.say, meter=meter) as service:
            desk = Desk(
                service,
                limits=ApiLimits(max_choices=MAX_CHOICES),
                defaults=api_defaults(service.model_folder),
            )
            progress.begin()
            async with background_nursery() as looking, trio.open_nursery() as workers:
                looking.start_soon(progress.keep_showing, service.load)
                if serve is not None:
                    progress.say(f"metrics at {await looking.start(serve, service)}")
                for _ in range(min(concurrency, len(todo))):
                    workers.start_soon(work, desk, workers.cancel_scope)
    if errors:
        done = len(results.done)
        raise errors[0].about(f"{done} of {count.requests} requests are done and kept")


async def _answer_one(
    desk: Desk, asked: BatchInput, line: RequestLine, results: PartialResults, count: BatchCount
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
