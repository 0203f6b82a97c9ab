"""A pipeline: stages in the order of their blocks, that hold one context between them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import trio
from torch import Tensor

from gptnode.errors import GptNodeError
from gptnode.node.stages import Stage
from gptnode.node.timing import HopTiming
from gptnode.span import Span

__all__ = ["HopFailure", "Pipeline"]


class HopFailure(Exception):
    """The hop of ``peer_id`` failed with ``cause``: the route has to be made again without it."""

    def __init__(self, peer_id: str, span: Span, cause: GptNodeError, *, was_open: bool) -> None:
        """``was_open``: the session had been running, so the peer may be back at once."""
        super().__init__(f"blocks {span} at {peer_id}: {cause}")
        self.peer_id = peer_id
        self.span = span
        self.cause = cause
        self.was_open = was_open


class Pipeline:
    """A fold over stages."""

    def __init__(self, stages: Sequence[Stage]) -> None:
        """``stages`` cover all blocks of the model, in order, without a gap."""
        self.stages = tuple(stages)

    @property
    def timings(self) -> tuple[HopTiming, ...]:
        """Where the time of the last ``forward`` went, stage by stage."""
        return tuple(stage.timing for stage in self.stages)

    async def forward(self, hidden: Tensor, position: int) -> Tensor:
        """Run ``hidden`` (B, T, D), whose first token is at ``position``, through all stages.

        Raises:
            HopFailure: a peer's stage failed.
            GptNodeError: a stage of this node failed.
        """
        for stage in self.stages:
            with _failures_of(stage):
                hidden = await stage.forward(hidden, position)
        return hidden

    async def truncate(self, length: int) -> None:
        """Forget all tokens from position ``length`` on, in all stages at once."""
        failures: list[HopFailure] = []

        async def truncate_one(stage: Stage) -> None:
            try:
                with _failures_of(stage):
                    await stage.truncate(length)
            except HopFailure as failure:
                failures.append(failure)

        async with trio.open_nursery() as nursery:
            for stage in self.stages:
                nursery.start_soon(truncate_one, stage)
        if failures:
            raise failures[0]

    async def aclose(self) -> None:
        """Close all stages at once; a peer that is gone is no error."""
        async with trio.open_nursery() as nursery:
            for stage in self.stages:
                nursery.start_soon(stage.aclose)


@contextmanager
def _failures_of(stage: Stage) -> Iterator[None]:
    """Turn an error of a peer's stage into a HopFailure that names the peer."""
    try:
        yield
    except GptNodeError as error:
        if stage.peer_id is None:
            raise
        raise HopFailure(stage.peer_id, stage.span, error, was_open=True) from error
