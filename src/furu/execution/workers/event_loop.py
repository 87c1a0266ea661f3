"""The run's own event loop, for nodes with an `async def _create`."""

from __future__ import annotations

import anyio
from anyio.abc import TaskGroup

from furu.context import Cancellation
from furu.execution.workers.base import Begun, Crew, Deliver, Job, Withdrawn
from furu.execution.workers.call import acall
from furu.execution.workers.places import Places


class EventLoopWorkers:
    """Runs async nodes as tasks of the run, at most `max_workers` at once, under a limiter of its own.

    A node's store operations run in threads; what its `_create` does on the loop is its own affair.
    """

    def open(self, tasks: TaskGroup, deliver: Deliver, *, max_workers: int, stop_on_failure: bool) -> Crew:
        """Begin a run."""
        return _EventLoopCrew(tasks, deliver, max_workers, stop_on_failure)


class _EventLoopCrew:
    def __init__(self, tasks: TaskGroup, deliver: Deliver, max_workers: int, stop_on_failure: bool) -> None:
        self._tasks = tasks
        self._deliver = deliver
        self._stop_on_failure = stop_on_failure
        self._limiter = anyio.CapacityLimiter(max_workers)
        self._max_workers = max_workers
        self._in_flight = 0
        self._waiting: dict[str, Job] = {}
        self._scopes: set[anyio.CancelScope] = set()
        self._cancellation = Cancellation()
        self._stopped = False
        self._places = Places("async", max_workers)

    @property
    def in_sequence(self) -> bool:
        """Never: async nodes wait side by side."""
        return False

    def has_room(self, spec_key: str) -> bool:
        """Whether another async node may run."""
        return self._in_flight < self._max_workers

    def start(self, job: Job) -> None:
        """Start a node as a task."""
        self._in_flight += 1
        self._waiting[job.key] = job
        self._tasks.start_soon(self._run, job)

    def stop(self, *, cancel: bool) -> None:
        """Begin nothing more."""
        self._stopped = True
        self._cancellation.requested |= cancel
        if self._waiting:
            self._deliver(Withdrawn(list(self._waiting.values())))
            self._waiting.clear()

    def abandon(self) -> list[Job]:
        """Cancel what runs; it ends as cancelled, and none is left."""
        for scope in self._scopes:
            scope.cancel()
        return []

    async def _run(self, job: Job) -> None:
        async with self._limiter:
            if self._stopped:
                return
            del self._waiting[job.key]
            with self._places.taken() as place, anyio.CancelScope(shield=True) as scope:
                self._deliver(Begun(job, place))
                self._scopes.add(scope)
                outcome = await acall(job, "local", self._cancellation, scope)
                self._scopes.discard(scope)
                self._in_flight -= 1
                self._stopped |= outcome.ends_a_run and self._stop_on_failure
                self._deliver(outcome)
