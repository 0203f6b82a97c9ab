"""One step on its way through the lane: what is asked for, and who waits for it.

Knows nothing of the other steps; who comes next is `gptnode.node.batching`'s business.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

import trio
from torch import Tensor

from gptnode.errors import ContextError, MismatchError
from gptnode.model.kv_cache import KVCache
from gptnode.model.pieces import PausableStep
from gptnode.model.shard import BlockStack
from gptnode.node.compute import Ran

__all__ = ["AnyAsked", "Asked", "Blame", "LongStep", "StepWork", "rewind"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class StepWork(Generic[T]):
    """One step of a context: ``tokens`` from ``position`` on, over ``stack`` and its ``cache``.

    A context's steps come one after another: the next may be asked for when the last has ended.
    ``owner`` is whose context it is; owners take turns. ``read`` makes the hidden states
    (1, tokens, D), ``write`` an answer of the result; both are called in the lane, and an error of
    theirs is an error of this step alone.
    """

    owner: str
    stack: BlockStack
    cache: KVCache
    position: int
    tokens: int
    read: Callable[[], Tensor]
    write: Callable[[Tensor], T]


class Asked(Generic[T]):
    """A step that somebody waits for, unless they have left."""

    def __init__(self, work: StepWork[T]) -> None:
        self.work = work
        self.abandoned = False
        self.finished = trio.Event()
        self.ran: Ran[T] | None = None
        self.error: BaseException | None = None
        self._token = trio.lowlevel.current_trio_token()
        self.asked_at = time.perf_counter()

    def prepared(self) -> Tensor:
        """The hidden states, with the cache at their position."""
        hidden, cache = self.work.read(), self.work.cache
        rewind(cache, self.work.position)
        end = cache.length + hidden.shape[1]
        if end > cache.max_tokens:  # said before it joins others: their batch would fail with it
            raise ContextError(f"{end} tokens don't fit in a context of {cache.max_tokens} tokens")
        return hidden

    def done(self, result: T, compute_s: float) -> None:
        """It is answered, after ``compute_s`` of work; all the rest was waiting."""
        waited_s = time.perf_counter() - self.asked_at - compute_s
        self.ran = Ran(result, max(0.0, waited_s), compute_s)

    def wake(self) -> None:
        """Let its caller go on."""
        try:
            self._token.run_sync_soon(self.finished.set)
        except trio.RunFinishedError:
            pass  # the node has ended; nobody waits any more


AnyAsked: TypeAlias = Asked[Any]


class LongStep:
    """A long step under way, and the time that it has had."""

    def __init__(self, asked: AnyAsked) -> None:
        self.asked = asked
        self.compute_s = 0.0
        self._step: PausableStep | None = None

    def advance(self) -> Tensor | None:
        """Compute the next piece; the result if it was the last."""
        if self._step is None:
            work = self.asked.work
            self._step = work.stack.in_pieces(self.asked.prepared(), work.cache)
        return self._step.advance()

    def give_up(self) -> None:
        """Compute no more of it."""
        if self._step is not None:
            self._step.close()


class Blame:
    """Inside the block, an error belongs to the caller of ``asked``, whatever it is."""

    def __init__(self, asked: AnyAsked) -> None:
        self.failed = False
        self._asked = asked

    def __enter__(self) -> Blame:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if error is not None:
            self.failed = True
            self._asked.error = error
        return True


def rewind(cache: KVCache, position: int) -> None:
    """Let ``cache`` end at ``position``, where a step is about to begin.

    Raises:
        MismatchError: there is a gap between the cache and ``position``.
    """
    if position > cache.length:
        raise MismatchError(f"step at position {position}, but the cache ends at {cache.length}")
    if position < cache.length:
        cache.truncate(position)
