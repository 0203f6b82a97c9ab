"""Judging: two peers have answered the same step differently, and somebody is wrong.

A third peer is asked, else this node's own weights. What is done with whoever is wrong is the
Verifier's business.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from gptnode.errors import MismatchError
from gptnode.node.agreement import distance, tolerance
from gptnode.node.loading import ModelKey
from gptnode.node.opinions import Opinions
from gptnode.node.watching import Check, Shadow

__all__ = ["Judge", "Verdict"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Peers that aren't to be used any more, and why: an error that names them all."""

    peer_ids: tuple[str, ...]
    cause: MismatchError


class Judge:
    """Finds out who is wrong."""

    def __init__(
        self,
        key: ModelKey,
        opinions: Opinions,
        label: Callable[[str | None], str],
        say: Callable[[str], None],
    ) -> None:
        """A judge of answers of a model.

        ``label``: what people call a peer; ``say`` shows a line of progress.
        """
        self._key = key
        self._opinions = opinions
        self._label = label
        self._say = say

    def agree(self, check: Check, left: Tensor, right: Tensor) -> bool:
        """Whether two answers for ``check`` are the same, but for rounding."""
        return distance(left, right) <= self._limit(check)

    async def judge(
        self, check: Check, first: Tensor, shadow: Shadow, second: Tensor
    ) -> Verdict | None:
        """Who is wrong, where the hop answered ``first`` for its step and the shadow ``second``.

        None where both agree with whoever was asked, as it happens on the edge of rounding.
        """
        hop, apart = check.hop, distance(first, second)
        opinions = {hop.peer_id: first, shadow.peer_id: second}
        pair = self._listed([hop.peer_id, shadow.peer_id])
        self._say(f"{pair} differ by {_percent(apart)} over blocks {hop.span}: asking others")
        wrong, right = await self._who_is_wrong(check, opinions)
        if not wrong:
            self._say(f"{pair} both agree with {right} over blocks {hop.span}: both stay in use")
            return None
        allowed = f"{_percent(apart)} apart, {_percent(self._limit(check))} is allowed"
        one = len(wrong) == 1
        if right:
            what = f"gave wrong answers, say {right} ({allowed})"
        else:
            what = f"gave different answers ({allowed}) and nobody can tell which are right"
        detail = (
            f"{self._listed(wrong)} (blocks {hop.span}) {what}; "
            f"{'it is' if one else 'they are'} not used any more: compare the model files there, "
            f"/reload trusts {'it' if one else 'them'} again"
        )
        if hop.peer_id in wrong and hop.doubtful:
            detail += "; what the model said before may be wrong too, /retry asks again"
        return Verdict(tuple(wrong), MismatchError(detail))

    async def _who_is_wrong(
        self, check: Check, opinions: dict[str, Tensor]
    ) -> tuple[list[str], str]:
        """Who of those that were asked, and who says so; all of them and "" if nobody knows."""
        hop = check.hop
        for third in self._opinions.replicas(hop.span, set(opinions)):
            if not self._opinions.is_well(third):
                continue
            rows = await self._opinions.of_third(third, check)
            if rows is None:
                continue
            right = [peer for peer, other in opinions.items() if self.agree(check, rows, other)]
            opinions[third] = rows
            if right:
                right.append(third)
                return [peer for peer in opinions if peer not in right], self._listed(right)
        if not self._opinions.has_own(hop.span):
            return list(opinions), ""
        self._say(f"nobody else can tell: computing blocks {hop.span} on this node")
        own = await self._opinions.of_own(hop.span, hop.journal, check.start, check.stop)
        if own is None:
            return list(opinions), ""
        return (
            [peer for peer, rows in opinions.items() if not self.agree(check, own, rows)],
            "this node's own weights",
        )

    def _limit(self, check: Check) -> float:
        return tolerance(self._key.dtype_name, check.hop.span, scaled=self._key.scaled)

    def _listed(self, peer_ids: list[str]) -> str:
        """``anna``, ``anna and ben``, ``anna, ben and cleo``."""
        names = [self._label(peer_id) for peer_id in peer_ids]
        return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _percent(part: float) -> str:
    return f"{100 * part:.2g} %"
