"""Workers in processes on this machine. Use them for pure-Python nodes, which in threads would wait for the
interpreter's lock, and for nodes that crash, leak memory, or must be stopped: a process can be killed.

`anyio.to_process` is not used, for five reasons. It kills its children when the loop ends, so that each
child leaves its owner file in the store. It leaves a child running if the child's start is cancelled. It
does not report how a child died. It cannot import a main module that was started with `python -m`. Its
messages share a descriptor with the output of programs that nodes start.
"""

from __future__ import annotations

import functools
import pickle
import time

import anyio
from anyio.abc import TaskGroup

from furu._common.loops import in_thread, shielded
from furu.context import REPORT_ADVANCE, Advance
from furu.errors import FuruCancelledError, FuruUsageError, FuruWorkerError
from furu.execution.workers.base import Crew, Deliver, Job, Outcome
from furu.execution.workers.call import dead_outcome, failed_outcome
from furu.execution.workers.child import is_preparing
from furu.execution.workers.children import Child, ChildDied
from furu.execution.workers.remote import Reply, make_request, outcome_of
from furu.execution.workers.tasks import TaskCrew
from furu.node.base import describe, timeout_sec_of
from furu.node.failure import end_of_dead, timeout_error

__all__ = ["ProcessWorkers"]

# A node fails if this many newly started children die before they begin it.
_MOST_STARTS = 3


class _TookTooLong(Exception):
    """A node exceeded its `_timeout_sec`, and its child was killed."""


class ProcessWorkers:
    """Computes nodes in at most `max_workers` child processes. Each child computes one node at a time.

    Children start when there are nodes for them, and exit at the end of the run. They import the program's
    main module under another name, so a script needs the usual ``if __name__ == "__main__":``. Each child
    is an owner in the store. The current settings are sent with each node; the host's context variables and
    logging configuration are not. A node's output goes to its attempt's log, `furu.log`.

    A node is sent together with all nodes below it. If the node fails, its error is returned with the
    traceback as text. If a child dies, its node fails with `FuruWorkerError`, and another child is started.
    If the run is cancelled or a node exceeds its `_timeout_sec`, the child is killed, together with the
    programs that its nodes have started.

    Async nodes still run on the event loop.

    >>> from furu import run_local
    >>> from furu.execution.workers import ProcessWorkers
    >>> run_local([], workers=ProcessWorkers()).computed
    0
    """

    def open(self, tasks: TaskGroup, deliver: Deliver, *, max_workers: int, stop_on_failure: bool) -> Crew:
        """Open a crew for a run. Raises `FuruUsageError` in a child that is importing the main module."""
        if is_preparing():
            raise FuruUsageError(
                "a run with ProcessWorkers was started while a child process imports the program's "
                'modules. Put the code that starts the run under `if __name__ == "__main__":`'
            )
        return _ProcessCrew(tasks, deliver, max_workers=max_workers, stop_on_failure=stop_on_failure)


class _ProcessCrew(TaskCrew):
    def __init__(
        self, tasks: TaskGroup, deliver: Deliver, *, max_workers: int, stop_on_failure: bool
    ) -> None:
        super().__init__(
            "process", tasks, deliver, max_workers=max_workers, stop_on_failure=stop_on_failure
        )
        self._idle: list[Child] = []
        self._closing = False
        tasks.start_soon(self._keep)

    def stop(self, *, cancel: bool) -> None:
        """Begin no more jobs. With `cancel`, kill the children that are computing a node."""
        super().stop(cancel=cancel)
        if cancel:
            self.abandon()

    async def _cancelled(self, job: Job, started: float) -> Outcome:
        return await shielded(_cancelled_outcome, job, started)

    async def _compute(self, job: Job) -> Outcome:
        started = time.monotonic()
        try:
            try:
                request = await in_thread(_packed, job)
                return outcome_of(job, await self._answer(job, request))
            except ChildDied as death:
                error: Exception = FuruWorkerError(
                    f"the process that computed {describe(job.node)} {death}", exit_code=death.exit_code
                )
            except _TookTooLong:
                error = timeout_error(job.node)
            return await in_thread(dead_outcome, job, error, started)
        except Exception as failure:
            return failed_outcome(job, failure, started)

    async def _answer(self, job: Job, request: bytes) -> Reply:
        """Let a child compute a node. If a child dies before it begins the node, another child is used.

        Raises `FuruWorkerError` if no child begins the node, and `ChildDied` if a child dies after it has
        begun.
        """
        starts = 0
        while True:
            starts += not self._idle
            try:
                child = self._idle.pop() if self._idle else await Child.start()
                return await self._ask(child, job, request)
            except ChildDied as death:
                if death.begun:
                    raise
                if starts == _MOST_STARTS:
                    raise FuruWorkerError(
                        f"no process could begin {describe(job.node)}: {starts} were started, and the last "
                        f"one {death}",
                        exit_code=death.exit_code,
                    ) from None

    async def _ask(self, child: Child, job: Job, request: bytes) -> Reply:
        reply: Reply | None = None
        try:
            with anyio.move_on_after(timeout_sec_of(job.node)):
                reply = await child.ask(request, functools.partial(_report, job.key))
        except BaseException:
            await child.kill()
            raise
        if reply is None:
            await child.kill()
            raise _TookTooLong
        if self._closing:
            await child.end()
        else:
            self._idle.append(child)
        return reply

    async def _keep(self) -> None:
        """Keep the idle children until the run ends, and then end them."""
        try:
            await anyio.sleep_forever()
        finally:
            self._closing = True
            with anyio.CancelScope(shield=True):
                async with anyio.create_task_group() as tasks:
                    for child in self._idle:
                        tasks.start_soon(child.end)


def _report(key: str, advance: Advance) -> None:
    report = REPORT_ADVANCE.get()
    if report is not None:
        report(key, advance)


def _packed(job: Job) -> bytes:
    return pickle.dumps(make_request(job, "process"), pickle.HIGHEST_PROTOCOL)


def _cancelled_outcome(job: Job, started: float) -> Outcome:
    duration_sec = time.monotonic() - started
    error = FuruCancelledError("the run was cancelled, and its process killed")
    end_of_dead(job.node, "cancelled", error, duration_sec)
    return Outcome(job, "cancelled", duration_sec)
