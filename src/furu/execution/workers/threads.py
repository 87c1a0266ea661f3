"""Workers in threads: the default for all nodes that are not async.

Passing a job from the loop to a thread and back takes longer than storing a small node. So each thread
runs one long call, `_work`, which takes jobs from a queue until the run stops. Threads pass back their news
in batches, so that the loop wakes once for many jobs. `serial.py` decides how many threads take jobs:

    serial      while jobs are short: one thread, the runner, computes one job after another
    parallel    otherwise: each job has a thread to itself, and no job waits in the queue

In serial mode, a job in the queue may depend on an earlier job. So if a job does not succeed, serial mode
ends, and the rest of the queue is handed back. A slow job also ends serial mode: other jobs run beside it.

At most `max_workers` threads are started, each with one `run_sync` under the run's own limiter.
"""

from __future__ import annotations

import contextlib
import contextvars
import itertools
import math
import threading
import time
from collections import deque
from collections.abc import Callable

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup

from furu._common.loops import Waker
from furu.context import Cancellation
from furu.errors import FuruError
from furu.execution.workers.base import Begun, Crew, Deliver, Job, News, Outcome, Overran, Withdrawn
from furu.execution.workers.call import call, drop_frames, failed_outcome
from furu.execution.workers.serial import SerialPolicy, Usage
from furu.node.base import timeout_sec_of

__all__ = ["ThreadWorkers"]

# The runner empties a full queue of short jobs in about `patience_sec`. The loop refills the queue before
# it is empty.
_QUEUE = 64
_QUEUE_LOW = 16


class ThreadWorkers:
    """Computes nodes in threads, at most `max_workers` at once. Each run has its own limiter.

    `policy` is called for each run, and returns the run's policy of serial mode.
    """

    def __init__(self, *, policy: Callable[[], SerialPolicy] = SerialPolicy) -> None:
        self._policy = policy

    def open(self, tasks: TaskGroup, deliver: Deliver, *, max_workers: int, stop_on_failure: bool) -> Crew:
        """Open a crew for a run. Threads are started when there are jobs for them."""
        return _ThreadCrew(tasks, deliver, max_workers, stop_on_failure, self._policy())


class _Thread:
    """A thread of the crew, with the semaphore that it sleeps on and the clock of its processor time."""

    __slots__ = ("_cpu_clock", "wakes")

    def __init__(self) -> None:
        self.wakes = threading.Semaphore(0)
        self._cpu_clock: int | None = None

    def entered(self) -> None:
        """Look up the thread's clock. Called in the thread, before it takes jobs."""
        if hasattr(time, "pthread_getcpuclockid"):  # not on macOS and Windows
            self._cpu_clock = time.pthread_getcpuclockid(threading.get_ident())

    def cpu_sec(self) -> float:
        """Return the processor time that the thread has used, or 0.0 if it is unknown."""
        if self._cpu_clock is None:
            return 0.0
        try:
            return time.clock_gettime(self._cpu_clock)
        except OSError:  # the thread has ended
            return 0.0


class _ThreadCrew:
    """The loop calls `start`, `has_room` and `stop`, and the threads run `_work`. `_lock` guards the state
    that both the loop and the threads change."""

    def __init__(
        self,
        tasks: TaskGroup,
        deliver: Deliver,
        max_workers: int,
        stop_on_failure: bool,
        policy: SerialPolicy,
    ) -> None:
        self._tasks = tasks
        self._deliver = deliver
        self._stop_on_failure = stop_on_failure
        self._waker = Waker(self._tell)
        self._limiter = anyio.CapacityLimiter(max_workers)
        self._max_workers = max_workers
        self._in_flight: set[str] = set()
        self._beside: set[str] = set()  # jobs in flight that began in parallel mode
        self._fed = anyio.Event()

        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._queue: deque[Job] = deque()
        self._news: deque[News] = deque()
        self._entered = 0  # threads in `_work`, or about to enter it
        self._are_daemons = False
        self._working = 0  # threads in `_work`
        self._gone = threading.Semaphore(0)  # released by each thread when it leaves `_work`
        self._asleep: list[_Thread] = []
        self._policy = policy
        self._runner: _Thread | None = None  # the thread that computes jobs in serial mode
        self._held = False  # a job in serial mode did not succeed, and the loop does not know this yet
        self._ended = 0  # the number of jobs that have ended
        self._jobs_wall_sec = self._jobs_cpu_sec = self._create_sec = 0.0
        self._stopped = False
        self._cancellation = Cancellation()
        self._running: dict[str, Job] = {}  # jobs that the loop knows to be running
        # When each running job exceeds its time limit, and the time until which `_watch_time` sleeps.
        self._due: dict[str, float] = {}
        self._next_due = math.inf
        self._sooner = anyio.Event()
        self._scopes: set[anyio.CancelScope] = set()
        tasks.start_soon(self._watch)
        tasks.start_soon(self._watch_time)

    @property
    def is_serial(self) -> bool:
        """Whether jobs are computed one after another, as long as they succeed."""
        return self._policy.is_serial

    def has_room(self, spec_key: str) -> bool:
        """Whether a thread is free or, in serial mode, whether the queue has room."""
        if self._policy.is_serial:
            beside = len(self._beside)
            return beside < self._max_workers and len(self._in_flight) - beside <= _QUEUE
        return len(self._in_flight) < self._max_workers

    def start(self, job: Job) -> None:
        """Queue a job for the threads."""
        self._in_flight.add(job.key)
        with self._lock:
            self._queue.append(job)
            if not self._policy.is_serial:
                self._wake_another()
            elif self._runner is None:
                self._runner = self._wake_another()
        if self._policy.is_serial:
            self._fed.set()

    def stop(self, *, cancel: bool) -> None:
        """Begin no more jobs. Each thread finishes its current job, and then leaves `_work`."""
        with self._lock:
            self._stopped = True
            self._cancellation.requested |= cancel
            for thread in self._asleep:
                thread.wakes.release()
            self._asleep.clear()
        self._tell()
        self._withdraw()

    def abandon(self) -> list[Job]:
        """Stop waiting for the threads that still compute. They finish and publish their nodes on their
        own."""
        self._cancellation.requested = True
        self._tell()
        self._deliver = _drop
        for scope in self._scopes:
            scope.cancel()
        left = list(self._running.values())
        if left and self._are_daemons:  # as on trio: the interpreter would not wait for them at its exit
            with contextlib.suppress(RuntimeError):  # no thread can be started, so it will not wait
                threading.Thread(target=self._wait_all_left, name="furu-abandoned").start()
        return left

    # ---- on the loop ----

    async def _enter(self, thread: _Thread) -> None:
        try:
            # Only `abandon` cancels this scope: a cancelled run waits for its running nodes.
            with anyio.CancelScope(shield=True) as scope:
                self._scopes.add(scope)
                await anyio.to_thread.run_sync(
                    self._work, thread, abandon_on_cancel=True, limiter=self._limiter
                )
        except Exception as error:  # no thread could be started
            with self._lock:
                self._do_without(thread, error)
        self._tell()

    def _do_without(self, thread: _Thread, error: Exception) -> None:
        """Continue without a thread that could not be started: other threads compute its job. If there are
        no other threads, a job fails. The caller holds the lock."""
        self._entered -= 1
        if self._queue and not self._entered:
            job = self._queue.popleft()
            self._news.append(Begun(job, "thread-none"))
            no_thread = FuruError(
                f"no thread could be started to compute it ({error}): raise the limit of this user's "
                "processes and threads (ulimit -u), or the memory limit"
            )
            self._end(failed_outcome(job, no_thread, time.monotonic()), thread, 0.0)
        if self._runner is thread:
            self._runner = None
        if self._queue and self._runner is None and (self._asleep or not self._entered):
            woken = self._wake_another()
            self._runner = woken if self._policy.is_serial else None

    async def _watch(self) -> None:
        """Check the jobs of serial mode at intervals, and leave serial mode if they are slow."""
        while True:
            patience_sec = self._policy.patience_sec
            self._fed = anyio.Event()
            if not self._has_serial_jobs():
                await self._fed.wait()
            before = self._usage()
            due = anyio.current_time() + patience_sec
            await anyio.sleep(patience_sec)
            is_late = anyio.current_time() > due + patience_sec
            slow = self._has_serial_jobs() and self._policy.is_slow(before, self._usage(), is_late=is_late)
            self._tell()
            if slow and self._has_serial_jobs():
                self._withdraw()
                self._tell()  # a job that ended meanwhile saw a full queue, so it did not wake the loop

    def _has_serial_jobs(self) -> bool:
        return self._policy.is_serial and len(self._in_flight) > len(self._beside)

    def _usage(self) -> Usage:
        runner = self._runner
        return Usage(
            wall_sec=time.monotonic(),
            process_cpu_sec=time.process_time(),
            runner_cpu_sec=runner.cpu_sec() if runner is not None else 0.0,
            ended=self._ended,
            jobs_wall_sec=self._jobs_wall_sec,
            jobs_cpu_sec=self._jobs_cpu_sec,
            create_sec=self._create_sec,
        )

    def _tell(self) -> None:
        """Deliver the threads' news, and try serial mode again if the policy says that it is time."""
        while self._news:
            item = self._news.popleft()
            if isinstance(item, Begun):
                self._running[item.job.key] = item.job
                self._limit_time(item.job, timeout_sec_of(item.job.node))
            elif isinstance(item, Outcome):
                key = item.job.key
                del self._running[key]
                self._due.pop(key, None)
                self._in_flight.discard(key)
                if key in self._beside:
                    self._beside.discard(key)
                elif self._policy.is_serial and not item.went_well:
                    self._withdraw()
            self._deliver(item)
        if not self._policy.is_serial and self._policy.is_due(self._ended):
            self._try_serial()

    def _limit_time(self, job: Job, timeout_sec: float | None) -> None:
        if timeout_sec is None:
            return
        due = self._due[job.key] = anyio.current_time() + timeout_sec
        if due < self._next_due:
            self._sooner.set()

    async def _watch_time(self) -> None:
        """Report each job that exceeds its time limit, once."""
        while True:
            self._sooner = anyio.Event()
            self._next_due = min(self._due.values(), default=math.inf)  # fast: only running jobs are in it
            with anyio.move_on_at(self._next_due):
                await self._sooner.wait()
            now = anyio.current_time()
            for key in [key for key, due in self._due.items() if due <= now]:
                del self._due[key]
                self._deliver(Overran(self._running[key]))

    def _try_serial(self) -> None:
        with self._lock:
            if not self._queue and self._policy.try_again(self._usage()):
                self._beside = set(self._in_flight)

    def _withdraw(self) -> None:
        """Leave serial mode, and hand back the jobs that have not begun."""
        with self._lock:
            self._policy.leave(self._usage())
            self._held = False
            self._runner = None
            jobs = list(self._queue)
            self._queue.clear()
        self._in_flight.difference_update([job.key for job in jobs])
        self._deliver(Withdrawn(jobs))

    def _wake_another(self) -> _Thread | None:
        """Wake a sleeping thread or start a new one, and return it. Returns None if all threads are busy.
        The caller holds the lock."""
        if self._asleep:
            thread = self._asleep.pop()
            thread.wakes.release()
            return thread
        if self._entered == self._max_workers:
            return None
        self._entered += 1
        thread = _Thread()
        self._tasks.start_soon(self._enter, thread)
        return thread

    # ---- in the threads ----

    def _work(self, thread: _Thread) -> None:
        thread.entered()
        with self._lock:
            worker = f"thread-{next(self._numbers)}"
            self._are_daemons = threading.current_thread().daemon
            self._working += 1
        try:
            self._take_jobs(thread, worker)
        finally:
            with self._lock:
                self._working -= 1
            self._gone.release()

    def _wait_all_left(self) -> None:
        while self._working:
            self._gone.acquire()

    def _take_jobs(self, thread: _Thread, worker: str) -> None:
        # This is the run's context. anyio has recorded in it that no event loop runs in this thread.
        context = contextvars.copy_context()
        while (taken := self._next(thread)) is not None:
            job, is_serial = taken
            self._news.append(Begun(job, worker))
            cpu_sec = 0.0
            if not is_serial:
                self._waker.wake()  # deliver `Begun` now, because the job may take long
                cpu_sec = -time.thread_time()
            # In a copy of the context, so that context variables that a node sets do not reach other nodes.
            outcome = context.copy().run(call, job, "local", self._cancellation)
            if not self._stop_on_failure:  # many jobs may fail before the run ends: keep no frames
                drop_frames(outcome.error)
            if not is_serial:
                cpu_sec += time.thread_time()
            with self._lock:
                self._end(outcome, thread, cpu_sec)
                # In serial mode, `_watch` delivers news soon enough, unless the queue is almost empty.
                urgent = self._held or self._runner is not thread or len(self._queue) < _QUEUE_LOW
            if urgent:
                self._waker.wake()
        self._waker.wake()

    def _next(self, thread: _Thread) -> tuple[Job, bool] | None:
        """Wait for the next job. Returns the job and whether it runs in serial mode, or None if the workers
        have stopped."""
        while True:
            with self._lock:
                if self._stopped:
                    return None
                is_serial = self._policy.is_serial
                if self._queue and not self._held and not (is_serial and self._is_run_by_another(thread)):
                    if is_serial:
                        self._runner = thread
                    return self._queue.popleft(), is_serial
                if self._runner is thread:
                    self._runner = None
                self._asleep.append(thread)
            thread.wakes.acquire()

    def _is_run_by_another(self, thread: _Thread) -> bool:
        return self._runner is not None and self._runner is not thread

    def _end(self, outcome: Outcome, thread: _Thread, cpu_sec: float) -> None:
        """Record the outcome of a job. The caller holds the lock."""
        self._ended += 1
        self._jobs_wall_sec += outcome.duration_sec
        self._jobs_cpu_sec += cpu_sec
        self._create_sec += outcome.create_sec
        # Only a job of the current runner affects serial mode.
        self._held |= self._runner is thread and not outcome.went_well
        self._stopped |= outcome.ends_a_run and self._stop_on_failure
        self._news.append(outcome)


def _drop(news: News) -> None:
    """Ignore the news of abandoned threads."""
