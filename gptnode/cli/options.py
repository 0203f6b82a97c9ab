"""Options that several commands share, with their environment variables.

An option beats its environment variable. Files are not opened here: what is wrong with them is
said, with its own exit code, by the code that reads them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import click

__all__ = [
    "activations_option",
    "byte_size",
    "default_identity_path",
    "device_option",
    "dtype_option",
    "host_and_port",
    "identity_option",
    "map_option",
    "model_dir_option",
    "optional_byte_size",
    "star_option",
    "threads_option",
]

UNITS = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
    "k": 2**10,
    "m": 2**20,
    "g": 2**30,
    "t": 2**40,
}


def byte_size(ctx: click.Context, param: click.Parameter, text: str) -> int:
    """Callback: ``512MiB``, ``2GiB``, ``1.5GB`` or a plain number of bytes; at least 1."""
    match = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,6})?) ?([A-Za-z]{0,3})", text.strip())
    unit = UNITS.get(match[2].lower()) if match else None
    n_bytes = int(float(match[1]) * unit) if match and unit else 0
    if n_bytes < 1:
        raise click.BadParameter(f"{text!r} is no size; write 512MiB or 2GiB", ctx, param)
    return n_bytes


def host_and_port(
    ctx: click.Context, param: click.Parameter, text: str | None
) -> tuple[str, int] | None:
    """Callback: ``127.0.0.1:9100`` or ``[::1]:9100``; port 0 means a free one."""
    if text is None:
        return None
    match = re.fullmatch(r"(\[[0-9A-Fa-f:.%]+\]|[^\[\]:\s]+):([0-9]{1,5})", text.strip())
    if match is None or int(match[2]) > 65535:
        raise click.BadParameter(f"{text!r} is no HOST:PORT; write 127.0.0.1:9100", ctx, param)
    return match[1].strip("[]"), int(match[2])


def optional_byte_size(ctx: click.Context, param: click.Parameter, text: str | None) -> int | None:
    """Callback: as `byte_size`, where nothing may be said."""
    return byte_size(ctx, param, text) if text is not None else None


def default_identity_path(environment: Mapping[str, str] | None = None) -> Path:
    """``$XDG_CONFIG_HOME/gptnode/identity.key``, which is ``~/.config/...`` for most people."""
    settings = os.environ if environment is None else environment
    config = settings.get("XDG_CONFIG_HOME") or ""
    # The XDG specification says that a relative path is to be ignored.
    base = Path(config) if Path(config).is_absolute() else Path.home() / ".config"
    return base / "gptnode" / "identity.key"


map_option = click.option(
    "--map",
    "map_path",
    type=click.Path(path_type=Path),
    metavar="FILE",
    envvar="GPTNODE_MAP",
    show_envvar=True,
    help="The BlocksMap that all nodes of the swarm share.",
)

identity_option = click.option(
    "--identity",
    "identity_path",
    type=click.Path(path_type=Path),
    metavar="FILE",
    envvar="GPTNODE_IDENTITY",
    show_envvar=True,
    help="The identity file of this node.  [default: ~/.config/gptnode/identity.key]",
)

model_dir_option = click.option(
    "--model-dir",
    type=click.Path(path_type=Path),
    metavar="DIR",
    envvar="GPTNODE_MODEL_DIR",
    show_envvar=True,
    help="The model folder on this machine; beats the path in the BlocksMap.",
)

device_option = click.option(
    "--device",
    default="cpu",
    metavar="D",
    envvar="GPTNODE_DEVICE",
    show_envvar=True,
    show_default=True,
    help="Where to compute: cpu, cuda, cuda:1, mps.",
)

threads_option = click.option(
    "--threads",
    type=click.IntRange(min=1),
    metavar="N",
    envvar="GPTNODE_THREADS",
    show_envvar=True,
    help="Threads that compute.  [default: torch's choice]",
)

star_option = click.option(
    "--star",
    is_flag=True,
    help="Have each peer answer this node, in place of peers that hand on to each other.",
)

activations_option = click.option(
    "--activations",
    type=click.Choice(["bf16", "int8"]),
    help="How activations travel between nodes: int8 takes half the bytes of bf16, and changes what"
    " is said a little.  [default: as they are computed]",
)

dtype_option = click.option(
    "--dtype",
    type=click.Choice(["bf16", "f16", "f32", "int8", "int4"]),
    help="Compute in this dtype; beats the one in the BlocksMap and in the model's config. int8 and"
    " int4 quantise the weights while they are loaded.",
)
