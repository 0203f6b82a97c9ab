"""Steps of one token that are recorded once and then repeated without Python.

At one token, a fast device computes a kernel in less time than Python takes to launch it. A
recording launches all kernels of a step at once. It holds for the memory it was made in, so there
is one for each cache and each bucket of history (see `gptnode.model.static_step`). Knows what to
record and when to let it go; what a recording is, on which device, is behind `Recorder`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol, TypeVar
from weakref import WeakKeyDictionary

import structlog
import torch
from torch import Tensor

from gptnode.model.config import ModelConfig
from gptnode.model.kv_cache import KVCache
from gptnode.model.layers import Block
from gptnode.model.rope import Rope
from gptnode.model.static_step import StaticStep, bucket_tokens, fixed_positions

__all__ = ["GraphMaker", "Recorder", "Recording", "StepGraphs"]

T = TypeVar("T")


class Recording(Protocol):
    """Work that can be repeated on whatever its memory holds by then."""

    def replay(self) -> Tensor:
        """Do it again.

        Returns:
            What the work returned, valid until any recording of the same recorder is replayed.
        """
        ...

    def close(self) -> None:
        """Give back what the device keeps for it."""
        ...


class Recorder(Protocol):
    """Makes recordings. Those of one recorder are replayed one after another, never at once."""

    def record(self, work: Callable[[], Tensor]) -> Recording:
        """Record ``work``, which is called some times for that and may do its work or not.

        Raises:
            RuntimeError: it can't be recorded.
        """
        ...


class GraphMaker:
    """A recorder that is asked until it fails once, by a stack and all of its parts.

    What failed would fail again, and each try would take as long as several steps.
    """

    def __init__(self, recorder: Recorder) -> None:
        """Nothing is recorded yet."""
        self._recorder = recorder
        self._works = True
        self._log = structlog.get_logger("gptnode.model")

    def attempt(self, make: Callable[[Recorder], T]) -> T | None:
        """What ``make`` makes; None if it can't, with a line in the log the first time."""
        if not self._works:
            return None
        try:
            return make(self._recorder)
        except RuntimeError as error:
            self._works = False
            self._log.warning("steps run without graphs", reason=str(error).partition("\n")[0])
            return None


class StepGraphs:
    """The recorded steps of one stack, for all caches that it is used with.

    Resource handling: a cache's recordings and buffers go when it is closed, or with it.
    """

    def __init__(
        self,
        config: ModelConfig,
        blocks: Sequence[Block],
        rope: Rope,
        dtype: torch.dtype,
        device: torch.device,
        maker: GraphMaker,
    ) -> None:
        """``blocks`` are those of the stack, on ``device``; activations are of ``dtype``."""
        self._rope = config.rope
        self._maker = maker
        self._static_step = partial(StaticStep, config, blocks, rope, dtype=dtype, device=device)
        self._of_caches: WeakKeyDictionary[KVCache, _CacheGraphs] = WeakKeyDictionary()

    def step(self, hidden: Tensor, cache: KVCache) -> Tensor | None:
        """Run ``hidden`` (1, 1, D), the next token of ``cache``, in inference mode.

        Returns:
            (1, 1, D), and the cache has advanced; or None, and it has not: the step can't be
            recorded and is the ordinary path's.

        Raises:
            ContextError: the cache has no room for another token.
        """
        position = cache.length
        cache.wipe()
        cache.claim(1)
        if position >= fixed_positions(self._rope, cache.max_tokens):
            return None
        bucket = bucket_tokens(position + 1, cache.max_tokens)
        graphs = self._of_caches.get(cache)
        if graphs is None or bucket not in graphs.recordings:
            graphs = self._maker.attempt(partial(self._record, hidden, cache, bucket))
            if graphs is None:
                return None
        result = graphs.replay(bucket, hidden, position)
        cache.advance(1)
        return result

    def _record(
        self, hidden: Tensor, cache: KVCache, bucket: int, recorder: Recorder
    ) -> _CacheGraphs:
        graphs = self._of_caches.get(cache)
        if graphs is None:
            graphs = self._of_caches[cache] = _CacheGraphs(self._static_step(cache=cache))
            cache.on_close(graphs.close)
        graphs.step.load(hidden, cache.length)
        graphs.recordings[bucket] = recorder.record(partial(graphs.step.run, bucket))
        return graphs


class _CacheGraphs:
    """What belongs to one cache. It doesn't refer to it: else neither would ever go."""

    def __init__(self, step: StaticStep) -> None:
        self.step = step
        self.recordings: dict[int, Recording] = {}

    def replay(self, bucket: int, hidden: Tensor, position: int) -> Tensor:
        self.step.load(hidden, position)
        # Cloned, as the next recording that is replayed, of whatever cache, may write there.
        return self.recordings[bucket].replay().clone()

    def close(self) -> None:
        while self.recordings:
            self.recordings.popitem()[1].close()
        self.step.close()
