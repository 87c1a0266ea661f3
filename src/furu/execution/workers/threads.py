"""Threads: the default kind, for every node that is not async.

At most `max_workers` puller tasks carry the nodes into threads; a puller without a node sleeps on an
event. One task a node would cost memory and time for every node that waits.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup

from furu.execution.workers.base import Job, Outcome
from furu.execution.workers.call import call, failed_outcome


class ThreadWorkers:
    """Computes nodes in threads, at most `max_workers` at once, under a limiter of its own."""

    def __init__(self, max_workers: int) -> None:
        self._limiter = anyio.CapacityLimiter(max_workers)
        self._max_workers = max_workers
        self._in_flight = 0
        self._jobs: deque[Job] = deque()
        self._sleeping: list[anyio.Event] = []

    def open(self, tasks: TaskGroup, deliver: Callable[[Outcome], None]) -> None:
        """Begin a run; pullers are started when there is work for them."""
        self._tasks = tasks
        self._deliver = deliver

    def has_room(self, spec_key: str) -> bool:
        """Whether a thread is free."""
        return self._in_flight < self._max_workers

    def start(self, job: Job) -> None:
        """Give a job to a puller."""
        self._in_flight += 1
        self._jobs.append(job)
        if self._sleeping:
            self._sleeping.pop().set()
        else:
            self._tasks.start_soon(self._pull)

    async def _pull(self) -> None:
        while True:
            while self._jobs:
                job = self._jobs.popleft()
                try:
                    outcome = await anyio.to_thread.run_sync(call, job, "local", limiter=self._limiter)
                except Exception as error:  # no thread could be started
                    outcome = failed_outcome(job, error, time.monotonic())
                self._in_flight -= 1
                self._deliver(outcome)
            awake = anyio.Event()
            self._sleeping.append(awake)
            await awake.wait()
