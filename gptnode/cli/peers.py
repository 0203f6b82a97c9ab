"""`gptnode peers`: who is connected with the server of this machine, and who was turned away.

It reads what the running server wrote beside its identity, and edits the map that the server
watches: nothing is sent to the server. No torch, no network.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from gptnode.cli.options import default_identity_path, identity_option, map_option
from gptnode.cli.render import table
from gptnode.errors import UsageError
from gptnode.routing.map_edit import accept_client
from gptnode.routing.peer_id import peer_id_problem

__all__ = ["peers_group"]

MIB = 2**20


@click.group("peers", invoke_without_command=True)
@identity_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
@click.pass_context
def peers_group(ctx: click.Context, identity_path: Path | None, as_json: bool) -> None:
    """Show who uses the server that runs on this machine with this identity.

    Connected are those of the BlocksMap that are here now; pending are connections that haven't
    proved yet who they are; refused are peers that did, and that the BlocksMap doesn't list.
    """
    if ctx.invoked_subcommand is not None:
        return
    status = _status(identity_path)
    if as_json:
        shown = {key: value for key, value in status.items() if key != "process"}
        click.echo(json.dumps(shown, ensure_ascii=False))
        return
    for line in _lines(status):
        click.echo(line)


@peers_group.command("accept")
@click.argument("peer_id", metavar="ID")
@click.option("--name", metavar="NAME", help="What to call it in the BlocksMap.")
@map_option
@identity_option
@click.pass_context
def accept_command(
    ctx: click.Context,
    peer_id: str,
    name: str | None,
    map_path: Path | None,
    identity_path: Path | None,
) -> None:
    """Let a client in: add its peer ID to the clients of the BlocksMap.

    The file is the one of the running server, unless --map names another. The rest of it stays as
    it is. A server that runs lets the client in within two seconds; give the file to the other
    nodes of the swarm too.
    """
    problem = peer_id_problem(peer_id)
    if problem is not None:
        raise UsageError(f"{peer_id!r} {problem}; `gptnode peers` shows the ids of refused peers")
    if map_path is None:
        above = ctx.parent.params.get("identity_path") if ctx.parent is not None else None
        map_path = Path(_status(identity_path or above)["map"])
    who = f"{name} ({peer_id})" if name else peer_id
    if accept_client(map_path, peer_id, name):
        click.echo(f"accepted {who}: it is in the clients of {map_path} now")
    else:
        click.echo(f"{map_path} lists {peer_id} already: nothing was changed")


def _status(identity_path: Path | None) -> Mapping[str, Any]:
    # Imported here: psutil takes a moment, and --help should not wait for it.
    from gptnode.node.status_file import read_status

    return read_status(identity_path or default_identity_path())


def _lines(status: Mapping[str, Any]) -> list[str]:
    """The status as tables; one that is empty is one line."""
    blocks = ", ".join(f"{model} {', '.join(spans)}" for model, spans in status["blocks"].items())
    lines = [f"{status['peer_id']}: {status['state']} {blocks or 'no blocks'}", status["map"]]
    lines += [f"problem: {problem}" for problem in status["problems"]]
    connected = [
        (
            one["name"] or "-",
            one["role"],
            str(one["sessions"]),
            f"{one['kv_bytes'] / MIB:.0f} MiB",
            one["since"],
            one["addr"],
            one["id"],
        )
        for one in status["connected"]
    ]
    header = ("name", "role", "sessions", "cache", "since", "address", "id")
    lines += _section("connected", header, connected)
    pending = [(one["since"], one["addr"]) for one in status["pending"]]
    lines += _section("pending", ("since", "address"), pending)
    refused = [
        (str(one["count"]), one["first"], one["last"], one["addr"], one["id"])
        for one in status["refused"]
    ]
    lines += _section("refused", ("times", "first", "last", "address", "id"), refused)
    if refused:
        lines += ["", "`gptnode peers accept ID` lets one in"]
    return lines


def _section(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    if not rows:
        return ["", f"{title}: nobody"]
    return ["", f"{title}:", *(f"  {line}" for line in table(header, rows))]
