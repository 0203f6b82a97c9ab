"""A BlocksMap as a person sees it: a table of peers, a bar for each peer, the hops of the route.

Colour only repeats what the characters say, and all of it fits the width that it is given. Nothing
here reads files or knows options.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from rich import box
from rich.cells import cell_len, set_cell_size
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from gptnode.routing.blocks_map import BlocksMap, ModelEntry, PeerEntry
from gptnode.routing.map_checks import blocks_text
from gptnode.routing.route import Hop, plan_route
from gptnode.span import Span

__all__ = ["Role", "Share", "counted", "draw_map", "shares"]

MAX_LABEL_CELLS = 18
MAX_CELLS_A_BLOCK = 4
STEPS = (1, 2, 4, 5, 8, 10, 16, 20, 32, 40, 50, 64, 100, 128, 200, 250, 500, 1000, 2000, 5000)
"""Distances between the numbers of an axis, in blocks."""


class Role(Enum):
    """What a peer is for a block."""

    PRIMARY = "primary"
    REPLICA = "replica"


STYLES = {Role.PRIMARY: "green", Role.REPLICA: "yellow", None: "dim"}
GLYPHS = {Role.PRIMARY: "█", Role.REPLICA: "░", None: "·"}
ASCII_GLYPHS: dict[Role | None, str] = {Role.PRIMARY: "#", Role.REPLICA: "+", None: "."}


@dataclass(frozen=True, slots=True)
class Share:
    """A run of blocks that a peer serves in one role."""

    peer_id: str
    model: str
    span: Span
    role: Role


def counted(count: int, noun: str) -> str:
    """``1 peer``, ``2 peers``."""
    return f"{count} {noun}{'s'[: count != 1]}"


def shares(blocks_map: BlocksMap, peer_id: str, model: str) -> tuple[Share, ...]:
    """What ``peer_id`` serves of ``model``, cut where its role changes."""
    found: list[Share] = []
    roles = _roles(blocks_map, peer_id, model)
    for block, role in enumerate(roles):
        if role is None:
            continue
        if found and found[-1].span.stop == block and found[-1].role is role:
            found[-1] = Share(peer_id, model, Span(found[-1].span.start, block + 1), role)
        else:
            found.append(Share(peer_id, model, Span(block, block + 1), role))
    return tuple(found)


def draw_map(blocks_map: BlocksMap, console: Console) -> Iterator[RenderableType]:
    """Everything that `gptnode map show` prints, from top to bottom."""
    yield _table(blocks_map)
    glyphs = ASCII_GLYPHS if console.options.ascii_only else GLYPHS
    for model in blocks_map.models:
        yield Text()
        yield from _model_lines(blocks_map, model, console.width, glyphs)
    yield Text()
    clients = ", ".join(client.label for client in blocks_map.clients)
    yield Text(f"clients: {clients or 'none; only the peers themselves may chat'}")


def _roles(blocks_map: BlocksMap, peer_id: str, model: str) -> tuple[Role | None, ...]:
    """The role of ``peer_id`` in each block."""
    holders = blocks_map.holders(model, blocks_map.n_blocks(model))
    return tuple(
        None if peer_id not in ids else Role.PRIMARY if ids[0] == peer_id else Role.REPLICA
        for ids in holders
    )


def _table(blocks_map: BlocksMap) -> Table:
    """Peers with their addresses, blocks and roles."""
    several = len(blocks_map.models) > 1
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    for header in ("peer", "addresses", *(["model"] if several else []), "blocks", "role"):
        table.add_column(header, overflow="fold", no_wrap=header in ("blocks", "role"))
    for peer in blocks_map.peers:
        names = Text("\n".join(dict.fromkeys([peer.label, PeerEntry(peer.id, ()).label])))
        addrs = Text("\n".join(peer.addrs) or "-")
        parts = [
            share
            for model in blocks_map.models
            for share in shares(blocks_map, peer.id, model.name)
        ]
        columns = [[str(share.span) for share in parts], [share.role.value for share in parts]]
        if several:
            columns.insert(0, [share.model for share in parts])
        table.add_row(names, addrs, *(Text("\n".join(column) or "-") for column in columns))
    return table


def _model_lines(
    blocks_map: BlocksMap, model: ModelEntry, width: int, glyphs: dict[Role | None, str]
) -> Iterator[Text]:
    """Title, axis, a bar for each peer that serves the model, and its route."""
    n_blocks = blocks_map.n_blocks(model.name)
    if not n_blocks:
        yield Text(f"{model.name}: no routes")
        return
    holders = [peer for peer in blocks_map.peers if blocks_map.spans_of(peer.id, model.name)]
    labels = [peer.label for peer in holders]
    label_cells = min(MAX_LABEL_CELLS, max(cell_len(label) for label in labels))
    scale = _Scale(n_blocks, max(8, width - label_cells - 2))
    legend = f"{glyphs[Role.PRIMARY]} first choice  {glyphs[Role.REPLICA]} replica"
    yield Text(f"{model.name}: {counted(n_blocks, 'block')}   {legend}")
    yield Text(" " * (label_cells + 2) + scale.axis(), style="dim")
    for peer, label in zip(holders, labels, strict=True):
        line = Text(set_cell_size(label, label_cells) + "  ")
        for role in scale.cells(_roles(blocks_map, peer.id, model.name)):
            line.append(glyphs[role], style=STYLES[role])
        yield line
    route = plan_route(blocks_map, model.name, n_blocks)
    yield Text("route:")
    for number, hop in enumerate(route.hops, start=1):
        first, *others = (_label(blocks_map, peer_id) for peer_id in hop.peer_ids)
        yield Text(f"  {number}. {_hop_text(hop)}: {first}{_otherwise(others)}")


def _hop_text(hop: Hop) -> str:
    """``blocks 0-3``, ``embedding and blocks 0-3``, ``blocks 4-7 and head``."""
    embed, head = hop.ends.embed, hop.ends.head
    before = "embedding, " if embed and head else "embedding and " if embed else ""
    return f"{before}{blocks_text(hop.span)}{' and head' if head else ''}"


def _otherwise(labels: Sequence[str]) -> str:
    """Who takes a hop over."""
    return f", else {', '.join(labels)}" if labels else ", nobody else serves all of it"


def _label(blocks_map: BlocksMap, peer_id: str) -> str:
    """What people call the peer."""
    entry = blocks_map.peer(peer_id)
    return entry.label if entry is not None else peer_id


class _Scale:
    """Blocks on a line of characters: several characters a block, or several blocks a character."""

    def __init__(self, n_blocks: int, max_cells: int) -> None:
        """As wide as ``max_cells`` allow."""
        self._n_blocks = n_blocks
        self._cells_a_block = min(MAX_CELLS_A_BLOCK, max_cells // n_blocks)
        self._blocks_a_cell = -(-n_blocks // max_cells)

    def cells(self, roles: Sequence[Role | None]) -> Iterator[Role | None]:
        """The role that each character shows: of several blocks, the most important one."""
        if self._cells_a_block:
            for role in roles:
                yield from [role] * self._cells_a_block
            return
        for start in range(0, self._n_blocks, self._blocks_a_cell):
            found = roles[start : start + self._blocks_a_cell]
            yield next((role for role in Role if role in found), None)

    def axis(self) -> str:
        """Numbers of blocks, each where its block begins."""
        gap = len(str(self._n_blocks)) + 1
        step = next((step for step in STEPS if self._column(step) >= gap), self._n_blocks)
        line = ""
        for block in range(0, self._n_blocks, step):
            line = line.ljust(self._column(block)) + str(block)
        return line

    def _column(self, block: int) -> int:
        """Where ``block`` begins."""
        if self._cells_a_block:
            return block * self._cells_a_block
        return block // self._blocks_a_cell
