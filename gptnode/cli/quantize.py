"""`gptnode quantize`: a model folder in fewer bits, once, instead of at every start of a node."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from gptnode.model.quantised_folder import QuantisedFolder

__all__ = ["quantize_command"]


@click.command(
    "quantize",
    epilog="Example: gptnode quantize ~/models/my-llama ~/models/my-llama-int4 --dtype int4",
)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.argument("out", metavar="OUT", type=click.Path(path_type=Path))
@click.option(
    "--dtype",
    type=click.Choice(["int8", "int4"]),
    default="int8",
    show_default=True,
    help="8 or 4 bits for each weight of the blocks; embedding and output matrix have 8 in both.",
)
@click.option("--force", is_flag=True, help="Replace OUT if it is a model folder.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
def quantize_command(folder: Path, out: Path, dtype: str, force: bool, as_json: bool) -> None:
    """Write the model in DIR with quantised weights to the folder OUT.

    DIR is a Llama in Hugging Face form with weights in bf16, f16 or f32. OUT is a folder that
    `--model-dir` and the BlocksMap take like any other: it holds all that a chat needs, loads
    without conversion, and has a fingerprint of its own. It appears when it is complete.
    """
    # Imported here for the sake of --help: torch takes a second.
    from gptnode.model.quantised_folder import quantise_folder

    started_s = time.monotonic()
    with _progress_bar() as report:
        done = quantise_folder(folder, out, dtype, report, replace=force)
    elapsed_s = time.monotonic() - started_s
    click.echo(json.dumps(_summary(done, folder, elapsed_s)) if as_json else _line(done))


def _line(done: QuantisedFolder) -> str:
    """What was done, in one line."""
    return (
        f"{done.folder}: {done.dtype_name}, {done.n_bytes / 1e6:,.1f} MB of weights instead of "
        f"{done.source_bytes / 1e6:,.1f} MB, fingerprint {done.fingerprint}"
    )


def _summary(done: QuantisedFolder, source: Path, elapsed_s: float) -> dict[str, object]:
    return {
        "folder": str(done.folder),
        "dtype": done.dtype_name,
        "fingerprint": done.fingerprint,
        "source": str(source),
        "source_fingerprint": done.source_fingerprint,
        "tensors": done.n_tensors,
        "quantised_tensors": done.n_quantised,
        "weight_bytes": done.n_bytes,
        "source_weight_bytes": done.source_bytes,
        "elapsed_s": round(elapsed_s, 3),
    }


@contextmanager
def _progress_bar() -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr, where that is a terminal: a function that takes bytes done and all bytes."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    columns = (TextColumn("quantising"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        task = progress.add_task("quantising", total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
