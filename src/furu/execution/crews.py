"""The workers of a run, and the jobs that they compute: one crew for async nodes, one for all others."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping

from anyio.abc import TaskGroup

from furu.execution.workers.base import Crew, Deliver, Job, Lane, Workers

__all__ = ["QUESTIONS", "Crews"]

# The lane of nodes that must be looked at again before they can be computed. They need no worker.
QUESTIONS = Lane(False, "")


class Crews:
    """Starts jobs where there is room for them. `running` are the keys of the jobs that have started and
    not ended."""

    def __init__(
        self,
        *,
        workers: Workers,
        async_workers: Workers,
        max_workers: int,
        max_async: int,
        spec_limits: Mapping[str, int],
    ) -> None:
        # Keys are `Lane.is_async`.
        self._kinds = {False: (workers, max_workers), True: (async_workers, max_async)}
        self._crews: dict[bool, Crew] = {}
        self._spec_limits = spec_limits
        self._running_of: Counter[str] = Counter()  # by spec key
        self.running: set[str] = set()

    def open(self, tasks: TaskGroup, deliver: Deliver, *, stop_on_failure: bool) -> None:
        """Open the workers. They run tasks in `tasks`, and `deliver` their news."""
        for is_async, (workers, limit) in self._kinds.items():
            self._crews[is_async] = workers.open(
                tasks, deliver, max_workers=limit, stop_on_failure=stop_on_failure
            )

    def may_start(self, lane: Lane, presuming: bool) -> bool:
        """Whether there is room for a node. `presuming` means that some of its dependencies are only
        presumed done."""
        if lane is QUESTIONS:
            return not presuming
        # At most one crew is serial, so all nodes that are presumed done are in that crew's queue.
        crew = self._crews[lane.is_async]
        if self._running_of[lane.spec_key] >= self._spec_limits.get(lane.spec_key, math.inf):
            return False
        return (crew.is_serial or not presuming) and crew.has_room(lane.spec_key)

    def is_serial(self, lane: Lane) -> bool:
        """Whether jobs of a lane are computed one after another, in the order in which they are started."""
        return self._crews[lane.is_async].is_serial

    def start(self, job: Job) -> None:
        """Start a job, for which there is room."""
        self.running.add(job.key)
        self._running_of[job.spec_key] += 1
        self._crews[job.lane.is_async].start(job)

    def ended(self, job: Job) -> None:
        """Record that a job is no longer running."""
        self.running.discard(job.key)
        self._running_of[job.spec_key] -= 1

    def stop(self, *, cancel: bool) -> None:
        """Begin no more jobs. With `cancel`, running jobs end early if their workers can end them."""
        for crew in self._crews.values():
            crew.stop(cancel=cancel)

    def abandon(self) -> list[Job]:
        """Stop waiting for the running jobs, and return those that are left to finish on their own."""
        return [job for crew in self._crews.values() for job in crew.abandon()]
