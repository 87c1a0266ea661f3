"""Workers for async nodes, which have an `async def _create`. They run as tasks on the run's event loop."""

from __future__ import annotations

from anyio.abc import TaskGroup

from furu.execution.workers.base import Crew, Deliver, Job, Outcome
from furu.execution.workers.call import acall
from furu.execution.workers.tasks import TaskCrew


class EventLoopWorkers:
    """Runs async nodes as tasks on the run's event loop, at most `max_async` at once.

    A node's store operations run in threads, so only its `_create` can block the loop.
    """

    def open(self, tasks: TaskGroup, deliver: Deliver, *, max_workers: int, stop_on_failure: bool) -> Crew:
        """Open a crew for a run."""
        return _EventLoopCrew(
            "async", tasks, deliver, max_workers=max_workers, stop_on_failure=stop_on_failure
        )


class _EventLoopCrew(TaskCrew):
    async def _compute(self, job: Job) -> Outcome:
        return await acall(job, "local", self._cancellation)
