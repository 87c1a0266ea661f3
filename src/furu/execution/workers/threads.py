"""Workers in threads: the default for all nodes that are not async.

Passing a job from the loop to a thread and back costs more than storing a small node. So each thread
makes one long call, `_work`, which takes jobs from a queue until the run stops. Its news is passed back in
batches, with one wake-up of the loop for many jobs. `serial.py` decides how many threads take jobs:

    serial      while nodes are short: one thread, the runner, takes one job after another
    parallel    if no job has ended for a moment: as many threads as jobs, and no queue

In serial mode a job in the queue may depend on an earlier one. So a job that does not succeed ends serial
mode, and the rest of the queue is handed back. A slow job does the same, and the next jobs run beside it.

At most `max_workers` threads are entered, each by one `run_sync` under a limiter of the run's own.
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

# A full queue lasts about as long as the patience of serial mode. It is refilled before it is empty.
_QUEUE = 64
_QUEUE_LOW = 16


class ThreadWorkers:
    """Computes nodes in threads, at most `max_workers` at once, under a limiter of its own.

    `policy` makes a policy of serial mode for each run.
    """

    def __init__(self, *, policy: Callable[[], SerialPolicy] = SerialPolicy) -> None:
        self._policy = policy

    def open(self, tasks: TaskGroup, deliver: Deliver, *, max_workers: int, stop_on_failure: bool) -> Crew:
        """Begin a run. Threads are entered when there is work for them."""
        return _ThreadCrew(tasks, deliver, max_workers, stop_on_failure, self._policy())


class _Thread:
    """One of the threads, with the semaphore that it sleeps on and its clock of processor time."""

    __slots__ = ("_cpu_clock", "wakes")

    def __init__(self) -> None:
        self.wakes = threading.Semaphore(0)
        self._cpu_clock: int | None = None

    def entered(self) -> None:
        """Note that the thread runs. Called first in the thread."""
        if hasattr(time, "pthread_getcpuclockid"):  # not on macOS and Windows
            self._cpu_clock = time.pthread_getcpuclockid(threading.get_ident())

    def cpu_sec(self) -> float:
        """Return the processor time that the thread has used; 0.0 if it is unknown."""
        if self._cpu_clock is None:
            return 0.0
        try:
            return time.clock_gettime(self._cpu_clock)
        except OSError:  # the thread has ended
            return 0.0


class _ThreadCrew:
    """The loop calls `start`, `has_room` and `stop`, and the threads run `_work`. `_lock` guards the state
    that both change."""

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
        self._gone = threading.Semaphore(0)  # released by each thread when it leaves
        self._asleep: list[_Thread] = []
        self._policy = policy
        self._runner: _Thread | None = None  # the thread that computes serially
        self._held = False  # a job in serial mode did not succeed, and the loop does not know yet
        self._ended = 0  # the number of jobs that have ended
        self._jobs_wall_sec = self._jobs_cpu_sec = 0.0
        self._stopped = False
        self._cancellation = Cancellation()
        self._running: dict[str, Job] = {}  # jobs that the loop knows to be running
        # When jobs will exceed their time limits, and the time for which the loop waits.
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
        """Whether a thread is free, or in serial mode, whether there is room in the queue."""
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
        """Begin no more jobs. Each thread leaves when its job has ended."""
        with self._lock:
            self._stopped = True
            self._cancellation.requested |= cancel
            for thread in self._asleep:
                thread.wakes.release()
            self._asleep.clear()
        self._tell()
        self._withdraw()

    def abandon(self) -> list[Job]:
        """Leave the threads that still compute. Each finishes and publishes its node by itself."""
        self._cancellation.requested = True
        self._tell()
        self._deliver = _drop
        for scope in self._scopes:
            scope.cancel()
        left = list(self._running.values())
        if left and self._are_daemons:  # trio's threads: make the interpreter wait for them before it exits
            with contextlib.suppress(RuntimeError):  # no thread can be started, so it will not wait
                threading.Thread(target=self._wait_all_left, name="furu-abandoned").start()
        return left

    # ---- on the loop ----

    async def _enter(self, thread: _Thread) -> None:
        try:
            # Only `abandon` leaves a thread: a cancelled run lets its nodes finish.
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
        """Leave a job to the other threads. If there are none, it fails. The lock is held."""
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
        """Check serial mode at intervals, and leave it if its jobs are slow."""
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
                self._tell()  # a job that ended in between found a full queue, and did not wake the loop

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
        )

    def _tell(self) -> None:
        """Deliver the threads' news, and try serial mode again if it is due."""
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
            self._next_due = min(self._due.values(), default=math.inf)  # few: only running jobs
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
        """Wake a sleeping thread, or enter a new one; None if all are busy. The lock is held."""
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
        # The run's context, in which anyio has noted that no event loop runs in this thread.
        context = contextvars.copy_context()
        while (taken := self._next(thread)) is not None:
            job, is_serial = taken
            self._news.append(Begun(job, worker))
            cpu_sec = 0.0
            if not is_serial:
                self._waker.wake()  # the job may take long, and its `Begun` is an event of the run
                cpu_sec = -time.thread_time()
            # In a copy of the context, so that no other node sees what this one sets.
            outcome = context.copy().run(call, job, "local", self._cancellation)
            if not self._stop_on_failure:  # many may fail before the run ends
                drop_frames(outcome.error)
            if not is_serial:
                cpu_sec += time.thread_time()
            with self._lock:
                self._end(outcome, thread, cpu_sec)
                # In serial mode the loop looks soon enough, as long as the queue is not almost empty.
                urgent = self._held or self._runner is not thread or len(self._queue) < _QUEUE_LOW
            if urgent:
                self._waker.wake()
        self._waker.wake()

    def _next(self, thread: _Thread) -> tuple[Job, bool] | None:
        """Wait for the next job, and return it and whether it is computed serially; None if the workers
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
        """Note how a job ended. The lock is held."""
        self._ended += 1
        self._jobs_wall_sec += outcome.duration_sec
        self._jobs_cpu_sec += cpu_sec
        # Only a job of the current runner affects serial mode.
        self._held |= self._runner is thread and not outcome.went_well
        self._stopped |= outcome.ends_a_run and self._stop_on_failure
        self._news.append(outcome)


def _drop(news: News) -> None:
    """Drop the news of abandoned threads, which comes after the run."""
