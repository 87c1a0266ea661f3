"""The run's own event loop, for nodes with an `async def _create`."""

from __future__ import annotations

from collections.abc import Callable

import anyio
from anyio.abc import TaskGroup

from furu.execution.workers.base import Job, Outcome
from furu.execution.workers.call import acall


class EventLoopWorkers:
    """Runs async nodes as tasks of the run, at most `max_workers` at once, under a limiter of its own.

    A node's store operations run in threads; what its `_create` does on the loop is its own affair.
    """

    def __init__(self, max_workers: int) -> None:
        self._limiter = anyio.CapacityLimiter(max_workers)
        self._max_workers = max_workers
        self._in_flight = 0

    def open(self, tasks: TaskGroup, deliver: Callable[[Outcome], None]) -> None:
        """Begin a run."""
        self._tasks = tasks
        self._deliver = deliver

    def has_room(self, spec_key: str) -> bool:
        """Whether another async node may run."""
        return self._in_flight < self._max_workers

    def start(self, job: Job) -> None:
        """Start a node as a task."""
        self._in_flight += 1
        self._tasks.start_soon(self._run, job)

    async def _run(self, job: Job) -> None:
        async with self._limiter:
            with anyio.CancelScope(shield=True):
                outcome = await acall(job, "local")
                self._in_flight -= 1
                self._deliver(outcome)
