"""The loop of a run: start ready nodes while workers have room, wait, process what has happened, repeat.

The plan, the window and the nodes are used only on the run's event loop, so they need no locks. News of
jobs and exceptions from discovery arrive in one inbox. The scheduler never accesses the disk.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import Literal

import anyio
import anyio.to_thread
import msgspec

import furu.events as events
from furu._common.loops import first_error
from furu.errors import Failure, FuruComputeError, FuruCycleError, FuruStalledError
from furu.execution.advances import Advances
from furu.execution.crews import QUESTIONS, Crews
from furu.execution.discovery import Batch, Found, RootRead, RootWalked, Source
from furu.execution.elsewhere import Elsewhere
from furu.execution.plan import Plan, State
from furu.execution.walk import Walk
from furu.execution.window import Window
from furu.execution.workers.base import Begun, Job, Lane, News, Outcome, Overran, Withdrawn, Workers
from furu.node.base import describe, retry_of, timeout_sec_of
from furu.node.dependencies import cycle_error
from furu.node.failure import run_error
from furu.observing.critical_path import Chain, CriticalPath
from furu.store.artifact import Status

logger = logging.getLogger("furu.run")

OnFailure = Literal["stop", "continue"]
Order = Literal["roots", "critical-path"]


class Scheduler:
    """Runs one graph: nodes with an `async def _create` on `async_workers`, all others on `workers`."""

    def __init__(
        self,
        *,
        discovery: Source,
        window: Window,
        workers: Workers,
        async_workers: Workers,
        max_workers: int,
        max_async: int,
        emit: Callable[[events.Event], None],
        poll_interval_sec: float,
        on_failure: OnFailure,
        spec_limits: Mapping[str, int],
        grace_sec: float | None,
        order: Order = "roots",
    ) -> None:
        self._discovery = discovery
        self._window = window
        self._walk = Walk(discovery, window, take=self._take, deliver=self._deliver, stepped=self._wake)
        self._crews = Crews(
            workers=workers,
            async_workers=async_workers,
            max_workers=max_workers,
            max_async=max_async,
            spec_limits=spec_limits,
        )
        self._emit = emit
        self._on_failure = on_failure
        self._grace_sec = grace_sec

        self._plan: Plan[Lane] = Plan(by_rank=order == "critical-path")
        self._critical_path = CriticalPath()
        self._jobs: dict[str, Job] = {}
        self._begun: dict[str, Begun] = {}
        # Failed nodes that wait for their next attempt.
        self._delayed: dict[str, Outcome] = {}
        self._elsewhere = Elsewhere(poll_interval_sec, self._walk.want)
        # Nodes that may have more dependencies, and those among them that are being looked at again.
        self._growing: set[str] = set()
        self._asking: set[str] = set()
        # The active roots in the plan, and how many times the caller passed each of them.
        self._roots: Counter[str] = Counter()
        self._plan_is_known = False

        self._inbox: deque[News | BaseException] = deque()
        self._awake = anyio.Event()
        self._stopping = False
        self._error: BaseException | None = None
        self._failures: list[Failure] = []
        self._lost = 0
        self._abandoned = 0

    @property
    def failures(self) -> tuple[Failure, ...]:
        """The failures so far, in the order in which they occurred."""
        return tuple(self._failures)

    @property
    def skipped(self) -> int:
        """The number of known nodes that were not computed: not started, or dependent on a failed node."""
        return self._lost + len(self._plan) - self._abandoned

    @property
    def critical_path(self) -> Chain:
        """The longest chain of computed nodes so far."""
        return self._critical_path.longest

    @property
    def is_settled(self) -> bool:
        """Whether nothing can happen until a running node finishes."""
        if self._awake.is_set() or self._inbox or self._walk.is_walking:
            return False
        return self._walk.is_exhausted or self._window.room() == 0

    async def run(self) -> None:
        """Run until all nodes are done, or until a failure has stopped the run and its running nodes have
        finished.

        Raises `FuruComputeError` if nodes failed, an exception that discovery raised, or the cancellation.
        Before it raises, it waits until the running nodes have finished or `grace_sec` is over, and
        processes all outcomes that have arrived.
        """
        self._advances = Advances(self._emit, self._crews.running)
        with self._advances.receiving():
            await self._run()

    async def _run(self) -> None:
        cancelled = True
        try:
            async with anyio.create_task_group() as tasks:
                self._tasks = tasks
                try:
                    self._crews.open(tasks, self._deliver, stop_on_failure=self._on_failure == "stop")
                    tasks.start_soon(self._walk.run, self._elsewhere)
                    await self._loop()
                    cancelled = False
                except Exception as error:  # raised below, so that the task group does not wrap it
                    self._error = self._error or error
                    cancelled = False
                finally:
                    self._stop(cancel=cancelled)
                    await self._drain()
                tasks.cancel_scope.cancel()
            if cancelled:  # not from outside: asyncio's Task.cancel() was called on one of the run's tasks
                self._error = self._error or asyncio.CancelledError("a task of the run was cancelled")
        except BaseExceptionGroup as group:  # from helper tasks of the workers
            self._error = self._error or first_error(group)
        finally:
            self._reap()
            self._elsewhere.close()
        if self._failures:
            for outcome in list(self._delayed.values()):  # these nodes will not be retried
                self._fail(outcome)
        if self._error is not None:
            raise self._error
        if self._failures:
            raise run_error(self._failures)

    async def _loop(self) -> None:
        while True:
            self._dispatch()
            if self._is_over():
                return
            await self._awake.wait()
            self._awake = anyio.Event()
            self._reap()

    async def _drain(self) -> None:
        """Wait until the running jobs have finished, even if the run is cancelled. Abandon them when
        `grace_sec` is over."""
        grace_sec = math.inf if self._grace_sec is None else self._grace_sec
        interrupt: BaseException | None = None
        try:
            with anyio.CancelScope(shield=True, deadline=anyio.current_time() + grace_sec) as grace:
                while self._crews.running or self._walk.is_stepping:
                    try:
                        await self._awake.wait()
                    except anyio.get_cancelled_exc_class() as error:
                        if grace.cancel_called:
                            raise
                        interrupt = error  # a scope does not shield from asyncio's own Task.cancel()
                    self._awake = anyio.Event()
                    self._reap()
        finally:
            if self._crews.running or self._walk.is_stepping:
                self._abandon()
        if interrupt is not None:
            raise interrupt

    def _abandon(self) -> None:
        """Stop waiting for the jobs that are still running in threads, and ignore their outcomes."""
        self._walk.abandon()
        left = self._crews.abandon()
        self._abandoned = len(left)
        for job in left:
            self._emit(events.NodeAbandoned(job.key, job.node_class, job.spec_key))
        if left:
            named = ", ".join(describe(job.node) for job in left[:10])
            logger.warning("still running, left to finish in their threads: %s", named)

    def _dispatch(self) -> None:
        while not self._stopping and (key := self._plan.get_ready(self._crews.may_start)) is not None:
            job = self._jobs[key]
            if key in self._growing:
                self._ask_again(job)
                continue
            if self._crews.is_serial(job.lane):
                self._plan.presume_done(key)
            self._crews.start(job)

    def _is_over(self) -> bool:
        if self._stopping:
            return True
        if self._crews.running or self._walk.is_walking or self._elsewhere or self._delayed:
            return False
        if self._asking or self._inbox:
            return False
        if self._walk.is_exhausted and not self._plan:
            return True
        if self._walk.is_exhausted or self._window.room() == 0:
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

    def _wake(self) -> None:
        self._awake.set()

    def _deliver(self, item: News | BaseException) -> None:
        self._inbox.append(item)
        self._awake.set()

    def _reap(self) -> None:
        while self._inbox:
            item = self._inbox.popleft()
            if isinstance(item, Begun):
                job = item.job
                self._begun[job.key] = item
                self._emit(events.NodeStarted(job.key, job.node_class, job.spec_key, item.worker, item.at))
                self._advances.begun(job)
            elif isinstance(item, Outcome):
                self._ended(item)
            elif isinstance(item, Withdrawn):
                for job in item.jobs:
                    self._crews.ended(job)
                self._plan.withdraw([job.key for job in item.jobs])
            elif isinstance(item, Overran):
                self._overran(item.job)
            else:
                self._error = self._error or item
                self._stop()

    def _take(self, batch: Batch) -> None:
        for fact in batch.facts:
            self._learn(fact)
        if batch.error is not None and self._error is None:
            self._error = batch.error
            if self._on_failure == "stop":
                self._stop()
        complete = batch.exhausted and batch.idle and not self._elsewhere and not self._growing
        if complete and self._error is None and not self._plan_is_known:
            self._plan_is_known = True
            self._plan.rank()
            self._emit(events.PlanKnown())
        self._awake.set()

    def _learn(self, fact: Found | RootRead | RootWalked) -> None:
        if isinstance(fact, RootRead):
            self._window.activated()
            self._emit(events.RootActivated(fact.key, fact.node_class, fact.number))
        elif isinstance(fact, RootWalked):
            if fact.key in self._plan:
                self._roots[fact.key] += 1
            else:
                self._root_completed(fact.key)
        else:
            self._growing.discard(fact.job.key)
            self._asking.discard(fact.job.key)
            self._learn_node(fact)

    def _learn_node(self, fact: Found) -> None:
        if fact.status is Status.TODO:
            self._found_todo(fact)
        elif fact.status is Status.IN_PROGRESS:
            if fact.job.key not in self._plan:
                self._plan.add_waiting(fact.job.key, fact.job.lane)
                self._emit(events.NodeWaiting(fact.job.key, fact.job.node_class, "another process"))
            self._wait(self._elsewhere.still, fact.job)
        elif fact.status is Status.DONE:
            self._reused(fact.job)
        elif fact.failure is not None:
            self._failed(fact.job, fact.failure, earlier=fact.failure.error is None)

    def _found_todo(self, fact: Found) -> None:
        job = fact.job
        self._elsewhere.forget(job.key)
        if job.key in self._plan and (path := self._plan.path(job.key, fact.depends_on)):
            others = [self._jobs[key].node for key in reversed(path[1:])]
            self._deliver(cycle_error([job.node, *others], job.node))
            return
        if fact.awaits:
            self._growing.add(job.key)
            sec, may_fail = fact.expected_sec, fact.may_fail
            lost = self._plan.add(job.key, QUESTIONS, fact.awaits, sec, tolerates=may_fail)
        else:
            lost = self._plan.add(job.key, job.lane, fact.depends_on, fact.expected_sec)
        if lost:
            self._lose(lost)
        else:
            self._jobs[job.key] = job
            self._critical_path.found(job.key, fact.depends_on)
            is_open = bool(fact.awaits)
            self._emit(events.NodePlanned(job.key, job.node_class, job.spec_key, fact.depends_on, is_open))

    def _ask_again(self, job: Job) -> None:
        """Have discovery look at a node again, because what its `_dependencies()` asked for is done."""
        self._plan.waits(job.key)
        self._asking.add(job.key)
        self._walk.look_again(job.node)

    def _ended(self, outcome: Outcome) -> None:
        job = outcome.job
        self._advances.ended(job.key)
        self._crews.ended(job)
        if outcome.end == "computed":
            self._emit(events.NodeDone(job.key, job.node_class, job.spec_key, self._timing(outcome)))
            self._critical_path.computed(job.key, job.name, outcome.duration_sec, self._done(job))
        elif outcome.end == "reused":
            self._reused(job)
        elif outcome.end == "elsewhere":
            self._plan.waits(job.key)
            self._emit(events.NodeWaiting(job.key, job.node_class, getattr(outcome.error, "owner", "")))
            self._wait(self._elsewhere.add, job)
        elif outcome.is_to_be_retried and not self._stopping:
            self._retry(outcome)
        elif outcome.end == "failed":
            self._fail(outcome)
        elif not self._stopping:  # asyncio's own Task.cancel() cancelled the node's task
            self._deliver(asyncio.CancelledError(f"{describe(job.node)} was cancelled"))

    def _timing(self, outcome: Outcome) -> events.Timing:
        begun = self._begun[outcome.job.key]
        return events.Timing(begun.worker, begun.at, outcome.duration_sec)

    def _retry(self, outcome: Outcome) -> None:
        job, retry = outcome.job, retry_of(outcome.job.node)
        assert retry is not None and outcome.error is not None  # noqa: S101, PT018  # checked by the caller
        delay_sec = retry.delay_after(job.attempt)
        self._plan.waits(job.key)
        self._delayed[job.key] = outcome
        how = (job.attempt, delay_sec, str(outcome.error), self._timing(outcome))
        self._emit(events.NodeRetried(job.key, job.node_class, job.spec_key, *how))
        self._tasks.start_soon(self._try_again, job, delay_sec)

    async def _try_again(self, job: Job, delay_sec: float) -> None:
        await anyio.sleep(delay_sec)
        if not self._stopping:
            del self._delayed[job.key]
            self._jobs[job.key] = msgspec.structs.replace(job, attempt=job.attempt + 1)
            self._plan.add(job.key, job.lane, ())
            self._awake.set()

    def _overran(self, job: Job) -> None:
        limit = timeout_sec_of(job.node) or 0.0
        self._emit(events.NodeOverran(job.key, job.node_class, job.spec_key, limit))
        logger.warning(
            "%s has exceeded its _timeout_sec of %g s and is still running: a thread cannot be stopped",
            describe(job.node),
            limit,
        )

    def _reused(self, job: Job) -> None:
        self._emit(events.NodeReused(job.key, job.node_class))
        if job.key in self._plan:
            self._critical_path.gone(job.key)
            self._done(job)

    def _done(self, job: Job) -> list[str]:
        dependents = self._plan.done(job.key)
        self._discovery.forget(job.key)
        self._leave([job.key])
        return dependents

    def _fail(self, outcome: Outcome) -> None:
        if isinstance(outcome.error, FuruComputeError):
            self._failed(outcome.job, outcome.error.failures[0], timing=self._timing(outcome))

    def _failed(
        self, job: Job, failure: Failure, *, earlier: bool = False, timing: events.Timing | None = None
    ) -> None:
        self._failures.append(failure)
        how = (failure.message, failure.state_path, earlier, timing)
        self._emit(events.NodeFailed(job.key, job.node_class, job.spec_key, *how))
        self._critical_path.gone(job.key)
        self._discovery.failed(job.key, failure.message)
        self._lose(self._plan.failed(job.key))
        self._leave([job.key])
        if self._on_failure == "stop":
            self._stop()

    def _lose(self, keys: list[str]) -> None:
        """Drop nodes that depend on a node that failed."""
        self._lost += len(keys)
        for key in keys:
            self._critical_path.gone(key)
            self._discovery.failed(key, "it was skipped, because a node that it depends on failed")
        self._leave(keys)

    def _wait(self, until: Callable[[Job], None], job: Job) -> None:
        try:
            until(job)
        except FuruCycleError as error:  # the other owner waits for this run
            self._deliver(error)
        self._walk.want()

    def _leave(self, keys: list[str]) -> None:
        """Drop the data of nodes that have left the plan, and complete the roots among them."""
        for key in keys:
            self._elsewhere.forget(key)
            self._growing.discard(key)
            for kept in (self._jobs, self._begun, self._delayed):
                kept.pop(key, None)
            for _ in range(self._roots.pop(key, 0)):
                self._root_completed(key)

    def _root_completed(self, key: str) -> None:
        self._window.completed()
        self._emit(events.RootCompleted(key))
        self._walk.want()

    def _stop(self, *, cancel: bool = False) -> None:
        """Start no more nodes, and stop discovery. Running nodes continue until they finish. With `cancel`,
        they end early if their workers can end them."""
        self._stopping = True
        self._walk.stop()
        self._crews.stop(cancel=cancel)
