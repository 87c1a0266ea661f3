"""The base class for crews with one task for each job. The task awaits the job on the loop, even if the job
is computed in another process."""

from __future__ import annotations

import abc
import contextlib
import time

import anyio
from anyio.abc import TaskGroup

from furu.context import Cancellation
from furu.execution.workers.base import Begun, Deliver, Job, Outcome, Withdrawn
from furu.execution.workers.call import drop_frames, failed_outcome
from furu.execution.workers.places import Places


class TaskCrew(abc.ABC):
    """Runs at most `max_workers` jobs at once, under its own limiter. Each job has a cancel scope, which
    shields it from the run's cancellation. Only `abandon` cancels these scopes."""

    def __init__(
        self, kind: str, tasks: TaskGroup, deliver: Deliver, *, max_workers: int, stop_on_failure: bool
    ) -> None:
        self._tasks = tasks
        self._deliver = deliver
        self._max_workers = max_workers
        self._stop_on_failure = stop_on_failure
        self._limiter = anyio.CapacityLimiter(max_workers)
        self._places = Places(kind)
        self._in_flight = 0
        self._waiting: dict[str, Job] = {}
        self._scopes: set[anyio.CancelScope] = set()
        self._left = anyio.Event()
        self._cancellation = Cancellation()
        self._stopped = False

    @abc.abstractmethod
    async def _compute(self, job: Job) -> Outcome:
        """Compute a node. A failure of the node is returned, not raised."""

    async def _cancelled(self, job: Job, started: float) -> Outcome:
        """Return the outcome of a job whose scope was cancelled."""
        return Outcome(job, "cancelled", time.monotonic() - started)

    @property
    def is_serial(self) -> bool:
        """Always False: jobs run in parallel."""
        return False

    def has_room(self, spec_key: str) -> bool:
        """Whether another job may be started."""
        return self._in_flight < self._max_workers

    def start(self, job: Job) -> None:
        """Start a job in a task."""
        self._in_flight += 1
        self._waiting[job.key] = job
        self._tasks.start_soon(self._run, job)

    def stop(self, *, cancel: bool) -> None:
        """Begin no more jobs."""
        self._stopped = True
        self._cancellation.requested |= cancel
        if self._waiting:
            self._deliver(Withdrawn(list(self._waiting.values())))
            self._waiting.clear()

    def abandon(self) -> list[Job]:
        """Cancel the running jobs. Returns an empty list, because no job continues."""
        for scope in self._scopes:
            scope.cancel()
        return []

    async def wait_all_left(self) -> None:
        """Wait until no job is being computed."""
        while self._scopes:
            self._left = anyio.Event()
            await self._left.wait()

    async def _run(self, job: Job) -> None:
        async with self._limiter:
            if self._stopped:
                return
            del self._waiting[job.key]
            started = time.monotonic()
            outcome: Outcome | None = None
            # A scope does not shield from asyncio's own `Task.cancel()`, which `asyncio.run` calls at exit.
            with (
                contextlib.suppress(anyio.get_cancelled_exc_class()),
                self._places.taken() as place,
                anyio.CancelScope(shield=True) as scope,
            ):
                self._deliver(Begun(job, place))
                self._scopes.add(scope)
                try:
                    outcome = await self._compute(job)
                except Exception as error:  # not the node's error: no thread could be started, for example
                    outcome = failed_outcome(job, error, started)
            self._scopes.discard(scope)
            self._left.set()
            if outcome is None:
                outcome = await self._cancelled(job, started)
            if not self._stop_on_failure:  # many jobs may fail before the run ends: keep no frames
                drop_frames(outcome.error)
            self._in_flight -= 1
            self._stopped |= outcome.ends_a_run and self._stop_on_failure
            self._deliver(outcome)
