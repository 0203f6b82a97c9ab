"""`gptnode map new`: a first BlocksMap from names and addresses, with blocks shared evenly.

What it writes is a file to go on from by hand. Identities that nobody has made yet can be made with
it, for a swarm whose machines are all in one hand.
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import click

from gptnode.demo.bundled import MODEL_NAME, bundled_model_folder, count_blocks
from gptnode.demo.layout import split_evenly
from gptnode.errors import MapError, UsageError
from gptnode.routing.blocks_map import parse_blocks_map
from gptnode.routing.multiaddr import multiaddr_problem
from gptnode.routing.peer_id import peer_id_problem
from gptnode.routing.replace_file import replace_file

__all__ = ["new_command"]

DEFAULT_PORT = 4001
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", re.ASCII)
IP4 = re.compile(r"\d+\.\d+\.\d+\.\d+", re.ASCII)
EXAMPLES = """\b
Examples:
  gptnode map new swarm.json --model-dir ~/models/my-llama \\
      --peer anna=12D3KooW...@192.168.1.10 --peer ben=12D3KooW...@192.168.1.11:4002 \\
      --client laptop=12D3KooW...
  gptnode map new swarm.json --keys keys --peer anna=anna.lan --peer ben=ben.lan --client laptop
"""


@dataclass(frozen=True, slots=True)
class _Named:
    """``NAME[=ID][@ADDR]`` as it was typed."""

    name: str
    peer_id: str | None
    addr: str | None


@click.command("new", epilog=EXAMPLES)
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--peer",
    "peers",
    multiple=True,
    required=True,
    metavar="NAME=[ID@]HOST[:PORT]",
    help=f"A machine that serves blocks; port {DEFAULT_PORT} unless told. Once for each.",
)
@click.option(
    "--client",
    "clients",
    multiple=True,
    metavar="NAME[=ID]",
    help="A machine that only chats. Once for each.",
)
@click.option(
    "--keys",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Take the identity of whoever has no ID from DIR/NAME.key, made if it is missing.",
)
@click.option(
    "--model-dir",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The model's folder, as all machines have it; by default the bundled model.",
)
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
def new_command(
    file: Path,
    peers: tuple[str, ...],
    clients: tuple[str, ...],
    keys: Path | None,
    model_dir: Path | None,
    *,
    force: bool,
) -> None:
    """Write a BlocksMap to FILE: who is there, and an even share of the blocks for each.

    Ids come from `gptnode id` on each machine. With --keys they are made here: fine where all
    machines are yours; carry each key to its machine and leave no copy.
    """
    if file.exists() and not force:
        raise UsageError(f"{file} exists; --force replaces it")
    servers = [_parse(text, "--peer") for text in peers]
    others = [_parse(text, "--client", has_addr=False) for text in clients]
    document = _document(servers, others, keys, model_dir)
    text = _text(document)
    parse_blocks_map(text, source=file)  # names that come twice, ids that do
    try:
        replace_file(file, text.encode(), 0o644)
    except OSError as error:
        raise MapError(f"{file}: can't be written ({error.strerror or error})") from error
    click.echo(f"{file}: written; `gptnode map show {file}` draws it", file=sys.stderr)


def _document(
    servers: list[_Named], clients: list[_Named], keys: Path | None, model_dir: Path | None
) -> dict[str, list[dict[str, object]]]:
    """The BlocksMap as JSON has it: lists of entries.

    Raises:
        UsageError: more servers than blocks, or one without an id.
        GptNodeError: a model's configuration or a key can't be read or written.
    """
    folder = bundled_model_folder() if model_dir is None else model_dir.expanduser().resolve()
    n_blocks = count_blocks(folder)
    if len(servers) > n_blocks:
        raise UsageError(f"the model has {n_blocks} blocks, too few for {len(servers)} peers")
    spans = split_evenly(n_blocks, len(servers))
    name = MODEL_NAME if model_dir is None else folder.name
    return {
        "models": [{"name": name, "path": str(folder)}],
        "peers": [
            {"name": one.name, "id": _identity(one, keys), "addrs": [one.addr]} for one in servers
        ],
        "routes": [
            {"blocks": str(span), "peers": [one.name]}
            for span, one in zip(spans, servers, strict=True)
        ],
        "clients": [{"name": one.name, "id": _identity(one, keys)} for one in clients],
    }


def _text(document: dict[str, list[dict[str, object]]]) -> str:
    """As a person would write it: a line for each entry."""
    lists = []
    for name, entries in document.items():
        lines = ",".join(f"\n    {json.dumps(entry)}" for entry in entries)
        lists.append(f"  {json.dumps(name)}: [" + (f"{lines}\n  ]" if lines else "]"))
    return "{\n" + ",\n".join(lists) + "\n}\n"


def _identity(one: _Named, keys: Path | None) -> str:
    if one.peer_id is not None:
        return one.peer_id
    if keys is None:
        raise UsageError(
            f"{one.name} has no peer id: run `gptnode id` there and write {one.name}=ID"
            f"{'@HOST' if one.addr else ''}, or let --keys DIR make identities here"
        )
    # Imported here: cryptography takes a moment, and --help should not wait for it.
    from gptnode.net.identity import load_or_create_identity

    return load_or_create_identity(keys / f"{one.name}.key").peer_id


def _parse(text: str, option: str, *, has_addr: bool = True) -> _Named:
    """What was typed after ``option``.

    Raises:
        UsageError: it isn't of that form.
    """
    name, equals, rest = text.partition("=")
    if not NAME.fullmatch(name) or (has_addr and not rest) or (equals and not rest):
        form = "NAME=[ID@]HOST[:PORT]" if has_addr else "NAME[=ID]"
        raise UsageError(f"{option} {text!r}: write {form}")
    peer_id, host = rest, ""
    if has_addr:
        peer_id, _, host = rest.rpartition("@")
    if peer_id and (problem := peer_id_problem(peer_id)) is not None:
        raise UsageError(f"{option} {text!r}: the id {problem}")
    return _Named(name, peer_id or None, _multiaddr(host, text) if has_addr else None)


def _multiaddr(host: str, text: str) -> str:
    """``HOST[:PORT]`` (IPv6 in brackets), or a multiaddr as it is."""
    addr = host
    if not host.startswith("/"):
        if host.startswith("["):
            kind, (host, _, port) = "ip6", host[1:].partition("]")
            port = port.removeprefix(":")
        else:
            host, _, port = host.partition(":")
            kind = "ip4" if IP4.fullmatch(host) else "dns"
        addr = f"/{kind}/{host}/tcp/{port or DEFAULT_PORT}"
    if (problem := multiaddr_problem(addr)) is not None:
        raise UsageError(f"--peer {text!r}: {addr} {problem}")
    return addr
