"""The route of a prompt: which peer computes which blocks, in order.

Two rules, the first above the second. The order in the map is its owner's will: a block goes to the
first of its peers that is alive (to this node itself where it is listed, as that costs no network).
Then neighbouring blocks with the same peer become one hop, since each hop costs a round trip a
token. A shorter route over peers that the owner listed later is not looked for.

Who is alive is the caller's knowledge; nothing is dialled or measured here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from gptnode.errors import RouteError
from gptnode.routing.blocks_map import BlocksMap
from gptnode.routing.entries import NO_ENDS, PlacedEnds
from gptnode.routing.map_checks import blocks_text
from gptnode.span import Span

__all__ = ["Hop", "Route", "plan_route"]


@dataclass(frozen=True, slots=True)
class Hop:
    """A span and the live peers that serve all of it: the chosen one, then those that could.

    No peer at all means this node itself, in a swarm without a map. ``ends`` are the ends of the
    model that it has besides.
    """

    peer_ids: tuple[str, ...]
    span: Span
    ends: PlacedEnds = NO_ENDS


@dataclass(frozen=True, slots=True)
class Route:
    """Contiguous hops that cover the blocks ``0 .. n_blocks - 1`` of a model."""

    model: str
    hops: tuple[Hop, ...]

    @property
    def n_blocks(self) -> int:
        """How many blocks the hops cover."""
        return self.hops[-1].span.stop if self.hops else 0


def plan_route(
    blocks_map: BlocksMap,
    model: str,
    n_blocks: int,
    *,
    down: Collection[str] = (),
    local: str | None = None,
    within: Span | None = None,
) -> Route:
    """The route through ``model`` around the peers in ``down``.

    Args:
        blocks_map: Who serves what.
        model: Its name in the map.
        n_blocks: How many blocks it has, at least 1.
        down: Ids of peers not to use.
        local: This node's own id, preferred for the blocks that it serves itself.
        within: Only these of the blocks, where the others have hops already.

    Returns:
        Hops without a gap or an overlap; no hop names a peer that is down.

    Raises:
        MapError: the map has no such model.
        RouteError: no live peer serves some blocks; names them and the peers that would.
    """
    blocks_map.model(model)
    unusable = frozenset(down)
    holders = blocks_map.holders(model, n_blocks)
    live = [tuple(peer for peer in peers if peer not in unusable) for peers in holders]
    span = within if within is not None else Span(0, n_blocks)
    missing = [block for block in span if not live[block]]
    if missing:
        raise RouteError(_no_way(blocks_map, model, missing, holders))
    chosen = {
        block: local if local is not None and local in live[block] else live[block][0]
        for block in span
    }
    hops: list[Hop] = []
    start = span.start
    for block in range(span.start + 1, span.stop + 1):
        if block == span.stop or chosen[block] != chosen[start]:
            part = Span(start, block)
            ends = blocks_map.ends(model).within(part, n_blocks)
            hops.append(_hop(chosen[start], part, live, ends))
            start = block
    return Route(model, tuple(hops))


def _hop(chosen: str, span: Span, live: Sequence[tuple[str, ...]], ends: PlacedEnds) -> Hop:
    """``chosen``, then the others that serve every block of ``span``, in the order of its first."""
    replicas = [
        peer
        for peer in live[span.start]
        if peer != chosen and all(peer in live[block] for block in span)
    ]
    return Hop((chosen, *replicas), span, ends)


def _no_way(
    blocks_map: BlocksMap, model: str, missing: Sequence[int], holders: Sequence[tuple[str, ...]]
) -> str:
    """Which blocks have no live peer, and which peers would serve them."""
    spans: list[Span] = []
    for block in missing:
        if spans and spans[-1].stop == block:
            spans[-1] = Span(spans[-1].start, block + 1)
        else:
            spans.append(Span(block, block + 1))
    what = f"no live peer for {' and '.join(blocks_text(span) for span in spans)} of {model}"
    ids = dict.fromkeys(peer for block in missing for peer in holders[block])
    if not ids:
        return f"{what} (the BlocksMap names none)"
    labels = ", ".join(_labels(blocks_map, ids))
    return f"{what} ({labels} {'is' if len(ids) == 1 else 'are'} down)"


def _labels(blocks_map: BlocksMap, ids: Iterable[str]) -> Iterable[str]:
    """What people call the peers."""
    for peer_id in ids:
        entry = blocks_map.peer(peer_id)
        yield entry.label if entry is not None else peer_id
