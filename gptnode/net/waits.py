"""Tasks that wait for something about a key: as trio's ParkingLot, one for each key, and cheaper.

A message wakes a task on either side, so what waking costs is part of every round trip.
"""

from __future__ import annotations

from collections.abc import Hashable

import trio

__all__ = ["Waits"]


class Waits:
    """Who waits for what; no key stays after its last task."""

    def __init__(self) -> None:
        """Nobody waits."""
        self._tasks: dict[Hashable, list[trio.lowlevel.Task]] = {}

    def __len__(self) -> int:
        """For how many keys somebody waits."""
        return len(self._tasks)

    async def wait(self, key: Hashable) -> None:
        """Until ``wake``; cancelled, it doesn't wait any more."""
        task = trio.lowlevel.current_task()
        tasks = self._tasks.get(key)
        if tasks is None:
            tasks = self._tasks[key] = []
        tasks.append(task)

        def abort(_: object) -> trio.lowlevel.Abort:
            tasks.remove(task)
            if not tasks:
                del self._tasks[key]
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    def wake(self, key: Hashable) -> None:
        """All that wait for it, if any."""
        for task in self._tasks.pop(key, ()):
            trio.lowlevel.reschedule(task)
