"""Threads: the default kind, for every node that is not async.

A hop from the loop to a thread and back costs more than storing a small node does, and threads that
compute tiny nodes fight for the interpreter's lock. So a thread, once entered, stays: it takes jobs from
a feed that the loop fills, and what it has to tell is handed back in batches, one wake-up of the loop for
many. And how many threads take jobs follows the nodes:

    in sequence   while nodes are short: one thread, one job after another, with a feed before it
    in parallel   as soon as none has ended for a moment: as many threads as jobs, and no feed

In sequence a job may follow on one that it depends on. So a job that does not go well ends the sequence:
what is left of the feed is handed back. A job that turned out slow keeps its thread and is no part of
any sequence: short nodes beside it are computed in sequence by another thread.

At most `max_workers` threads are entered, each through one `run_sync` under a limiter of the run's own.
"""

from __future__ import annotations

import contextvars
import itertools
import threading
import time
from collections import deque

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup

from furu.context import Cancellation
from furu.execution.workers.base import Begun, Deliver, Job, News, Outcome, Overran, Withdrawn
from furu.execution.workers.call import call, failed_outcome
from furu.execution.workers.wake import Waker

# With jobs in the feed and none ended for so long, nodes are not short.
_PATIENCE_SEC = 0.001
# Typically shorter than this, nodes are short again.
_SHORT_SEC = 0.0005
# How much of the typical duration the last node decides.
_WEIGHT = 0.2
# More than one thread does in the time that a busy loop takes to come around.
_FEED = 64


class ThreadWorkers:
    """Computes nodes in threads, at most `max_workers` at once, under a limiter of its own.

    The loop calls `start`, `has_room` and `stop`, the threads run `_work`; what both change is changed
    under `_lock`.
    """

    def __init__(self, max_workers: int) -> None:
        self._limiter = anyio.CapacityLimiter(max_workers)
        self._max_workers = max_workers
        self._in_flight = 0
        self._fed = anyio.Event()

        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._feed: deque[Job] = deque()
        self._news: deque[News] = deque()
        self._entered = 0  # threads in `_work`, or on their way there
        self._asleep: list[threading.Semaphore] = []
        self._current: Job | None = None  # the job of the sequence that is being computed
        self._ended = 0  # jobs, ever
        self._typical_sec = 0.0
        self._sequence = True
        self._held = False  # a job of the sequence did not go well, and the loop does not know yet
        self._stopped = False
        self._cancellation = Cancellation()
        # As the loop knows them: jobs that have begun, and those of them that are slow.
        self._running: dict[str, Job] = {}
        self._slow: set[str] = set()
        self._scopes: set[anyio.CancelScope] = set()

    def open(self, tasks: TaskGroup, deliver: Deliver, *, stop_on_failure: bool) -> None:
        """Begin a run; threads are entered when there is work for them."""
        self._tasks = tasks
        self._deliver = deliver
        self._stop_on_failure = stop_on_failure
        self._waker = Waker(self._tell)
        tasks.start_soon(self._watch)

    @property
    def in_sequence(self) -> bool:
        """Whether jobs are computed one after another, as long as they go well."""
        return self._sequence

    def has_room(self, spec_key: str) -> bool:
        """Whether a thread is free or, in sequence, there is room in the feed."""
        if self._sequence:
            return self._in_flight - len(self._slow) <= _FEED and len(self._slow) < self._max_workers
        if self._typical_sec < _SHORT_SEC:
            return False  # the threads end what is short, and the next sequence begins
        return self._in_flight < self._max_workers

    def start(self, job: Job) -> None:
        """Feed a job to the threads."""
        self._in_flight += 1
        with self._lock:
            self._feed.append(job)
            if not self._sequence or self._entered - len(self._asleep) <= len(self._slow):
                self._wake_another()
        if self._sequence:
            self._fed.set()

    def stop(self, *, cancel: bool) -> None:
        """Begin nothing more, and let the threads go as they end what they have."""
        self._cancellation.requested |= cancel
        with self._lock:
            self._stopped = True
            for sleeper in self._asleep:
                sleeper.release()
            self._asleep.clear()
        self._tell()
        self._withdraw()

    def abandon(self) -> list[Job]:
        """Leave the threads that still compute: each ends its node, and publishes it, by itself."""
        self._cancellation.requested = True
        self._tell()
        self._deliver = _nobody
        for scope in self._scopes:
            scope.cancel()
        return list(self._running.values())

    # ---- on the loop ----

    async def _enter(self) -> None:
        try:
            # A thread is left only by `abandon`: a cancelled run lets its nodes finish.
            with anyio.CancelScope(shield=True) as scope:
                self._scopes.add(scope)
                await anyio.to_thread.run_sync(self._work, abandon_on_cancel=True, limiter=self._limiter)
        except Exception as error:  # no thread could be started: one job fails of it
            with self._lock:
                self._entered -= 1
                if self._feed:
                    job = self._feed.popleft()
                    self._news.append(Begun(job, "thread-none"))
                    self._end(failed_outcome(job, error, time.monotonic()))
        self._tell()

    async def _watch(self) -> None:
        """Where short jobs are expected and none has ended for a moment, those that run are slow."""
        while True:
            self._fed = anyio.Event()
            if not self._expects_short_jobs():
                await self._fed.wait()
            ended = self._ended
            await anyio.sleep(_PATIENCE_SEC)
            if ended != self._ended:
                continue
            self._tell()
            if self._expects_short_jobs():
                self._slow.update(self._running)
                if self._sequence:
                    self._typical_sec = max(self._typical_sec, _PATIENCE_SEC)
                self._withdraw()
                self._begin_sequence()

    def _expects_short_jobs(self) -> bool:
        """Whether jobs are on the way that are not slow, in sequence or before the next one begins."""
        short = self._sequence or self._typical_sec < _SHORT_SEC
        return short and self._in_flight > len(self._slow)

    def _tell(self) -> None:
        """Hand on what the threads have to tell, and begin a new sequence when the time has come."""
        while self._news:
            item = self._news.popleft()
            if isinstance(item, Begun):
                self._running[item.job.key] = item.job
                if item.job.node._timeout_sec is not None:
                    self._tasks.start_soon(self._watch_time, item.job, item.job.node._timeout_sec)
            elif isinstance(item, Outcome):
                self._in_flight -= 1
                del self._running[item.job.key]
                self._slow.discard(item.job.key)
                if self._sequence and not item.went_well:
                    self._withdraw()
            self._deliver(item)
        self._begin_sequence()
        if self._expects_short_jobs():
            self._fed.set()

    def _begin_sequence(self) -> None:
        if self._in_flight == len(self._slow) and self._typical_sec < _SHORT_SEC:
            self._sequence = True

    async def _watch_time(self, job: Job, timeout_sec: float) -> None:
        await anyio.sleep(timeout_sec)
        if self._running.get(job.key) is job:
            self._deliver(Overran(job))

    def _withdraw(self) -> None:
        """Hand back what has not begun. It ends the sequence, if there is one."""
        with self._lock:
            self._sequence = self._held = False
            self._current = None
            jobs = list(self._feed)
            self._feed.clear()
        self._in_flight -= len(jobs)
        self._deliver(Withdrawn(jobs))

    def _wake_another(self) -> None:
        """Wake a sleeping thread, or enter one. The lock is held."""
        if self._asleep:
            self._asleep.pop().release()
        elif self._entered < self._max_workers:
            self._entered += 1
            self._tasks.start_soon(self._enter)

    # ---- in the threads ----

    def _work(self) -> None:
        # The run's context, in which anyio has noted that no event loop runs in this thread.
        context = contextvars.copy_context()
        sleeper = threading.Semaphore(0)
        worker = f"thread-{next(self._numbers)}"
        while (job := self._next(sleeper)) is not None:
            self._news.append(Begun(job, worker))
            if not self._sequence:
                self._waker.wake()  # it may take long, and somebody may be watching
            # A copy for each node: what one sets in its context is seen by no other.
            outcome = context.copy().run(call, job, "local", self._cancellation)
            with self._lock:
                self._end(outcome)
            self._waker.wake()

    def _next(self, sleeper: threading.Semaphore) -> Job | None:
        """Return the next job, sleeping until there is one; None when the workers stop."""
        while True:
            with self._lock:
                if self._stopped:
                    return None
                if self._feed and not (self._sequence and (self._held or self._current)):
                    job = self._feed.popleft()
                    self._current = job if self._sequence else None
                    return job
                self._asleep.append(sleeper)
            sleeper.acquire()

    def _end(self, outcome: Outcome) -> None:
        """Note how a job ended. The lock is held."""
        self._ended += 1
        self._typical_sec += _WEIGHT * (outcome.duration_sec - self._typical_sec)
        if self._current is outcome.job:
            self._current = None
            self._held = not outcome.went_well
        self._stopped |= outcome.ends_a_run and self._stop_on_failure
        self._news.append(outcome)


def _nobody(news: News) -> None:
    """Take what abandoned threads have to tell, when nobody is there any more to hear it."""
