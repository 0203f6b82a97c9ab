"""The options of commands that are a client of a swarm.

Each command turns what they say into a `ClientConfig` with `client_config`. A chat has its own ways
to wait and to verify, the others have those of `client_options`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from gptnode.cli.chat_options import SCRIPT_WAIT_S
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

if TYPE_CHECKING:
    from gptnode.node.config import ClientConfig

__all__ = ["client_config", "client_options", "model_options"]

Command = TypeVar("Command", bound=Callable[..., Any])


def model_options(command: Command) -> Command:
    """What to compute, and how: values that `client_config` takes, by the same names."""
    options = [
        map_option,
        identity_option,
        click.option("--model", metavar="NAME", help="The model of the BlocksMap to use."),
        model_dir_option,
        click.option(
            "--context-tokens",
            type=click.IntRange(min=16),
            metavar="N",
            help="Longest context, prompt and answer together.  [default: 4096, if the model allows"
            " it]",
        ),
        click.option("--template", metavar="NAME", help="Chat template, if not the model's own."),
        device_option,
        threads_option,
        dtype_option,
        star_option,
        activations_option,
        click.option(
            "--draft",
            type=click.Path(path_type=Path),
            metavar="DIR",
            help="A small model on this machine, with the same tokenizer, that guesses what comes"
            " next; beats the one in the BlocksMap. The tokens are the same.",
        ),
        click.option(
            "--no-speculation",
            is_flag=True,
            help="Compute token by token: don't guess what comes next. The tokens are the same.",
        ),
    ]
    return _with(command, options)


def client_options(command: Command) -> Command:
    """`model_options`, and the other values that `client_config` takes."""
    options = [
        model_options,
        click.option(
            "--wait-s",
            type=click.FloatRange(min=0),
            default=SCRIPT_WAIT_S,
            show_default=True,
            metavar="S",
            help="Seconds to wait for a peer where some blocks have none.",
        ),
        click.option(
            "--verify",
            type=click.FloatRange(min=0, max=1),
            default=0.0,
            show_default=True,
            metavar="FRACTION",
            help="Have this part of the peers' steps computed by a replica too, and use no peer any"
            " more that is wrong.",
        ),
    ]
    return _with(command, options)


def client_config(
    *,
    map_path: Path | None,
    identity_path: Path | None,
    model: str | None,
    model_dir: Path | None,
    context_tokens: int | None,
    template: str | None,
    device: str,
    threads: int | None,
    dtype: str | None,
    star: bool,
    activations: str | None,
    draft: Path | None,
    no_speculation: bool,
    wait_s: float = 0.0,
    verify: float = 0.0,
) -> ClientConfig:
    """What the options say.

    Raises:
        UsageError: they name no model, or contradict each other.
    """
    # Imported here for the sake of --help.
    from gptnode.node.config import ClientConfig

    if map_path is None and model_dir is None:
        raise UsageError("name a BlocksMap with --map, or a model folder with --model-dir")
    if verify and map_path is None:
        raise UsageError("--verify compares peers: name a BlocksMap with --map")
    if draft is not None and no_speculation:
        raise UsageError("--draft guesses tokens, --no-speculation has none guessed: drop one")
    identity = identity_path or default_identity_path()
    return ClientConfig(
        map_path=map_path,
        identity_path=identity if map_path is not None else None,
        model_name=model,
        model_dir=model_dir,
        dtype=dtype,
        template=template,
        device=device,
        threads=threads,
        context_tokens=context_tokens,
        wait_s=wait_s,
        verify=verify,
        rings=not star,
        speculate=not no_speculation,
        draft=draft,
        activations=activations,
    )


def _with(command: Command, options: Sequence[Callable[[Command], Command]]) -> Command:
    """``command`` with ``options``, shown in their order."""
    for option in reversed(options):
        command = option(command)
    return command
