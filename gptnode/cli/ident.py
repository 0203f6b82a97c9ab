"""`gptnode id`: who this node is and where others can dial it; the first call makes the key."""

from __future__ import annotations

import json
from pathlib import Path

import click

from gptnode.cli.options import default_identity_path, identity_option
from gptnode.errors import UsageError

__all__ = ["id_command"]

DEFAULT_LISTEN = "/ip4/0.0.0.0/tcp/4001"


@click.command("id")
@identity_option
@click.option(
    "--listen",
    multiple=True,
    default=(DEFAULT_LISTEN,),
    show_default=True,
    metavar="MULTIADDR",
    help="Where this node will listen; may be given several times.",
)
@click.option(
    "--json", "as_json", is_flag=True, help='Print {"peer_id", "addrs"} and nothing else.'
)
def id_command(identity_path: Path | None, listen: tuple[str, ...], as_json: bool) -> None:
    """Show this node's identity, and make it first if there is none.

    The peer id goes into the BlocksMap of every node of the swarm. The file itself is a private
    key: it stays on this machine, readable by its owner alone.
    """
    # Imported here: cryptography takes a moment, and --help should not wait for it.
    from gptnode.net.identity import load_or_create_identity

    path = identity_path or default_identity_path()
    existed = path.exists()
    identity = load_or_create_identity(path)
    addrs = _dialable(listen, identity.peer_id)
    if as_json:
        click.echo(json.dumps({"peer_id": identity.peer_id, "addrs": list(addrs)}))
        return
    click.echo(f"identity  {path}{'' if existed else ' (new)'}")
    click.echo(f"peer id   {identity.peer_id}")
    click.echo("addrs     " + "\n          ".join(addrs))
    click.echo('\nFor "peers" in the BlocksMap, if this node serves blocks:')
    click.echo("  " + json.dumps({"id": identity.peer_id, "addrs": list(_outside(addrs))}))
    click.echo('For "clients", if it only chats:')
    click.echo("  " + json.dumps({"id": identity.peer_id}))


def _dialable(listen: tuple[str, ...], peer_id: str) -> tuple[str, ...]:
    """The multiaddrs, with peer id, of a node that listens there."""
    from gptnode.net.addresses import parse_endpoint, reachable_addrs

    found: list[str] = []
    for addr in listen:
        bound = parse_endpoint(addr)
        if bound.peer_id not in (None, peer_id):
            raise UsageError(f"--listen {addr} names another peer id than this node's, {peer_id}")
        found.extend(
            [f"{bound}/p2p/{peer_id}"] if bound.is_name else reachable_addrs(bound, peer_id)
        )
    return tuple(dict.fromkeys(found))


def _outside(addrs: tuple[str, ...]) -> tuple[str, ...]:
    """Those that other machines can use, without the peer id that the entry names already."""
    plain = tuple(addr.partition("/p2p/")[0] for addr in addrs)
    local = ("/ip4/127.", "/ip6/::1/")
    return tuple(addr for addr in plain if not addr.startswith(local)) or plain
