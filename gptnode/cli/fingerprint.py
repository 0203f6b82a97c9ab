"""`gptnode fingerprint`: which files of a model these are."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["fingerprint_command"]


@click.command("fingerprint", epilog="Example: gptnode fingerprint ~/models/my-llama")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
def fingerprint_command(folder: Path) -> None:
    """Print the fingerprint of the model in DIR: 32 hex digits.

    Nodes compute together only where it is the same. Put it into the BlocksMap ("fingerprint" of
    the model) and nodes need no more than the shards of their own blocks; a chat needs those of the
    embedding and the head.
    """
    # Imported here for the sake of --help: torch takes a second.
    from gptnode.node.loading import folder_paths, open_device, open_model

    source = open_model(folder.name, folder_paths(folder), None, open_device("cpu"))
    click.echo(source.key.fingerprint)
