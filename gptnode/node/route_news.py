"""What happened to a context's route: metered as it happens, and said in one line when it is whole.

Knows words and counts; what becomes of the route is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gptnode.errors import GptNodeError
from gptnode.node.commons import Commons
from gptnode.node.health import TroubleKind
from gptnode.node.stages import Stage

__all__ = ["RouteNews"]


class RouteNews:
    """The news since the route was last whole."""

    def __init__(
        self, commons: Commons, label: Callable[[str | None], str], say: Callable[[str], None]
    ) -> None:
        """No news yet.

        Args:
            commons: Knows what other contexts said, and who counts.
            label: What people call a peer.
            say: Shows a line.
        """
        self._commons = commons
        self._label = label
        self._say = say
        self._troubles: list[str] = []
        self._announced = False
        self._has_failed = False

    def failed(
        self, peer_id: str, cause: GptNodeError, kind: TroubleKind, *, was_open: bool
    ) -> None:
        """A peer failed, in a session or, if not ``was_open``, at opening one."""
        self._commons.meter.hop_failed(self._label(peer_id), kind.value, was_open=was_open)
        self._has_failed |= was_open
        self._troubles.append(cause.detail)

    def dropped(self, stages: Sequence[Stage]) -> None:
        """These were in use, and their peers were wrong."""
        for stage in stages:
            label = self._label(stage.peer_id)
            self._commons.meter.hop_failed(label, TroubleKind.WRONG.value, was_open=True)

    def distrusted(self, cause: GptNodeError, *, spoiled: bool) -> None:
        """Peers were found to be wrong; ``spoiled``: what this context has came of them."""
        if spoiled:
            self._has_failed = True
            self._troubles.append(cause.detail)
        else:
            self._say(cause.detail)

    def edited(self, hops: str, *, rerouted: bool) -> None:
        """The map was edited, and wants ``hops`` now."""
        new = "is now" if rerouted else "stays"
        self._say(f"the BlocksMap was edited: the route {new} {hops}")
        self._announced = rerouted

    def waits(self) -> None:
        """There is no route: the waiting, or the error, tells the troubles."""
        self._troubles.clear()

    def whole(
        self, before: Sequence[Stage], stages: Sequence[Stage], opened: Sequence[Stage]
    ) -> None:
        """``stages`` are in use instead of those ``before``; some were ``opened`` for it."""
        if self._has_failed:
            self._commons.meter.rerouted("failure")
        elif before and before != stages:
            self._commons.meter.rerouted("map_edit")
        self._has_failed = False
        new = [stage for stage in stages if stage in opened and stage.peer_id is not None]
        serves = [f"{self._label(stage.peer_id)} serves blocks {stage.span}" for stage in new]
        told_already = self._announced and not self._troubles
        if serves and len(new) == len(stages) and not self._troubles:  # of a new context
            told_already |= self._commons.is_known_route("; ".join(serves))
        if (self._troubles or serves) and not told_already:
            self._say("; ".join((*self._troubles, *serves)))
        self._troubles.clear()
        self._announced = False
