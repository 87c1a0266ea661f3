"""The loop of a run: ask for room, take what is ready, dispatch it; wait; reap all that happened; again.

One task owns the plan, the window and the nodes, so nothing here is locked. Everything that happens
elsewhere (what discovery found, how a job ended) comes through one inbox. Never touches disk.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable
from typing import Any, Literal

import anyio
import anyio.to_thread

from furu.core import Furu
from furu.errors import Failure, FuruComputeError, FuruStalledError
from furu.execution.discovery import Batch, Discovery, Found, RootRead, RootWalked
from furu.execution.events import (
    Event,
    NodeDone,
    NodeFailed,
    NodeReused,
    NodeStarted,
    NodeWaiting,
    RootActivated,
    RootCompleted,
)
from furu.execution.plan import Plan, State
from furu.execution.window import Window
from furu.execution.workers.base import Begun, Job, Lane, News, Outcome, Withdrawn, Workers
from furu.store.artifact import Status

OnFailure = Literal["stop", "continue"]


class Scheduler:
    """Runs one graph to one end: nodes with an `async def _create` on `async_workers`, others on
    `workers`."""

    def __init__(
        self,
        *,
        discovery: Discovery,
        window: Window,
        workers: Workers,
        async_workers: Workers,
        emit: Callable[[Event], None],
        poll_interval_sec: float,
        on_failure: OnFailure,
    ) -> None:
        self._discovery = discovery
        self._window = window
        self._workers = {False: workers, True: async_workers}
        self._emit = emit
        self._poll_interval_sec = poll_interval_sec
        self._on_failure = on_failure

        self._plan: Plan[Lane] = Plan()
        self._jobs: dict[str, Job] = {}
        self._running: set[str] = set()
        self._elsewhere: dict[str, Job] = {}
        self._next_look = 0.0
        # Active roots that are in the plan, with how often each was asked for.
        self._roots: Counter[str] = Counter()
        self._exhausted = False
        self._walking = True

        self._inbox: deque[News | BaseException] = deque()
        self._awake = anyio.Event()
        self._wanted = anyio.Event()
        self._stopping = False
        self._error: BaseException | None = None
        self._failures: list[Failure] = []
        self._lost = 0

    @property
    def failures(self) -> tuple[Failure, ...]:
        """The nodes that failed so far, in the order in which they did."""
        return tuple(self._failures)

    @property
    def skipped(self) -> int:
        """The nodes that are known and were not computed: not started, or below them one failed."""
        return self._lost + len(self._plan)

    async def run(self) -> None:
        """Run until everything is done, or a failure has stopped the run and the running nodes ended.

        Raises `FuruComputeError` if nodes failed; what discovery raised; a cancellation, after the
        running nodes have ended. What had ended by then is reaped in each case.
        """
        try:
            async with anyio.create_task_group() as tasks:
                try:
                    for workers in self._workers.values():
                        workers.open(tasks, self._deliver, stop_on_failure=self._on_failure == "stop")
                    tasks.start_soon(self._discover)
                    await self._loop()
                except Exception as error:  # raised below, where no task group wraps it
                    self._error = self._error or error
                finally:
                    self._stop()
                tasks.cancel_scope.cancel()
        finally:
            self._reap()
        if self._error is not None:
            raise self._error
        if self._failures:
            raise _run_error(self._failures)

    async def _loop(self) -> None:
        while True:
            self._dispatch()
            if self._is_over():
                return
            await self._awake.wait()
            self._awake = anyio.Event()
            self._reap()

    def _dispatch(self) -> None:
        while not self._stopping and (key := self._plan.get_ready(self._may_start)) is not None:
            job = self._jobs[key]
            workers = self._workers[job.lane.is_async]
            self._running.add(key)
            if workers.in_sequence:
                self._plan.presume_done(key)
            workers.start(job)

    def _may_start(self, lane: Lane, presuming: bool) -> bool:
        # Only one kind of workers computes in sequence, so what is presumed done is in its sequence.
        workers = self._workers[lane.is_async]
        return (workers.in_sequence or not presuming) and workers.has_room(lane.spec_key)

    def _is_over(self) -> bool:
        if self._running:
            return False
        if self._stopping:
            return True
        if self._walking or self._elsewhere or self._inbox:
            return False
        if self._exhausted and not self._plan:
            return True
        if self._exhausted or self._window.room() == 0:
            raise FuruStalledError(
                "the scheduler has nothing to do and is not done; this is a bug in furu. "
                f"State: {self._describe()}",
                state=self._describe(),
            )
        return False

    def _describe(self) -> str:
        counts = ", ".join(f"{state.value} {self._plan.count(state)}" for state in State)
        first = self._plan.in_state(State.BLOCKED)[:3]
        return f"{counts}; active roots {self._window.active}; first blocked {first}"

    # ---- the inbox ----

    def _deliver(self, item: News | BaseException) -> None:
        self._inbox.append(item)
        self._awake.set()

    def _reap(self) -> None:
        while self._inbox:
            item = self._inbox.popleft()
            if isinstance(item, Begun):
                self._emit(NodeStarted(item.job.key, item.job.name, item.job.spec_key))
            elif isinstance(item, Outcome):
                self._ended(item)
            elif isinstance(item, Withdrawn):
                keys = [job.key for job in item.jobs]
                self._running.difference_update(keys)
                self._plan.withdraw(keys)
            else:
                self._error = self._error or item
                self._stop()

    def _take(self, batch: Batch) -> None:
        for fact in batch.facts:
            self._learn(fact)
        self._exhausted, self._walking = batch.exhausted, not batch.idle
        self._awake.set()

    def _learn(self, fact: Found | RootRead | RootWalked) -> None:
        if isinstance(fact, RootRead):
            self._window.activated()
            self._emit(RootActivated(fact.job.key, fact.job.name, fact.number))
        elif isinstance(fact, RootWalked):
            if fact.key in self._plan:
                self._roots[fact.key] += 1
            else:
                self._root_completed(fact.key)
        elif fact.status is Status.TODO:
            self._found_todo(fact)
        elif fact.status is Status.IN_PROGRESS:
            if fact.job.key not in self._plan:
                self._plan.add_elsewhere(fact.job.key, fact.job.lane)
                self._wait_for(fact.job, "another process")
        elif fact.status is Status.DONE:
            self._reused(fact.job)
        elif fact.failure is not None:
            self._failed(fact.job, fact.failure, earlier=True)

    def _found_todo(self, fact: Found) -> None:
        job = fact.job
        self._elsewhere.pop(job.key, None)
        lost = self._plan.add(job.key, job.lane, fact.depends_on)
        if lost:
            self._lost += len(lost)
            self._leave(lost)
        else:
            self._jobs[job.key] = job

    def _ended(self, outcome: Outcome) -> None:
        job = outcome.job
        self._running.discard(job.key)
        if outcome.end == "computed":
            self._emit(NodeDone(job.key, job.name, job.spec_key, outcome.duration_sec))
            self._done(job)
        elif outcome.end == "reused":
            self._reused(job)
        elif outcome.end == "elsewhere":
            self._plan.elsewhere(job.key)
            self._wait_for(job, getattr(outcome.error, "owner", ""))
        elif isinstance(outcome.error, FuruComputeError):
            self._failed(job, outcome.error.failures[0])

    def _reused(self, job: Job) -> None:
        self._emit(NodeReused(job.key, job.name))
        if job.key in self._plan:
            self._done(job)

    def _done(self, job: Job) -> None:
        self._plan.done(job.key)
        self._discovery.forget(job.key)
        self._leave([job.key])

    def _failed(self, job: Job, failure: Failure, *, earlier: bool = False) -> None:
        self._failures.append(failure)
        self._emit(
            NodeFailed(job.key, job.name, job.spec_key, failure.message, failure.state_path, earlier)
        )
        lost = self._plan.failed(job.key)
        self._lost += len(lost)
        self._leave([job.key, *lost])
        if self._on_failure == "stop":
            self._stop()

    def _wait_for(self, job: Job, owner: str) -> None:
        if not self._elsewhere:
            self._next_look = anyio.current_time() + self._poll_interval_sec
        self._elsewhere[job.key] = job
        self._emit(NodeWaiting(job.key, job.name, owner))
        self._wanted.set()

    def _leave(self, keys: list[str]) -> None:
        """Nodes have left the plan: drop what is kept for them, and the roots among them complete."""
        for key in keys:
            self._jobs.pop(key, None)
            self._elsewhere.pop(key, None)
            for _ in range(self._roots.pop(key, 0)):
                self._root_completed(key)

    def _root_completed(self, key: str) -> None:
        self._window.completed()
        self._emit(RootCompleted(key))
        self._wanted.set()

    def _stop(self) -> None:
        """Start nothing more: neither nodes nor walks. What runs goes on to its end."""
        self._stopping = True
        self._discovery.stop()
        for workers in self._workers.values():
            workers.stop()

    # ---- discovery, one step at a time, in a thread ----

    async def _discover(self) -> None:
        """Walk on while there is something to walk; look again, every so often, at what is elsewhere."""
        limiter = anyio.CapacityLimiter(1)
        while not self._stopping:
            room, again = self._window.room(), self._to_look_at()
            if not (self._walking or again) and (self._exhausted or room == 0):
                await self._wait_until_wanted()
                continue
            self._walking = True
            batch = await anyio.to_thread.run_sync(self._step, room, again, limiter=limiter)
            if isinstance(batch, BaseException):
                self._deliver(batch)
                return
            try:
                # Now, not when the loop comes around: the next step depends on it.
                self._take(batch)
            except Exception as error:
                self._deliver(error)
                return

    def _step(self, room: int | None, again: list[Furu[Any]]) -> Batch | BaseException:
        """In a thread. An exception is a value here: a `CancelledError` that the caller's own generator
        raises would otherwise pass for one of the loop's."""
        try:
            return self._discovery.step(room, again)
        except BaseException as error:
            return error

    def _to_look_at(self) -> list[Furu[Any]]:
        """Return the nodes that other owners compute, when it is time to look at them again."""
        now = anyio.current_time()
        if not self._elsewhere or now < self._next_look:
            return []
        self._next_look = now + self._poll_interval_sec
        return [job.node for job in self._elsewhere.values()]

    async def _wait_until_wanted(self) -> None:
        """Wait until a root may be read, or until it is time to look at what other owners compute:
        nobody tells when another process is done, so that is polled, and nothing else is."""
        self._wanted = anyio.Event()
        with anyio.move_on_at(self._next_look if self._elsewhere else math.inf):
            await self._wanted.wait()


def _run_error(failures: list[Failure]) -> FuruComputeError:
    """Make one error of a run's failures: the first one's, naming how many others there are."""
    first = failures[0]
    message = first.message
    if len(failures) > 1:
        others = len(failures) - 1
        message += f" {others} other node{'s' if others > 1 else ''} failed too: see .failures."
    error = FuruComputeError(message, node=first.node, state_path=first.state_path, failures=failures)
    error.__cause__ = first.error
    return error
