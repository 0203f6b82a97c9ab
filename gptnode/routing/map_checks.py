"""What is wrong with the routes of a model, one line for each problem: blocks and ends of nobody.

Each line begins with the JSON path of what has to be edited, and says how.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from gptnode.routing.entries import PlacedEnds, RouteEntry
from gptnode.routing.json_reader import quoted
from gptnode.span import Span

__all__ = ["block_problems", "blocks_text", "ends_problems"]


def blocks_text(span: Span) -> str:
    """``block 7`` or ``blocks 0-15``."""
    return f"block{'s'[: len(span) != 1]} {span}"


def block_problems(routes: Sequence[RouteEntry], model: str, n_blocks: int) -> tuple[str, ...]:
    """Where ``routes`` don't cover the ``n_blocks`` blocks of ``model``, or name others."""
    last = n_blocks - 1
    past = [
        f"routes[{index}]: {quoted(model)} has {n_blocks} blocks, so {blocks_text(route.span)}"
        f" can't be served; {_within(route.span, n_blocks)}"
        for index, route in enumerate(routes)
        if route.model == model and route.span.stop > n_blocks
    ]
    gaps = [
        f"routes: nobody serves {blocks_text(span)} of {quoted(model)} (it has 0-{last});"
        f' add a route with "blocks": "{span}"'
        for span in _gaps(routes, model, n_blocks)
    ]
    return (*past, *gaps)


def ends_problems(routes: Sequence[RouteEntry], model: str) -> tuple[str, ...]:
    """Where ``routes`` place the embedding or the head of ``model`` beside the first or last block,
    or with some of its peers alone."""
    last = max((route.span.stop for route in routes if route.model == model), default=0) - 1
    return (
        *_end_problems(routes, model, "embed", "embedding", 0, lambda ends: ends.embed),
        *_end_problems(routes, model, "head", "head", last, lambda ends: ends.head),
    )


def _end_problems(
    all_routes: Sequence[RouteEntry],
    model: str,
    key: str,
    name: str,
    block: int,
    has: Callable[[PlacedEnds], bool],
) -> Iterator[str]:
    """As above, for the end that goes with ``block``: all of its peers have it, or none."""
    routes = [(i, route) for i, route in enumerate(all_routes) if route.model == model]
    placed = [i for i, route in routes if has(route.ends) and block in route.span]
    for index, route in routes:
        has_block, has_end = block in route.span, has(route.ends)
        if has_end and not has_block:
            yield (
                f"routes[{index}].{key}: the {name} goes with block {block}, which "
                f"{blocks_text(route.span)} are without; write it in the route that has it"
            )
        elif has_block and placed and not has_end:
            yield (
                f'routes[{index}].{key}: missing; write "{key}": true as in '
                f"routes[{placed[0]}], since all peers of block {block} need the {name} then"
            )


def _gaps(routes: Sequence[RouteEntry], model: str, n_blocks: int) -> tuple[Span, ...]:
    """The blocks below ``n_blocks`` that no route names."""
    gaps: list[Span] = []
    covered = 0
    for span in sorted(route.span for route in routes if route.model == model):
        if span.start > covered and covered < n_blocks:
            gaps.append(Span(covered, min(span.start, n_blocks)))
        covered = max(covered, span.stop)
    if covered < n_blocks:
        gaps.append(Span(covered, n_blocks))
    return tuple(gaps)


def _within(span: Span, n_blocks: int) -> str:
    """What to write instead of a span that goes past the end."""
    if span.start >= n_blocks:
        return f"blocks count from 0, {n_blocks - 1} is the last"
    return f'write "{Span(span.start, n_blocks)}"'
