"""What a chat shows about itself: the route, the peers, the numbers, the status line.

Pure functions from a `ChatSession` to lines of text; no terminal, no colour.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gptnode.cli.render import table

if TYPE_CHECKING:
    from gptnode.cli.session import ChatSession
    from gptnode.node.swarm import HopView
    from gptnode.span import Span

__all__ = ["context", "headline", "peers", "progress", "route", "stats", "status_line", "tokens"]

MARKS = {
    "local": "■",
    "connected": "●",
    "idle": "○",
    "slow": "◐",
    "busy": "◌",
    "lost": "✗",
    "down": "✗",
    "wrong": "✗",
}
"""One character for each state of a hop."""

BAR_CELLS = 32
"""Widest picture of a model's blocks."""


def tokens(count: int) -> str:
    """``1 token``, ``2 tokens``."""
    return f"{count} token" if count == 1 else f"{count} tokens"


def context(session: ChatSession) -> str:
    """How full the context is: ``312 of 2048 tokens``."""
    return f"{session.context_tokens} of {tokens(session.client.context_limit_tokens)}"


def headline(session: ChatSession) -> str:
    """The first line of a chat: the model and where it runs."""
    hops = session.client.hops()
    remote = [hop for hop in hops if hop.peer_id is not None]
    where = (
        "over " + ", ".join(f"{hop.label} ({hop.span})" for hop in hops)
        if remote
        else "on this machine"
    )
    return f"{session.client.model_name} {where}"


def progress(session: ChatSession) -> str:
    """How far the prompt of the answer under way has been read."""
    done, asked = session.client.prefilled_tokens, session.asked_tokens
    return f"reading the prompt: {min(done, asked)} of {tokens(asked)}"


def status_line(session: ChatSession) -> str:
    """The line below the prompt: model, health of the route, context, speed of the last answer."""
    route_now = " ".join(
        f"{MARKS.get(hop.state, '?')} {hop.label} {hop.span}" for hop in session.client.hops()
    )
    parts = [session.client.model_name, route_now, context(session)]
    if session.last_answer is not None and session.last_answer.completion_tokens:
        parts.append(f"{session.last_answer.tokens_per_s:.1f} tokens/s")
    return " │ ".join(parts)


def route(session: ChatSession) -> list[str]:
    """The hops of the route in use, each with a bar of the blocks that it computes."""
    client = session.client
    n_blocks = client.model_config.n_blocks
    rows = [
        (
            str(number),
            hop.label,
            _blocks(hop),
            _bar(hop.span, n_blocks),
            f"{MARKS.get(hop.state, '?')} {hop.state}",
            _milliseconds(hop.round_trip_s),
            ", ".join(hop.replicas) or "-",
        )
        for number, hop in enumerate(client.hops(), start=1)
    ]
    title = f"{client.model_name}: {n_blocks} blocks in {len(rows)} hop{'s'[: len(rows) != 1]}"
    header = ("hop", "peer", "blocks", "", "state", "round trip", "replicas")
    return [title, *table(header, rows)]


def peers(session: ChatSession) -> list[str]:
    """Everybody in the map, with their blocks, state and address."""
    rows = [
        (
            peer.label,
            ", ".join(str(span) for span in peer.spans) or "-",
            f"{MARKS.get(peer.state, '?')} {peer.state}",
            _milliseconds(peer.round_trip_s),
            peer.peer_id or "-",
            ", ".join(peer.addrs) or "-",
        )
        for peer in session.client.peers()
    ]
    if not rows:
        return ["no peers: all blocks run on this machine"]
    own = [] if session.client.peer_id is None else [f"this node is {session.client.peer_id}"]
    return [*own, *table(("peer", "blocks", "state", "round trip", "id", "addresses"), rows)]


def stats(session: ChatSession) -> list[str]:
    """Context, last answer, and the totals of this chat."""
    used, limit = session.context_tokens, session.client.context_limit_tokens
    last, totals = session.last_answer, session.totals
    rows = [("context", f"{context(session)} ({100 * used / limit:.0f} %)")]
    if last is not None:
        rows.append(
            (
                "last answer",
                f"{tokens(last.completion_tokens)} at {last.tokens_per_s:.1f} tokens/s, after "
                f"{tokens(last.prompt_tokens)} of prompt in {last.prefill_s:.2f} s; ended by "
                f"{ENDS.get(last.stop_reason, last.stop_reason)}",
            )
        )
    rows.append(
        (
            "this chat",
            f"{totals.answers} answer{'s'[: totals.answers != 1]}, "
            f"{tokens(totals.completion_tokens)} at {totals.tokens_per_s:.1f} tokens/s, "
            f"{totals.prefill_s:.2f} s of prefill",
        )
    )
    guesses = session.client.guesses
    if guesses is not None and guesses[0]:
        rows.append(("guessed ahead", f"{tokens(guesses[0])}, {guesses[1]} of them right"))
    drafted = session.client.drafted
    if drafted is not None:
        rows.append(("by the draft model", f"{tokens(drafted[0])}, {drafted[1]} of them right"))
    verified = session.client.verified
    if verified is not None:
        missed = f", {verified.missed} had nobody to compare with" if verified.missed else ""
        rows.append(
            (
                "verified",
                f"{verified.compared} step{'s'[: verified.compared != 1]} compared{missed}; "
                f"{verified.wrong or 'no'} peer{'s'[: verified.wrong != 1]} found wrong",
            )
        )
    return table(("", ""), rows)


ENDS = {
    "end": "the model",
    "stop": "a stop sequence",
    "length": "max-tokens",
    "context": "the end of the context",
    "cancelled": "you",
}
"""What ended an answer, by its stop reason."""


def _blocks(hop: HopView) -> str:
    """``0-3``, ``embed 0-3``, ``4-7 head``."""
    return f"{'embed ' * hop.ends.embed}{hop.span}{' head' * hop.ends.head}"


def _bar(span: Span, n_blocks: int) -> str:
    """Where in the model a span lies, e.g. ``████····``."""
    cells = min(n_blocks, BAR_CELLS)
    first = span.start * cells // n_blocks
    last = max(first + 1, span.stop * cells // n_blocks)
    return "·" * first + "█" * (last - first) + "·" * (cells - last)


def _milliseconds(seconds: float | None) -> str:
    """A round trip as people read it."""
    return "-" if seconds is None else f"{1000 * seconds:.1f} ms"
