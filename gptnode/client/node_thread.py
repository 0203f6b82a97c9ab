"""A node in a thread of its own: trio runs there, and other threads have it do things.

Knows a service only as something that is opened and given to whoever asks.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress
from typing import Generic, TypeVar

import trio

from gptnode.client.feed import Feed
from gptnode.errors import GptNodeError, UsageError

__all__ = ["NodeThread", "Task"]

S = TypeVar("S")
T = TypeVar("T")


class Task:
    """Something that runs on the node's thread."""

    def __init__(self, token: trio.lowlevel.TrioToken) -> None:
        """It hasn't begun."""
        self._token = token
        self.scope = trio.CancelScope()

    def cancel(self) -> None:
        """From any thread: end it soon. Nothing happens if it has ended."""
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self.scope.cancel)


class Outcome(Generic[T]):
    """What came of a call: a value, or an error that ``unwrap`` raises."""

    def __init__(self, value: T | None = None, error: BaseException | None = None) -> None:
        self._value = value
        self._error = error

    def unwrap(self) -> T:
        """The value."""
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]  # there is one where there is no error


class NodeThread(Generic[S]):
    """Opens a service in a thread, and closes it when told to.

    *Resource handling*: ``close`` cancels what runs, closes the service and waits for the thread.
    Without it the thread ends with the process, as it keeps none alive. Safe for use from several
    threads.
    """

    def __init__(self, opening: Callable[[], AbstractAsyncContextManager[S]]) -> None:
        """Starts the thread. ``opening`` is called there; ``started`` tells what came of it,
        ``ended`` that all is closed."""
        self.started: Feed[Outcome[None]] = Feed()
        self.ended: Feed[None] = Feed()
        self._opening = opening
        self._service: S | None = None
        self._token: trio.lowlevel.TrioToken | None = None
        self._nursery: trio.Nursery | None = None
        self._everything = trio.CancelScope()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="gptnode", daemon=True)
        self._thread.start()

    def start(self, work: Callable[[S], Awaitable[T]], done: Callable[[Outcome[T]], None]) -> Task:
        """Have ``work`` done on the node; ``done`` is called there with what came of it, once.

        Raises:
            UsageError: the client is closed.
        """
        if self._token is None or self._closed:
            raise _closed()
        task = Task(self._token)

        def begin() -> None:
            if self._nursery is None or self._closed:
                done(Outcome(error=_closed()))
                return
            self._nursery.start_soon(self._do, work, done, task)

        try:
            self._token.run_sync_soon(begin)
        except trio.RunFinishedError:
            raise _closed() from None
        return task

    def stop(self) -> None:
        """Begin to close; nothing is accepted from now on."""
        self._closed = True
        if self._token is not None:
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._everything.cancel)

    def join(self) -> None:
        """Wait until all is closed."""
        self._thread.join()

    def _run(self) -> None:
        try:
            trio.run(self._serve)
        except BaseException as error:
            self.started.put(Outcome(error=_plain(error)))
        finally:
            self.ended.put(None)

    async def _serve(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        with self._everything:
            async with self._opening() as self._service, trio.open_nursery() as self._nursery:
                self.started.put(Outcome())
                await trio.sleep_forever()

    async def _do(
        self, work: Callable[[S], Awaitable[T]], done: Callable[[Outcome[T]], None], task: Task
    ) -> None:
        outcome: Outcome[T] = Outcome(error=_closed())
        try:
            with task.scope:
                if self._service is not None:
                    outcome = Outcome(await work(self._service))
        except Exception as error:
            outcome = Outcome(error=_plain(error))
        finally:
            done(outcome)


def _closed() -> GptNodeError:
    return UsageError("the client is closed")


def _plain(error: BaseException) -> BaseException:
    """The one error in a group of one."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
