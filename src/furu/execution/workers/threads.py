"""Threads: the default kind, for every node that is not async.

A hop from the loop to a thread and back costs more than storing a small node does, and threads that
compute tiny nodes fight for the interpreter's lock. So a thread, once entered, stays: it takes jobs from
a feed that the loop fills, and what it has to tell is handed back in batches, one wake-up of the loop for
many. And how many threads take jobs follows the nodes:

    in sequence   while nodes are short: one thread, one job after another, with a feed before it
    in parallel   as soon as none has ended for a moment: as many threads as jobs, and no feed

In sequence a job may follow on one that it depends on. So a job that does not go well ends the sequence:
what is left of the feed is handed back. So does a slow job, and the next sequence is computed beside it.

At most `max_workers` threads are entered, each through one `run_sync` under a limiter of the run's own.
"""

from __future__ import annotations

import contextlib
import contextvars
import itertools
import math
import threading
import time
from collections import deque

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup

from furu.context import Cancellation
from furu.errors import FuruError
from furu.execution.workers.base import Begun, Crew, Deliver, Job, News, Outcome, Overran, Withdrawn
from furu.execution.workers.call import call, drop_frames, failed_outcome
from furu.execution.workers.wake import Waker

# With jobs in the feed and none ended for so long, nodes are not short.
_PATIENCE_SEC = 0.0025
# A feed lasts about as long as the loop is patient; refilled before it runs dry.
_FEED = 64
_FEED_LOW = 16
# In parallel, after so many jobs of which each took less than this, by its own clock or by the pace of all
# (where threads fight for the interpreter, a job's own clock says little), another sequence is tried. In
# sequence short nodes are several times as fast; a try that a slow node ends at once costs the patience.
_TRY_AFTER = 64
_SHORT_SEC = 0.0005
_TRY_AFTER_MOST = 4096


class ThreadWorkers:
    """Computes nodes in threads, at most `max_workers` at once, under a limiter of the run's own."""

    def open(self, tasks: TaskGroup, deliver: Deliver, *, max_workers: int, stop_on_failure: bool) -> Crew:
        """Begin a run; threads are entered when there is work for them."""
        return _ThreadCrew(tasks, deliver, max_workers, stop_on_failure)


class _ThreadCrew:
    """The loop calls `start`, `has_room` and `stop`, the threads run `_work`; what both change is changed
    under `_lock`."""

    def __init__(self, tasks: TaskGroup, deliver: Deliver, max_workers: int, stop_on_failure: bool) -> None:
        self._tasks = tasks
        self._deliver = deliver
        self._stop_on_failure = stop_on_failure
        self._waker = Waker(self._tell)
        self._limiter = anyio.CapacityLimiter(max_workers)
        self._max_workers = max_workers
        self._in_flight: set[str] = set()
        self._beside: set[str] = set()  # those in flight that are not of the sequence
        self._fed = anyio.Event()
        self._try_after = _TRY_AFTER
        # When counting for the next try began, how many jobs had ended and what they had taken.
        self._counted = (0.0, 0, 0.0)

        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._feed: deque[Job] = deque()
        self._news: deque[News] = deque()
        self._entered = 0  # threads in `_work`, or on their way there
        self._are_daemons = False
        self._working = 0  # threads in `_work`
        self._gone = threading.Semaphore(0)  # released by each as it leaves
        # A thread is known by what it sleeps on.
        self._asleep: list[threading.Semaphore] = []
        self._sequence = True
        self._runner: threading.Semaphore | None = None  # the thread that computes the sequence
        self._held = False  # a job of the sequence did not go well, and the loop does not know yet
        self._ended = 0  # jobs, ever
        self._spent_sec = 0.0  # on them
        self._stopped = False
        self._cancellation = Cancellation()
        self._running: dict[str, Job] = {}  # as the loop knows them
        # When those with a time limit will have overrun it, and the time that is waited for.
        self._due: dict[str, float] = {}
        self._next_due = math.inf
        self._sooner = anyio.Event()
        self._scopes: set[anyio.CancelScope] = set()
        tasks.start_soon(self._watch)
        tasks.start_soon(self._watch_time)

    @property
    def in_sequence(self) -> bool:
        """Whether jobs are computed one after another, as long as they go well."""
        return self._sequence

    def has_room(self, spec_key: str) -> bool:
        """Whether a thread is free or, in sequence, there is room in the feed."""
        if self._sequence:
            beside = len(self._beside)
            return beside < self._max_workers and len(self._in_flight) - beside <= _FEED
        return len(self._in_flight) < self._max_workers

    def start(self, job: Job) -> None:
        """Feed a job to the threads."""
        self._in_flight.add(job.key)
        with self._lock:
            self._feed.append(job)
            if not self._sequence:
                self._wake_another()
            elif self._runner is None:
                self._runner = self._wake_another()
        if self._sequence:
            self._fed.set()

    def stop(self, *, cancel: bool) -> None:
        """Begin nothing more, and let the threads go as they end what they have."""
        with self._lock:
            self._stopped = True
            self._cancellation.requested |= cancel  # a node that ends because of it is the last
            for sleeper in self._asleep:
                sleeper.release()
            self._asleep.clear()
        self._tell()
        self._withdraw()

    def abandon(self) -> list[Job]:
        """Leave the threads that still compute: each ends its node, and publishes it, by itself."""
        self._cancellation.requested = True
        self._tell()
        self._deliver = _drop
        for scope in self._scopes:
            scope.cancel()
        left = list(self._running.values())
        if left and self._are_daemons:  # trio's, which die with the interpreter: see that it waits
            with contextlib.suppress(RuntimeError):  # no thread can be started: then it does not wait
                threading.Thread(target=self._wait_all_left, name="furu-abandoned").start()
        return left

    # ---- on the loop ----

    async def _enter(self, sleeper: threading.Semaphore) -> None:
        try:
            # A thread is left only by `abandon`: a cancelled run lets its nodes finish.
            with anyio.CancelScope(shield=True) as scope:
                self._scopes.add(scope)
                await anyio.to_thread.run_sync(
                    self._work, sleeper, abandon_on_cancel=True, limiter=self._limiter
                )
        except Exception as error:  # no thread could be started
            with self._lock:
                self._do_without(sleeper, error)
        self._tell()

    def _do_without(self, sleeper: threading.Semaphore, error: Exception) -> None:
        """Leave a job to the threads that there are; if there is none, it fails. The lock is held."""
        self._entered -= 1
        if self._feed and not self._entered:
            job = self._feed.popleft()
            self._news.append(Begun(job, "thread-none"))
            no_thread = FuruError(
                f"no thread could be started to compute it ({error}): raise the limit of this user's "
                "processes and threads (ulimit -u), or the memory limit"
            )
            self._end(failed_outcome(job, no_thread, time.monotonic()), sleeper)
        if self._runner is sleeper:
            self._runner = None
        if self._feed and self._runner is None and (self._asleep or not self._entered):
            woken = self._wake_another()
            self._runner = woken if self._sequence else None

    async def _watch(self) -> None:
        """Hear of the sequence every so often, and end it when none of its jobs has ended meanwhile."""
        quiet = 0  # how often in a row
        while True:
            self._fed = anyio.Event()
            if not self._has_sequence():
                await self._fed.wait()
            ended = self._ended
            due = anyio.current_time() + _PATIENCE_SEC
            await anyio.sleep(_PATIENCE_SEC)
            quiet = quiet + 1 if ended == self._ended and self._has_sequence() else 0
            # Where the loop itself runs late, the threads may not have had their turn either.
            late = anyio.current_time() > due + _PATIENCE_SEC
            self._tell()
            if quiet > late and self._has_sequence():
                self._withdraw()
                self._tell()  # what ended in between found a full feed, and did not wake the loop

    def _has_sequence(self) -> bool:
        return self._sequence and len(self._in_flight) > len(self._beside)

    def _tell(self) -> None:
        """Hand on what the threads have to tell, and try a new sequence when the time has come."""
        while self._news:
            item = self._news.popleft()
            if isinstance(item, Begun):
                self._running[item.job.key] = item.job
                if item.job.node._timeout_sec is not None:
                    self._limit_time(item.job, item.job.node._timeout_sec)
            elif isinstance(item, Outcome):
                key = item.job.key
                del self._running[key]
                self._due.pop(key, None)
                self._in_flight.discard(key)
                if key in self._beside:
                    self._beside.discard(key)
                elif self._sequence and not item.went_well:
                    self._withdraw()
            self._deliver(item)
        if not self._sequence:
            self._try_sequence()

    def _limit_time(self, job: Job, timeout_sec: float) -> None:
        due = self._due[job.key] = anyio.current_time() + timeout_sec
        if due < self._next_due:
            self._sooner.set()

    async def _watch_time(self) -> None:
        """Report each job that overruns its time limit, once."""
        while True:
            self._sooner = anyio.Event()
            self._next_due = min(self._due.values(), default=math.inf)  # few: only of those that run
            with anyio.move_on_at(self._next_due):
                await self._sooner.wait()
            now = anyio.current_time()
            for key in [key for key, due in self._due.items() if due <= now]:
                del self._due[key]
                self._deliver(Overran(self._running[key]))

    def _try_sequence(self) -> None:
        with self._lock:
            since, ended, spent_sec = self._counted
            count = self._ended - ended
            if count < self._try_after or self._feed:
                return
            took_sec = min(time.monotonic() - since, self._spent_sec - spent_sec)
            self._counted = (time.monotonic(), self._ended, self._spent_sec)
            if took_sec < count * _SHORT_SEC:
                self._try_after = min(2 * self._try_after, _TRY_AFTER_MOST)
                self._beside = set(self._in_flight)
                self._sequence = True

    def _withdraw(self) -> None:
        """Hand back what has not begun. It ends the sequence, if there is one."""
        with self._lock:
            if self._sequence and self._ended - self._counted[1] > _TRY_AFTER:
                self._try_after = _TRY_AFTER
            self._counted = (time.monotonic(), self._ended, self._spent_sec)
            self._sequence = self._held = False
            self._runner = None
            jobs = list(self._feed)
            self._feed.clear()
        self._in_flight.difference_update([job.key for job in jobs])
        self._deliver(Withdrawn(jobs))

    def _wake_another(self) -> threading.Semaphore | None:
        """Wake a sleeping thread, or enter one; None if all are at work. The lock is held."""
        if self._asleep:
            sleeper = self._asleep.pop()
            sleeper.release()
            return sleeper
        if self._entered == self._max_workers:
            return None
        self._entered += 1
        sleeper = threading.Semaphore(0)
        self._tasks.start_soon(self._enter, sleeper)
        return sleeper

    # ---- in the threads ----

    def _work(self, sleeper: threading.Semaphore) -> None:
        with self._lock:
            worker = f"thread-{next(self._numbers)}"
            self._are_daemons = threading.current_thread().daemon
            self._working += 1
        try:
            self._take_jobs(sleeper, worker)
        finally:
            with self._lock:
                self._working -= 1
            self._gone.release()

    def _wait_all_left(self) -> None:
        while self._working:
            self._gone.acquire()

    def _take_jobs(self, sleeper: threading.Semaphore, worker: str) -> None:
        # The run's context, in which anyio has noted that no event loop runs in this thread.
        context = contextvars.copy_context()
        while (taken := self._next(sleeper)) is not None:
            job, in_sequence = taken
            self._news.append(Begun(job, worker))
            if not in_sequence:
                self._waker.wake()  # it may take long, and the run's events are watched
            # A copy for each node: what one sets in its context is seen by no other.
            outcome = context.copy().run(call, job, "local", self._cancellation)
            if not self._stop_on_failure:  # many may fail before the run ends
                drop_frames(outcome.error)
            with self._lock:
                self._end(outcome, sleeper)
                # In sequence the loop hears of it soon enough, as long as there is more to do.
                urgent = self._held or self._runner is not sleeper or len(self._feed) < _FEED_LOW
            if urgent:
                self._waker.wake()
        self._waker.wake()

    def _next(self, sleeper: threading.Semaphore) -> tuple[Job, bool] | None:
        """Return the next job and whether it is one of a sequence, sleeping until there is one; None when
        the workers stop."""
        while True:
            with self._lock:
                if self._stopped:
                    return None
                if (
                    self._feed
                    and not self._held
                    and not (self._sequence and self._is_run_by_another(sleeper))
                ):
                    if self._sequence:
                        self._runner = sleeper
                    return self._feed.popleft(), self._sequence
                if self._runner is sleeper:
                    self._runner = None
                self._asleep.append(sleeper)
            sleeper.acquire()

    def _is_run_by_another(self, sleeper: threading.Semaphore) -> bool:
        return self._runner is not None and self._runner is not sleeper

    def _end(self, outcome: Outcome, sleeper: threading.Semaphore) -> None:
        """Note how a job ended. The lock is held."""
        self._ended += 1
        self._spent_sec += outcome.duration_sec
        # What is left of an earlier sequence has no say in this one.
        self._held |= self._runner is sleeper and not outcome.went_well
        self._stopped |= outcome.ends_a_run and self._stop_on_failure
        self._news.append(outcome)


def _drop(news: News) -> None:
    """Drop news from abandoned threads, which come after the run."""
