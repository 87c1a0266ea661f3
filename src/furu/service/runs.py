"""The runs of a service: started for clients, shared by clients that want the same, bounded, and ended.

Does not know HTTP. Everything but `stop` happens on one event loop, so there are no locks; the settings,
which may need the disk, are read in a thread.

    queued -> running -> finished | failed | cancelled
    queued -> cancelled
"""

from __future__ import annotations

import contextlib
import logging
import math
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from types import TracebackType
from typing import Any, Literal, Self, get_args

import anyio
import anyio.abc
from anyio.lowlevel import EventLoopToken, current_token

from furu._common.loops import Waker, in_thread
from furu._common.text import describe_error
from furu.errors import FuruComputeError, FuruError, FuruUsageError
from furu.execution.discovery import check_root
from furu.execution.local import run_local_async
from furu.node.base import describe
from furu.node.furu import Furu
from furu.report import RunReport
from furu.service.progress import Progress
from furu.settings import Settings, current_settings, use_settings

logger = logging.getLogger("furu.web")

RunState = Literal["queued", "running", "finished", "failed", "cancelled"]
OnDisconnect = Literal["cancel", "finish"]
Compute = Callable[..., Awaitable[RunReport]]
# Where, and the hashes of the roots.
_Key = tuple[Settings, tuple[str, ...]]

_NAMED_ROOTS = 3


class RunsFullError(FuruError):
    """The limits on running and queued runs are reached: try again later."""


class RunsClosedError(FuruError):
    """The service has not started, is shutting down or has ended: no new run starts."""


class RunCancelledError(FuruError):
    """The run that was waited for was cancelled; `run` is the run."""

    def __init__(self, message: str, *, run: Run | None = None) -> None:
        super().__init__(message)
        self.run = run


class Run:
    """One run, as its followers read it; only `Runs` changes it.

    `title` is for people. `progress` is how far it has come, `report` its counts once it has ended (None if
    it was cancelled), `error` why it failed. Times are seconds since the epoch.
    """

    def __init__(
        self, roots: tuple[Furu[Any], ...], key: _Key, title: str, on_disconnect: OnDisconnect
    ) -> None:
        self.id = secrets.token_hex(8)
        self.title = title
        self.roots = roots
        self.on_disconnect: OnDisconnect = on_disconnect
        self.state: RunState = "queued"
        self.progress = Progress()
        self.report: RunReport | None = None
        self.error: Exception | None = None
        self.created_at = time.time()
        self.started_at: float | None = None
        self.ended_at: float | None = None
        self._key = key
        self._followers = 0
        self._scope = anyio.CancelScope()
        self._ended = anyio.Event()

    @property
    def has_ended(self) -> bool:
        """Whether the run has finished, failed or been cancelled."""
        return self._ended.is_set()

    async def wait_ended(self) -> None:
        """Wait for the run's end, whatever it is."""
        await self._ended.wait()

    async def wait(self) -> RunReport:
        """Wait for the run's end and return its report.

        Raises what the run failed with, a `FuruComputeError` if nodes failed, and `RunCancelledError` if it
        was cancelled. It is never an exception group.
        """
        await self._ended.wait()
        if self.error is not None:
            # Its traceback would otherwise grow, and keep the frames of every follower alive.
            raise self.error.with_traceback(None)
        if self.report is None:
            raise RunCancelledError(f"the run {self.id} ({self.title}) was cancelled", run=self)
        return self.report


class Runs:
    """The runs of one service. Enter it around the service's life: `async with Runs() as runs`.

    Clients that want the same roots, in the same store, follow one run. The runs share nodes with each
    other as all runs of a process do. On leaving, no new run starts, queued ones are cancelled, running
    ones go on for `grace_sec`, and the rest are cancelled and named in the log ``furu.web``.

    Args:
        max_running: How many runs run at once.
        max_queued: How many more may wait for their turn.
        grace_sec: How long running runs may go on once the service ends.
        cancel_sec: How long a cancelled run waits for its running nodes. After that async nodes are
            cancelled; a node in a thread goes on by itself, and one that calls `check_cancelled()` has
            ended before. So the service ends within `grace_sec` and `cancel_sec`, unless threads go on.
        keep: How many runs that have ended can still be looked up, with their nodes.
        compute: What runs the roots: `run_local_async`, or a function that calls it with other options,
            such as ``functools.partial(run_local_async, max_workers=4)``. It is given the roots, `on_event`
            and `grace_sec`.

    Raises:
        TypeError, ValueError: An argument has a wrong type or value.
    """

    def __init__(
        self,
        *,
        max_running: int = 4,
        max_queued: int = 32,
        grace_sec: float = 10.0,
        cancel_sec: float = 0.5,
        keep: int = 20,
        compute: Compute = run_local_async,
    ) -> None:
        _check_count("max_running", max_running, least=1)
        _check_count("max_queued", max_queued, least=0)
        _check_count("keep", keep, least=0)
        _check_seconds("grace_sec", grace_sec)
        _check_seconds("cancel_sec", cancel_sec)
        self._max_running, self._max_live = max_running, max_running + max_queued
        self._grace_sec, self._cancel_sec = grace_sec, cancel_sec
        self._keep = keep
        self._compute = compute
        self._tasks: anyio.abc.TaskGroup | None = None
        self._loop: EventLoopToken | None = None
        self._stop_waker: Waker | None = None
        self._stopping = False
        self._interrupt: BaseException | None = None
        # In the order in which they were asked for.
        self._live: dict[str, Run] = {}
        self._ended: dict[str, Run] = {}
        # Runs that a new follower may join: not those that were cancelled and still wait for their nodes.
        self._joinable: dict[_Key, Run] = {}

    async def __aenter__(self) -> Self:
        if self._tasks is not None:
            raise RuntimeError("these runs have been entered already; make new Runs for another service")
        self._slots = anyio.Semaphore(self._max_running)
        self._stop_wanted = anyio.Event()
        self._loop = current_token()
        self._tasks = await anyio.create_task_group().__aenter__()
        self._tasks.start_soon(self._drain_when_stopped)
        self._stop_waker = Waker(self._stop_wanted.set)
        if self._stopping:
            self._stop_wanted.set()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._tasks is not None  # noqa: S101  # it has been entered
        self.stop()
        try:
            # Pass no exception, so that runs still drain when the service itself failed.
            await self._tasks.__aexit__(None, None, None)
        finally:
            for run in self.live():  # their tasks were cancelled before they could begin
                self._settle(run)
        if self._interrupt is not None:
            raise self._interrupt

    def stop(self) -> None:
        """Begin to end: no new run starts, and `grace_sec` begins.

        May be called at any time, from any thread and from a signal handler. Before the block is entered it
        is remembered, and no run starts in the block; calling it again changes nothing.
        """
        # In this order: either the block that is being entered sees the flag, or we see its waker.
        self._stopping = True
        if self._stop_waker is not None:
            self._stop_waker.wake()

    def get(self, run_id: str) -> Run | None:
        """Return the run, live or recent; None if there is none."""
        return self._live.get(run_id) or self._ended.get(run_id)

    def live(self) -> list[Run]:
        """Return the runs that are queued or running, the oldest first."""
        return list(self._live.values())

    def recent(self) -> list[Run]:
        """Return the runs that have ended and are kept, the last one first."""
        return list(reversed(self._ended.values()))

    @contextlib.asynccontextmanager
    async def follow(
        self, roots: Iterable[Furu[Any]], *, title: str = "", on_disconnect: OnDisconnect = "cancel"
    ) -> AsyncIterator[Run]:
        """Follow the run of `roots` for a block: the live one, or a new one.

        Leaving the block cancels the run if it has no other follower and every follower said ``"cancel"``;
        after a follower that said ``"finish"`` it goes on to its end.

        >>> async with runs.follow([report]) as run:    # doctest: +SKIP
        ...     await run.wait()

        Raises:
            RunsFullError: No more runs may wait.
            RunsClosedError: The service has not started, is shutting down or has ended.
            FuruUsageError: A root is not a node, or another event loop entered these runs.
        """
        if on_disconnect not in get_args(OnDisconnect):
            raise ValueError(f"on_disconnect must be 'cancel' or 'finish', not {on_disconnect!r}")
        wanted = _as_tuple(roots)
        key, title = await in_thread(_key_and_title, wanted, title)
        # Without a checkpoint from here to the try: a cancelled follower leaves no run without one.
        run = self._join(Run(wanted, key, title, on_disconnect))
        run._followers += 1
        if on_disconnect == "finish":
            run.on_disconnect = "finish"
        try:
            yield run
        finally:
            run._followers -= 1
            if not run._followers and run.on_disconnect == "cancel":
                self._cancel(run)

    async def submit(self, roots: Iterable[Furu[Any]], *, title: str = "") -> Run:
        """Start the run of `roots`, or join the live one, and let it go on to its end without followers.
        Raises as `follow` does."""
        async with self.follow(roots, title=title, on_disconnect="finish") as run:
            return run

    # ---- how it works ----

    def _join(self, new: Run) -> Run:
        if self._tasks is None:
            raise RunsClosedError("the runs have not begun: write `async with runs:` in the lifespan")
        at_home = current_token() == self._loop
        if at_home and (run := self._joinable.get(new._key)) is not None:
            return run
        if self._stopping:
            raise RunsClosedError("the service is shutting down or has ended; no new run starts")
        if not at_home:
            raise FuruUsageError(
                "these runs belong to another event loop: follow them on the loop that entered them, or "
                "make other Runs for this one"
            )
        if len(self._live) >= self._max_live:
            raise RunsFullError(
                f"{len(self._live)} runs are running or queued, which is the limit; try again later"
            )
        self._live[new.id] = self._joinable[new._key] = new
        self._tasks.start_soon(self._execute, new)
        return new

    async def _execute(self, run: Run) -> None:
        try:
            with run._scope:
                async with self._slots:
                    run.state, run.started_at = "running", time.time()
                    run.progress.touch()
                    with use_settings(run._key[0]):
                        run.report = await self._compute(
                            run.roots, on_event=run.progress, grace_sec=self._cancel_sec
                        )
        except BaseException as error:  # a cancellation ends here, as the task does
            failure = _without_cancellations(error)
            if failure is not None:
                run.error = _error_for_followers(run, failure)
                self._end_for(_interrupt_in(failure))
        finally:
            self._settle(run)

    def _settle(self, run: Run) -> None:
        run.ended_at = time.time()
        if run.error is not None:
            run.state = "failed"
        else:
            run.state = "finished" if run.report is not None else "cancelled"
        del self._live[run.id]
        self._no_longer_joinable(run)
        self._ended[run.id] = run
        while len(self._ended) > self._keep:
            del self._ended[next(iter(self._ended))]
        run._ended.set()
        run.progress.touch()

    def _end_for(self, interrupt: BaseException | None) -> None:
        """End the service for an interrupt that a run met: `__aexit__` raises it."""
        if interrupt is not None and self._tasks is not None:
            self._interrupt = interrupt
            self._tasks.cancel_scope.cancel()

    def _cancel(self, run: Run) -> None:
        self._no_longer_joinable(run)
        run._scope.cancel()

    def _no_longer_joinable(self, run: Run) -> None:
        if self._joinable.get(run._key) is run:
            del self._joinable[run._key]

    async def _drain_when_stopped(self) -> None:
        """Cancel queued runs at once, and running ones that have not ended after `grace_sec`."""
        await self._stop_wanted.wait()
        for run in self.live():
            if run.state == "queued":
                self._cancel(run)
        with anyio.move_on_after(self._grace_sec):
            for run in self.live():
                await run.wait_ended()
        if left := [run for run in self.live() if not run._scope.cancel_called]:
            named = ", ".join(f"{run.id} ({run.title})" for run in left)
            logger.warning(
                "the service ends: %d runs were cancelled after %g s: %s", len(left), self._grace_sec, named
            )
            for run in left:
                self._cancel(run)


def _error_for_followers(run: Run, error: BaseException) -> Exception:
    """Return what the followers of a failed run raise, and log it. A group of one error is that error."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    if isinstance(error, FuruComputeError):
        run.report = error.report
        logger.error("the run %s (%s) failed: %s", run.id, run.title, error)
        return error
    logger.error("the run %s (%s) ended with an error", run.id, run.title, exc_info=error)
    if isinstance(error, Exception) and not isinstance(error, ExceptionGroup):
        return error
    ended = FuruError(f"the run {run.id} ({run.title}) ended with {describe_error(error)}")
    ended.__cause__ = error
    return ended


def _without_cancellations(error: BaseException) -> BaseException | None:
    cancelled = anyio.get_cancelled_exc_class()
    if isinstance(error, BaseExceptionGroup):
        return error.split(cancelled)[1]
    return None if isinstance(error, cancelled) else error


def _interrupt_in(error: BaseException) -> BaseException | None:
    """Return the first error that is for the process and not for a run."""
    while isinstance(error, BaseExceptionGroup):
        interrupts = error.subgroup((KeyboardInterrupt, SystemExit))
        if interrupts is None:
            return None
        error = interrupts.exceptions[0]
    return error if isinstance(error, (KeyboardInterrupt, SystemExit)) else None


def _key_and_title(roots: tuple[Furu[Any], ...], title: str) -> tuple[_Key, str]:
    """Check the roots. Off the loop: the settings may need the disk, and there may be many roots."""
    for number, root in enumerate(roots):
        check_root(root, number)
    key = current_settings(), tuple(sorted({root.furu_hash for root in roots}))
    return key, title or _title_of(roots)


def _title_of(roots: tuple[Furu[Any], ...]) -> str:
    named = ", ".join(describe(root) for root in roots[:_NAMED_ROOTS])
    return f"{named} and {len(roots) - _NAMED_ROOTS} more" if len(roots) > _NAMED_ROOTS else named


def _as_tuple(roots: Iterable[Furu[Any]]) -> tuple[Furu[Any], ...]:
    if isinstance(roots, (Furu, str, bytes)) or not isinstance(roots, Iterable):
        raise FuruUsageError(
            f"roots must be an iterable of Furu nodes, such as [node], not a {type(roots).__qualname__}"
        )
    return tuple(roots)


def _check_count(name: str, value: int, *, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int of {least} or more, not {value!r}")
    if value < least:
        raise ValueError(f"{name} must be an int of {least} or more, not {value!r}")


def _check_seconds(name: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number of seconds of 0 or more, not {value!r}")
    if not math.isfinite(value) or value < 0:
        raise ValueError(f"{name} must be a number of seconds of 0 or more, not {value!r}")
