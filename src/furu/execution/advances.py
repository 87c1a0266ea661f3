"""Brings what nodes report with `furu.progress` to the loop of their run."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Container, Iterator

from furu._common.loops import Waker
from furu.context import REPORT_ADVANCE, Advance
from furu.events import NodeProgress
from furu.execution.workers.base import Job

__all__ = ["Advances"]


class Advances:
    """Receives reports in any thread, and emits them as events on the loop on which this object was made.

    The news that a job has begun may come later than its first report, which waits for it. `started` are
    the keys of the jobs that have started and not ended; reports of others are dropped.
    """

    def __init__(self, emit: Callable[[NodeProgress], object], started: Container[str]) -> None:
        self._emit = emit
        self._started = started
        self._begun: dict[str, Job] = {}
        self._early: dict[str, tuple[Advance, float]] = {}
        self._reports: deque[tuple[str, Advance, float]] = deque()
        self._waker = Waker(self._take)

    @contextlib.contextmanager
    def receiving(self) -> Iterator[None]:
        """Receive the reports of nodes that are computed in this context, or in copies of it."""
        token = REPORT_ADVANCE.set(self._report)
        try:
            yield
        finally:
            REPORT_ADVANCE.reset(token)

    def begun(self, job: Job) -> None:
        """Record that a job has begun. Call this after its `NodeStarted` was emitted."""
        self._begun[job.key] = job
        if job.key in self._early:
            self._pass_on(job.key, *self._early.pop(job.key))

    def ended(self, key: str) -> None:
        """Record that a job has ended. Call this before its end is emitted."""
        self._take()
        self._begun.pop(key, None)
        self._early.pop(key, None)

    def _report(self, key: str, advance: Advance) -> None:
        self._reports.append((key, advance, time.time()))
        self._waker.wake()

    def _take(self) -> None:
        while self._reports:
            self._pass_on(*self._reports.popleft())

    def _pass_on(self, key: str, advance: Advance, at: float) -> None:
        job = self._begun.get(key)
        if job is not None:
            self._emit(NodeProgress(key, job.node_class, advance, at))
        elif key in self._started:
            self._early[key] = advance, at
