"""`gptnode bench`: how fast a model runs here, or over a swarm, and where the time goes.

The measuring is `gptnode.node.bench`; here are options, the progress bar and where the figures go:
a report on standard output, one JSON object with --json, a picture with --plot.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
import trio
from click.core import ParameterSource

from gptnode.cli.options import (
    activations_option,
    default_identity_path,
    device_option,
    dtype_option,
    identity_option,
    map_option,
    model_dir_option,
    star_option,
    threads_option,
)
from gptnode.errors import UsageError
from gptnode.text.printable import printable

if TYPE_CHECKING:
    from rich.console import Console

    from gptnode.node.bench import Advance, BenchPlan
    from gptnode.node.bench_report import BenchReport
    from gptnode.node.config import ClientConfig

__all__ = ["bench_command"]

PLAIN_WIDTH = 100

count = click.IntRange(min=1)


EXAMPLES = """\b
Examples:
  gptnode bench --model-dir ~/models/my-llama
  gptnode bench --model-dir ~/models/my-llama --dtype int8 --threads 4 --json
  gptnode bench --model-dir ~/models/my-llama --context 8192 --tokens 64
  gptnode bench --map swarm.json --identity laptop.key --plot steps.svg
  gptnode bench --map swarm.json --identity laptop.key --users 16 --json
"""


@click.command("bench", epilog=EXAMPLES)
@model_dir_option
@dtype_option
@map_option
@identity_option
@click.option("--model", metavar="NAME", help="The model of the BlocksMap to measure.")
@click.option(
    "--prompt-tokens",
    type=count,
    default=512,
    show_default=True,
    metavar="N",
    help="Tokens of the prefill.",
)
@click.option(
    "--tokens", type=count, default=32, show_default=True, metavar="N", help="Decode steps."
)
@click.option(
    "--context",
    "context_tokens",
    type=count,
    metavar="N",
    help="Tokens in the caches when the decode steps begin.  [default: those of the prefill]",
)
@click.option(
    "--repeat",
    type=count,
    default=1,
    show_default=True,
    metavar="N",
    help="Measure that often; the steps of all runs count together.",
)
@click.option(
    "--users",
    type=count,
    default=1,
    show_default=True,
    metavar="N",
    help="So many contexts at once; tokens per second are then those of all together.",
)
@threads_option
@device_option
@star_option
@activations_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
@click.option(
    "--plot",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Draw the steps and the waterfall into this .svg or .png; needs gptnode[plot].",
)
@click.pass_context
def bench_command(
    ctx: click.Context,
    model_dir: Path | None,
    dtype: str | None,
    map_path: Path | None,
    identity_path: Path | None,
    model: str | None,
    prompt_tokens: int,
    tokens: int,
    context_tokens: int | None,
    repeat: int,
    users: int,
    threads: int | None,
    device: str,
    star: bool,
    activations: str | None,
    as_json: bool,
    plot: Path | None,
) -> None:
    """Measure prefill and decode, on this machine alone or over a swarm.

    With --model-dir all blocks run in this process; with --map they run where a chat would run
    them. Token ids are made up, so no tokenizer is needed. A warm-up comes first and isn't counted;
    the sampler (greedy) and the model's head are part of every figure, as in a chat.
    """
    map_path = _map_to_measure(ctx, model_dir, map_path)
    if model_dir is None and map_path is None:
        raise UsageError("name what to measure: --model-dir DIR, or --map FILE for a swarm")
    if model is not None and map_path is None:
        raise UsageError("--model names a model of a BlocksMap: give its file with --map")
    if plot is not None:
        from gptnode.cli.bench_plot import check_plot

        check_plot(plot)
    # Imported here: torch takes a second, and wrong options should be told before.
    from gptnode.cli.signals import TERMINATED, until_terminated
    from gptnode.node.bench import BenchPlan
    from gptnode.node.config import ClientConfig

    if map_path is not None and identity_path is None:
        identity_path = default_identity_path()
    config = ClientConfig(
        rings=not star,
        activations=activations,
        speculate=False,  # ids at random repeat nothing, and every step counts
        map_path=map_path,
        identity_path=identity_path if map_path is not None else None,
        model_name=model,
        model_dir=model_dir,
        dtype=dtype,
        device=device,
        threads=threads,
    )
    plan = BenchPlan(
        prompt_tokens=prompt_tokens,
        tokens=tokens,
        context_tokens=context_tokens,
        repeat=repeat,
        users=users,
    )
    if trio.run(until_terminated, partial(_bench, config, plan, as_json, plot)):
        sys.exit(TERMINATED)


def _map_to_measure(
    ctx: click.Context, model_dir: Path | None, map_path: Path | None
) -> Path | None:
    """The map, unless a folder is to be measured; UsageError if somebody typed both.

    What was typed beats a variable. A folder that a variable names is where this machine has the
    model of the map, as in a chat.
    """
    typed = {
        name
        for name in ("model_dir", "map_path")
        if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE
    }
    if len(typed) == 2:
        raise UsageError(
            "--model-dir measures this machine alone and --map a swarm: give one of them "
            "(GPTNODE_MODEL_DIR may say where this machine has the model of the map)"
        )
    return None if typed == {"model_dir"} else map_path


async def _bench(config: ClientConfig, plan: BenchPlan, as_json: bool, plot: Path | None) -> None:
    """Measures, and says what came out."""
    from rich.console import Console

    from gptnode.node.bench import measure

    waiting = _Waiting(Console(stderr=True, highlight=False, markup=False, emoji=False))
    with waiting.shown():
        report = await measure(
            config,
            plan,
            report=waiting.say,
            progress=waiting.advance if waiting.is_looked_at else None,
        )
    _print_report(report, as_json)
    if plot is not None:
        from gptnode.cli.bench_plot import save_plot

        save_plot(report, plot)
        waiting.say(f"drawn into {plot}")


class _Waiting:
    """A progress bar and status lines on stderr, if that is a terminal; nothing at all if not."""

    def __init__(self, console: Console) -> None:
        """``console`` writes to stderr."""
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        self.is_looked_at = console.is_terminal
        self._console = console
        # No refreshes by themselves: they would take time from a step that is measured.
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            console=console,
            transient=True,
            auto_refresh=False,
            disable=not self.is_looked_at,
        )
        self._task = self._bar.add_task("loading", total=None)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """The bar is there inside the block and gone after it."""
        with self._bar:
            yield

    def say(self, line: str) -> None:
        """One line of progress or trouble."""
        if self.is_looked_at:
            self._console.print(f"· {printable(line)}", style="dim")

    def advance(self, advance: Advance) -> None:
        """Show how far it is."""
        self._bar.update(
            self._task,
            description=advance.phase,
            completed=advance.done_tokens,
            total=advance.total_tokens,
            refresh=True,
        )


def _print_report(report: BenchReport, as_json: bool) -> None:
    """On standard output: JSON in one line, or text as wide as the terminal."""
    from rich.console import Console

    from gptnode.cli.bench_views import draw_report, report_json

    if as_json:
        click.echo(json.dumps(report_json(report), ensure_ascii=True))
        return
    plain = not sys.stdout.isatty()
    console = Console(
        width=PLAIN_WIDTH if plain else None, highlight=False, markup=False, emoji=False
    )
    with console.capture() as capture:
        for part in draw_report(report, console):
            console.print(part)
    text = capture.get()
    if plain:
        text = "".join(f"{line.rstrip()}\n" for line in text.splitlines())
    if console.options.ascii_only:
        text = text.replace("…", "~").encode("ascii", "replace").decode("ascii")
    click.echo(text, nl=False)
