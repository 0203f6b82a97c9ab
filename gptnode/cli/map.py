"""`gptnode map`: is a BlocksMap right, and what does it say?

`check` also looks into the model folders that are on this machine, as far as plain JSON goes: how
many blocks a model has stands in its config.json. No torch, no network.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from gptnode.cli.map_new import new_command
from gptnode.cli.map_picture import counted, draw_map, shares
from gptnode.errors import MapError
from gptnode.routing.blocks_map import (
    BlocksMap,
    ModelEntry,
    ModelPaths,
    examine_blocks_map,
    read_blocks_map,
)
from gptnode.routing.map_checks import blocks_text
from gptnode.routing.route import Route, plan_route
from gptnode.span import Span

__all__ = ["map_group"]

MAX_CONFIG_BYTES = 2**20
PLAIN_WIDTH = 80

file_argument = click.argument("file", type=click.Path(path_type=Path))


@click.group("map")
def map_group() -> None:
    """Write, check and show BlocksMap files."""


map_group.add_command(new_command)


@map_group.command("check")
@file_argument
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
def check_command(file: Path, as_json: bool) -> None:
    """Tell whether FILE is a right BlocksMap; exit code 3 if it isn't.

    All problems are listed, each with its JSON path. Where the folder of a model is on this
    machine, its number of blocks is compared too. Warnings name what works but may surprise: blocks
    with one peer only, folders that are not here.
    """
    reading = examine_blocks_map(file)
    problems = list(reading.problems)
    warnings: list[str] = []
    found: list[_ModelCheck] = []
    if reading.blocks_map is not None:
        found = [_check_model(reading.blocks_map, model) for model in reading.blocks_map.models]
        problems += [line for one in found for line in one.problems]
        warnings += [line for one in found for line in one.warnings]
        warnings += _warnings(reading.blocks_map)
    if as_json:
        click.echo(json.dumps(_check_json(found, problems, warnings), ensure_ascii=False))
    if problems:
        listed = problems[0] if len(problems) == 1 else _listed(problems)
        raise MapError(f"{file}: {listed}")
    if reading.blocks_map is not None and not as_json:
        for line in warnings:
            click.echo(f"warning: {line}")
        click.echo(f"ok: {file}: {_summary(reading.blocks_map)}")


@map_group.command("show")
@file_argument
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
def show_command(file: Path, as_json: bool) -> None:
    """Draw who serves what: a table of the peers, a picture of the blocks, the hops of the route.

    The route is the one of a chat while all peers are up. Plain text where the output is no
    terminal.
    """
    blocks_map = read_blocks_map(file)
    if as_json:
        click.echo(json.dumps(_map_json(blocks_map), ensure_ascii=False))
        return
    # Imported here: --json and --help do without it.
    from rich.console import Console

    plain = not sys.stdout.isatty()
    console = Console(
        width=PLAIN_WIDTH if plain else None, highlight=False, markup=False, emoji=False
    )
    with console.capture() as capture:
        for part in draw_map(blocks_map, console):
            console.print(part)
    text = f"{file}: {_summary(blocks_map)}\n\n{capture.get()}"
    if plain:
        text = "".join(f"{line.rstrip()}\n" for line in text.splitlines())
    if console.options.ascii_only:
        text = text.replace("…", "~").encode("ascii", "replace").decode("ascii")
    click.echo(text, nl=False)


@dataclass(frozen=True, slots=True)
class _ModelCheck:
    """What the check of one model found; ``n_blocks`` is the model's own number, if it is known."""

    model: ModelEntry
    paths: ModelPaths | None
    n_blocks: int | None
    route: Route | None
    problems: tuple[str, ...]
    warnings: tuple[str, ...]


def _check_model(blocks_map: BlocksMap, model: ModelEntry) -> _ModelCheck:
    """Compare the routes of ``model`` with its config.json, if that is here."""
    paths = blocks_map.model_paths(model.name)
    n_blocks, warning = _n_blocks(model, paths)
    problems = blocks_map.block_problems(model.name, n_blocks) if n_blocks is not None else ()
    return _ModelCheck(
        model, paths, n_blocks, _route(blocks_map, model), problems, (warning,) if warning else ()
    )


def _n_blocks(model: ModelEntry, paths: ModelPaths | None) -> tuple[int | None, str]:
    """How many blocks the model has, or a warning that says why that isn't known."""
    if paths is None:
        return None, f"{model.name} has no path: every node that serves it needs --model-dir"
    unchecked = f"so the end of {model.name} isn't checked"
    try:
        if not paths.folder.is_dir():
            return None, f"no folder {paths.folder} on this machine, {unchecked}"
        with paths.config.open("rb") as file:
            config = json.loads(file.read(MAX_CONFIG_BYTES))
    except FileNotFoundError:
        return None, f"no file {paths.config}, {unchecked}"
    except (OSError, ValueError, RecursionError):
        return None, f"{paths.config} can't be read as JSON, {unchecked}"
    count = config.get("num_hidden_layers") if isinstance(config, dict) else None
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        return None, f"{paths.config} has no num_hidden_layers, {unchecked}"
    return count, ""


def _warnings(blocks_map: BlocksMap) -> Iterator[str]:
    """What works but may surprise."""
    for model in blocks_map.models:
        if not blocks_map.n_blocks(model.name):
            yield f"no route serves {model.name}"
        ends = blocks_map.ends(model.name)
        if ends.embed and ends.head and model.fingerprint is None:
            yield (
                f"{model.name} has no fingerprint: clients without its weights need it "
                "(`gptnode fingerprint DIR`)"
            )
        for span, peer_id in _lonely(blocks_map, model.name):
            entry = blocks_map.peer(peer_id)
            label = entry.label if entry is not None else peer_id
            verb = "has" if len(span) == 1 else "have"
            yield f"{blocks_text(span)} of {model.name} {verb} no replica: only {label} serves them"
    for index, peer in enumerate(blocks_map.peers):
        if not any(blocks_map.spans_of(peer.id, model.name) for model in blocks_map.models):
            yield f"peers[{index}]: {peer.label} serves no blocks"
    if not blocks_map.clients:
        yield "no clients: only the peers themselves may chat"


def _lonely(blocks_map: BlocksMap, model: str) -> Iterator[tuple[Span, str]]:
    """The spans that one peer alone serves."""
    holders = blocks_map.holders(model, blocks_map.n_blocks(model))
    start = 0
    for block in range(1, len(holders) + 1):
        if block == len(holders) or holders[block] != holders[start]:
            if len(holders[start]) == 1:
                yield Span(start, block), holders[start][0]
            start = block


def _route(blocks_map: BlocksMap, model: ModelEntry) -> Route | None:
    """The route while all peers are up; None for a model without routes."""
    n_blocks = blocks_map.n_blocks(model.name)
    return plan_route(blocks_map, model.name, n_blocks) if n_blocks else None


def _summary(blocks_map: BlocksMap) -> str:
    """The map in one line."""
    models = []
    for model in blocks_map.models:
        route = _route(blocks_map, model)
        blocks = counted(route.n_blocks, "block") if route is not None else "no routes"
        hops = f" in {counted(len(route.hops), 'hop')}" if route is not None else ""
        models.append(f"{model.name}, {blocks}{hops}")
    peers, clients = len(blocks_map.peers), len(blocks_map.clients)
    return f"{'; '.join(models)}; {counted(peers, 'peer')}, {counted(clients, 'client')}"


def _listed(problems: list[str]) -> str:
    """Several problems, each on a line."""
    return "\n  ".join([f"{len(problems)} problems", *problems])


def _check_json(
    found: list[_ModelCheck], problems: list[str], warnings: list[str]
) -> dict[str, object]:
    return {
        "ok": not problems,
        "problems": problems,
        "warnings": warnings,
        "models": [
            {
                "name": one.model.name,
                "n_blocks": one.route.n_blocks if one.route is not None else 0,
                "hops": len(one.route.hops) if one.route is not None else 0,
                "config_n_blocks": one.n_blocks,
                "folder": str(one.paths.folder) if one.paths is not None else None,
            }
            for one in found
        ],
    }


def _map_json(blocks_map: BlocksMap) -> dict[str, object]:
    """What `show` draws, for programs."""
    return {
        "models": [_model_json(blocks_map, model) for model in blocks_map.models],
        "peers": [
            {
                "id": peer.id,
                "name": peer.name or None,
                "addrs": list(peer.addrs),
                "serves": [
                    {"model": share.model, "blocks": str(share.span), "role": share.role.value}
                    for model in blocks_map.models
                    for share in shares(blocks_map, peer.id, model.name)
                ],
            }
            for peer in blocks_map.peers
        ],
        "clients": [{"id": one.id, "name": one.name or None} for one in blocks_map.clients],
    }


def _model_json(blocks_map: BlocksMap, model: ModelEntry) -> dict[str, object]:
    route = _route(blocks_map, model)
    return {
        "name": model.name,
        "path": model.path,
        "dtype": model.dtype,
        "template": model.template,
        "stop": list(model.stop),
        "n_blocks": blocks_map.n_blocks(model.name),
        "hops": [
            {
                "blocks": str(hop.span),
                "peers": list(hop.peer_ids),
                "embed": hop.ends.embed,
                "head": hop.ends.head,
            }
            for hop in (route.hops if route is not None else ())
        ],
    }
