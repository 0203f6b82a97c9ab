"""The compute lane: the one thread of a node that runs torch, so that trio never waits for it.

A single thread keeps the order of steps, keeps torch's thread pool in one place, and is where
steps of several sessions are joined into one batch (`gptnode.node.batching`). A piece of work ends
when its device is done, not when Python has handed it over: what comes out of the lane is there,
and its time is true.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar

import torch
import trio

__all__ = ["ComputeLane", "Ran", "device_wait"]

T = TypeVar("T")


class Ran(Generic[T]):
    """What a piece of work returned, and its times in seconds."""

    __slots__ = ("compute_s", "queue_s", "value")

    def __init__(self, value: T, queue_s: float, compute_s: float) -> None:
        """``queue_s``: waiting for the lane; ``compute_s``: the work, to its end on the device."""
        self.value = value
        self.queue_s = queue_s
        self.compute_s = compute_s


class _Job(Protocol):
    """Something for the lane's thread to run; it keeps its errors to itself."""

    def run(self, wait: Callable[[], object]) -> None:
        """``wait`` returns when the device is done."""
        ...


class _Awaited(Generic[T]):
    """One piece of work on its way through the lane."""

    def __init__(self, work: Callable[[], T]) -> None:
        self.work = work
        self.token = trio.lowlevel.current_trio_token()
        self.finished = trio.Event()
        self.abandoned = False
        self.queued_at = time.perf_counter()
        self.ran: Ran[T] | None = None
        self.error: BaseException | None = None

    def run(self, wait: Callable[[], object]) -> None:
        """In the lane's thread: do the work unless its caller has gone, and wake the caller."""
        started = time.perf_counter()
        if not self.abandoned:
            try:
                value = self.work()
                wait()
                ended = time.perf_counter()
                self.ran = Ran(value, started - self.queued_at, ended - started)
            except BaseException as error:  # it belongs to the caller, whatever it is
                self.error = error
        try:
            self.token.run_sync_soon(self.finished.set)
        except trio.RunFinishedError:
            pass  # the node has ended; nobody waits any more


class _Unattended:
    """Work that nobody waits for: nobody hears of its errors either."""

    def __init__(self, work: Callable[[], object]) -> None:
        self.work = work

    def run(self, wait: Callable[[], object]) -> None:
        """In the lane's thread."""
        with suppress(Exception):
            self.work()
            wait()


class ComputeLane:
    """A thread that runs one piece of work after another.

    Resource handling: a context manager; leaving it waits for the work in progress (one step at
    the most, since callers are gone by then) and ends the thread.
    """

    def __init__(
        self, threads: int | None = None, *, wait: Callable[[], object] = lambda: None
    ) -> None:
        """A lane that isn't running yet.

        Args:
            threads: How many cores one step may use; torch's own choice when None.
            wait: Called in the lane after each piece of work; returns when the device is done with
                it. See `device_wait`.
        """
        self._threads = threads
        self._wait = wait
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="gptnode-compute", daemon=True)

    def __enter__(self) -> Self:
        """Start the thread."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the thread after the work in progress."""
        self._jobs.put(None)
        self._thread.join()

    @property
    def wait_for_device(self) -> Callable[[], object]:
        """In the lane: returns when the device has done all that it was asked for."""
        return self._wait

    @property
    def wanted(self) -> bool:
        """Whether work waits for what the lane does now."""
        return not self._jobs.empty()

    async def run(self, work: Callable[[], T]) -> Ran[T]:
        """Run ``work`` in the lane and return its value and times.

        A cancelled caller leaves at once. Its work is skipped if it has not begun, and else goes
        on to its end before the next piece begins: order is all that callers may rely on.

        Raises:
            BaseException: whatever ``work`` raised.
        """
        job = _Awaited(work)
        self._jobs.put(job)
        try:
            await job.finished.wait()
        except trio.Cancelled:
            job.abandoned = True
            raise
        if job.ran is None:
            raise job.error if job.error is not None else RuntimeError("the lane skipped live work")
        return job.ran

    def run_soon(self, work: Callable[[], object]) -> None:
        """Run ``work`` after all that was asked for before; nobody waits for it or its errors.

        May be called from any thread, the lane's own too.
        """
        self._jobs.put(_Unattended(work))

    def _work(self) -> None:
        if self._threads is not None:
            torch.set_num_threads(self._threads)  # counts for the thread that calls it
        while (job := self._jobs.get()) is not None:
            job.run(self._wait)
            del job  # a finished step must not keep its cache alive while the lane waits


def device_wait(device: torch.device) -> Callable[[], object]:
    """What returns when ``device`` has done all that the calling thread asked of it.

    On a CPU work is done when it returns, and there is nothing to wait for.
    """
    if device.type == "cuda":
        return lambda: torch.cuda.current_stream(device).synchronize()
    if device.type == "mps":
        return torch.mps.synchronize
    return lambda: None
