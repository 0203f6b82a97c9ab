"""What both forms of the BlocksMap write alike: peer ids, addresses, ranges of blocks, clients.

Each reader takes a JSON node and gives the value, or a MapError that says what to write there.
"""

from __future__ import annotations

from collections.abc import Iterable

from gptnode.errors import MapError
from gptnode.routing.entries import ClientEntry
from gptnode.routing.json_reader import JsonNode, JsonObject, quoted
from gptnode.routing.multiaddr import EXAMPLE as ADDR_EXAMPLE
from gptnode.routing.multiaddr import multiaddr_problem
from gptnode.routing.peer_id import peer_id_problem
from gptnode.span import Span

__all__ = [
    "CLIENTS_EXAMPLE",
    "DTYPES",
    "DTYPES_EXAMPLE",
    "MAX_BLOCKS",
    "read_addr",
    "read_client",
    "read_name",
    "read_peer_id",
    "read_span",
    "repeats",
]

DTYPES = ("bf16", "f16", "f32", "int8", "int4")
DTYPES_EXAMPLE = '"bf16", "f16", "f32", "int8" or "int4"'

MAX_BLOCKS = 10_000
"""No model has so many; a typing error must not make a list of 10 ** 12 blocks."""

CLIENTS_EXAMPLE = '[{"id": "12D3KooW...", "name": "laptop"}]'


def read_peer_id(node: JsonNode) -> str:
    """A well-formed peer id."""
    text = node.line('"12D3KooW..."')
    problem = peer_id_problem(text)
    if problem is not None:
        raise node.error(
            f"{quoted(text)} {problem}; write the peer id that `gptnode id` prints, 12D3KooW..."
        )
    return text


def read_addr(node: JsonNode, peer_id: str) -> str:
    """A multiaddr of ``peer_id``."""
    text = node.line(quoted(ADDR_EXAMPLE))
    problem = multiaddr_problem(text, peer_id)
    if problem is not None:
        raise node.error(f"{quoted(text)} {problem}; write for example {ADDR_EXAMPLE}")
    return text


def read_span(node: JsonNode) -> Span:
    """``7``, ``"7"`` or ``"0-15"``."""
    wanted = 'a block or a range of blocks such as 7 or "0-15"'
    if not isinstance(node.value, str):
        block = node.count(wanted)
        if block >= MAX_BLOCKS:
            raise node.error(f"no model has a block {quoted(block)}")
        return Span(block, block + 1)
    try:
        span = Span.parse(node.value)
    except ValueError:
        raise (_backwards(node, node.value) or node.wrong(wanted)) from None
    if span.stop > MAX_BLOCKS:
        raise node.error(f"no model has the blocks {quoted(node.value)}")
    return span


def _backwards(node: JsonNode, text: str) -> MapError | None:
    """The error for a range that begins with its end; None for other texts."""
    first, _, last = text.partition("-")
    try:
        turned = Span.parse(f"{last}-{first}")
    except ValueError:
        return None
    return node.error(f'{quoted(text)} runs backwards; write "{turned}"')


def repeats(what: str, found: Iterable[tuple[JsonNode, str]]) -> tuple[str, ...]:
    """A line for each text that stood at an earlier node already."""
    first: dict[str, str] = {}
    lines: list[str] = []
    for node, text in found:
        if text in first:
            lines.append(
                f"{node.path}: the {what} {quoted(text)} is that of {_entry(first[text])} already;"
                " remove one of the two"
            )
        first.setdefault(text, node.path)
    return tuple(lines)


def _entry(path: str) -> str:
    """``peers[0]`` for ``peers[0].id``."""
    return path.rpartition("]")[0] + "]"


def read_client(node: JsonNode) -> ClientEntry:
    """``"12D3KooW..."`` or the same with a name."""
    if isinstance(node.value, str):
        return ClientEntry(read_peer_id(node))
    fields = node.object(CLIENTS_EXAMPLE[1:-1], ("id", "name"))
    peer_id = read_peer_id(fields.required("id", '"12D3KooW..."'))
    return ClientEntry(peer_id, read_name(fields, '"laptop"'))


def read_name(fields: JsonObject, example: str) -> str:
    """The name of a peer or client; empty without one."""
    node = fields.optional("name")
    if node is None:
        return ""
    name = node.line(example)
    if peer_id_problem(name) is None:
        raise node.error("must be a name that people can say, not a peer id")
    return name
