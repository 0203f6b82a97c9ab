"""`gptnode top`: the live swarm in the terminal.

Works from any machine of the map: it knocks at the peers. What peers don't tell over the wire
(sessions, tokens, memory) it takes from the file of this machine's own server, and from pages of
metrics that it is told of. No torch.
"""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
import trio

from gptnode.cli.options import default_identity_path, identity_option, map_option
from gptnode.errors import UsageError

if TYPE_CHECKING:
    from gptnode.cli.top_data import Snapshot
    from gptnode.cli.top_sources import TopSources

__all__ = ["top_command"]

SCHEMES = ("http://", "https://")


@click.command("top")
@map_option
@identity_option
@click.option(
    "--from",
    "urls",
    multiple=True,
    metavar="URL",
    help="Show also what the metrics at this URL say, e.g. http://127.0.0.1:9100/metrics; may be"
    " given several times.",
)
@click.option("--once", is_flag=True, help="Print one picture, after two looks a second apart.")
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON for each look.")
@click.option(
    "--interval",
    "interval_s",
    type=click.FloatRange(min=0.1, max=60),
    default=1.0,
    show_default=True,
    metavar="S",
    help="Seconds between two looks.",
)
def top_command(
    map_path: Path | None,
    identity_path: Path | None,
    urls: tuple[str, ...],
    once: bool,
    as_json: bool,
    interval_s: float,
) -> None:
    """Show the live swarm: peers, their blocks, how far away they are, and what they do.

    Any node of the BlocksMap sees who is there and the round trip. Sessions, tokens a second and
    cache memory are shown for the server that runs on this machine with this identity, and for
    those whose metrics are named with --from. Without --map it takes the map of this machine's
    server. q or Ctrl-C leaves.
    """
    # Imported here for the sake of `gptnode top --help`.
    from gptnode.cli.signals import TERMINATED, until_terminated

    for url in urls:
        if not url.startswith(SCHEMES):
            raise UsageError(f"--from {url}: give a URL such as http://127.0.0.1:9100/metrics")
    if not (once or as_json or (sys.stdin.isatty() and sys.stdout.isatty())):
        raise UsageError("`gptnode top` needs a terminal; --once or --json work without")
    identity = identity_path or default_identity_path()
    show = partial(_show, map_path, identity, urls, once, as_json, interval_s)
    if trio.run(until_terminated, show):
        sys.exit(TERMINATED)


async def _show(
    map_path: Path | None,
    identity_path: Path,
    urls: tuple[str, ...],
    once: bool,
    as_json: bool,
    interval_s: float,
) -> None:
    async with _open_sources(map_path, identity_path, urls, interval_s) as (sources, nursery):
        if once:
            await sources.knock()
            await sources.look()
            await trio.sleep(interval_s)
            _print(await sources.look(), as_json=as_json)
            return
        nursery.start_soon(sources.follow, nursery)
        if as_json:
            while True:
                _print(await sources.look(), as_json=True)
                await trio.sleep(interval_s)
        await _live(sources, interval_s)


async def _live(sources: TopSources, interval_s: float) -> None:
    """The picture on a screen of its own, until a key ends it."""
    from prompt_toolkit.input import create_input
    from rich.console import Console
    from rich.live import Live

    from gptnode.cli.keys import CTRL_C, stop_on_keys
    from gptnode.cli.top_view import draw

    console = Console()
    with trio.CancelScope() as scope:
        async with stop_on_keys(create_input(), scope.cancel, CTRL_C | {"q", "Q"}):
            with Live(console=console, screen=True, auto_refresh=False) as live:
                while True:
                    snapshot = await sources.look()
                    live.update(draw(snapshot, console.width, keys=True), refresh=True)
                    await trio.sleep(interval_s)


def _print(snapshot: Snapshot, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(asdict(snapshot), ensure_ascii=False))
        return
    from rich.console import Console

    from gptnode.cli.top_view import draw

    console = Console()
    console.print(draw(snapshot, console.width))


@asynccontextmanager
async def _open_sources(
    map_path: Path | None, identity_path: Path, urls: tuple[str, ...], interval_s: float
) -> AsyncIterator[tuple[TopSources, trio.Nursery]]:
    """The sources that there are.

    Raises:
        UsageError: there are none.
        GptNodeError: map or identity are wrong.
    """
    from gptnode.cli.top_sources import TopSources, own_status
    from gptnode.net.host import open_host
    from gptnode.net.identity import load_identity
    from gptnode.node.allow_list import AllowList
    from gptnode.node.nursery import background_nursery
    from gptnode.node.reach import ReachWatch
    from gptnode.routing.blocks_map import read_blocks_map

    if map_path is None:
        status = own_status(identity_path)
        map_path = Path(status["map"]) if status is not None else None
    if map_path is None and not urls:
        raise UsageError(
            "there is nothing to watch: name a BlocksMap with --map or metrics with --from; no"
            f" server with the identity {identity_path} runs on this machine"
        )
    blocks_map = read_blocks_map(map_path) if map_path is not None else None
    allow = AllowList(blocks_map)
    reach = None
    async with AsyncExitStack() as stack:
        if blocks_map is not None:
            identity = load_identity(identity_path)
            host = await stack.enter_async_context(open_host(identity, allow=allow.allows))
            reach = ReachWatch(host, interval_s=interval_s)
        nursery = await stack.enter_async_context(background_nursery())
        yield TopSources(blocks_map, identity_path, urls, reach, allow), nursery
