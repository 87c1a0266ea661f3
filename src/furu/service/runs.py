"""The runs of a service: callers that want the same roots share a run, and the number of runs is bounded.

Everything except `stop` runs on one event loop, so no locks are needed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from types import TracebackType
from typing import Any, Self, get_args

import anyio
import anyio.abc
from anyio.lowlevel import EventLoopToken, current_token

from furu._common.checks import check_choice, check_int, check_seconds
from furu._common.loops import Waker, in_thread
from furu.errors import FuruComputeError, FuruUsageError
from furu.execution.discovery import check_root
from furu.execution.local import run_local_async
from furu.node.base import describe
from furu.node.furu import Furu
from furu.report import RunReport
from furu.service.run import OnDisconnect, Run, RunKey, RunsClosedError, RunsFullError, error_for_followers
from furu.settings import current_settings, use_settings

__all__ = ["Compute", "Runs"]

logger = logging.getLogger("furu.service")

Compute = Callable[..., Awaitable[RunReport]]

_NAMED_ROOTS = 3


class Runs:
    """The runs of one service. Enter it for the lifetime of the service: `async with Runs() as runs`.

    Callers that want the same roots with the same settings share one run. Different runs share their nodes,
    as all runs of a process do. When the block is left, no new run starts, queued runs are cancelled, and
    running runs may continue for `grace_sec`. Runs that are still active after that are cancelled, and
    named in the log ``furu.service``.

    Args:
        max_running: How many runs may run at once.
        max_queued: How many more runs may wait for their turn.
        grace_sec: How long running runs may continue when the service shuts down.
        cancel_sec: How long a cancelled run waits for its running nodes. After that, async nodes are
            cancelled. A node in a thread keeps running until it finishes or calls `check_cancelled()`,
            which stops it. So the service ends within `grace_sec` plus `cancel_sec`, unless such a thread
            keeps running.
        keep: How many ended runs are kept, with their nodes, so that they can still be looked up.
        compute: The function that runs the roots: `run_local_async`, or a function that calls it with other
            options, such as ``functools.partial(run_local_async, max_workers=4)``. It is called with the
            roots, `on_event` and `grace_sec`.

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
        check_int("max_running", max_running, least=1)
        check_int("max_queued", max_queued, least=0)
        check_int("keep", keep, least=0)
        check_seconds("grace_sec", grace_sec, may_be_zero=True)
        check_seconds("cancel_sec", cancel_sec, may_be_zero=True)
        self._max_running, self._max_live = max_running, max_running + max_queued
        self._grace_sec, self._cancel_sec = grace_sec, cancel_sec
        self._keep = keep
        self._compute = compute
        self._tasks: anyio.abc.TaskGroup | None = None
        self._loop: EventLoopToken | None = None
        self._stop_waker: Waker | None = None
        self._stopping = False
        self._interrupt: BaseException | None = None
        # Both dicts are in the order in which runs were added.
        self._live: dict[str, Run] = {}
        self._ended: dict[str, Run] = {}
        # The live runs that new followers may join: all but the cancelled runs that still wait for nodes.
        self._joinable: dict[RunKey, Run] = {}

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
        assert self._tasks is not None  # noqa: S101
        self.stop()
        try:
            # Pass no exception, so that runs drain even if the service itself has failed.
            await self._tasks.__aexit__(None, None, None)
        finally:
            for run in self.live():  # their tasks were cancelled before they could begin
                self._settle(run)
        if self._interrupt is not None:
            raise self._interrupt

    def stop(self) -> None:
        """Begin the shutdown: no new run starts, and `grace_sec` begins.

        May be called at any time and more than once, from any thread and from a signal handler. If it is
        called before the block is entered, no run starts in the block.
        """
        # The order matters: if `__aenter__` runs meanwhile, either it sees the flag or we see its waker.
        self._stopping = True
        if self._stop_waker is not None:
            self._stop_waker.wake()

    def get(self, run_id: str) -> Run | None:
        """Return the live or recent run with this id, or None."""
        return self._live.get(run_id) or self._ended.get(run_id)

    def live(self) -> list[Run]:
        """Return the queued and running runs, oldest first."""
        return list(self._live.values())

    def recent(self) -> list[Run]:
        """Return the ended runs that are kept, most recently ended first."""
        return list(reversed(self._ended.values()))

    @contextlib.asynccontextmanager
    async def follow(
        self, roots: Iterable[Furu[Any]], *, title: str = "", on_disconnect: OnDisconnect = "cancel"
    ) -> AsyncIterator[Run]:
        """Follow a run of `roots` during the block: join the live run of these roots, or start a new run.

        When the last follower leaves its block, the run is cancelled if all followers passed
        ``on_disconnect="cancel"``. If any follower passed ``"finish"``, the run continues to its end.

        >>> async with runs.follow([report]) as run:    # doctest: +SKIP
        ...     await run.wait()

        Raises:
            RunsFullError: Too many runs are running or queued.
            RunsClosedError: The service has not started, is shutting down or has ended.
            ValueError: `on_disconnect` has a wrong value.
            FuruUsageError: A root is not a node, or these runs were entered on another event loop.
        """
        check_choice("on_disconnect", on_disconnect, get_args(OnDisconnect))
        wanted = _as_tuple(roots)
        key, title = await in_thread(_key_and_title, wanted, title)
        # There must be no checkpoint between here and the `try`: a follower that is cancelled there would
        # leave behind a run without followers.
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
        """Start a run of `roots`, or join the live run, and let it continue to its end without followers.

        Raises the same errors as `follow`.
        """
        async with self.follow(roots, title=title, on_disconnect="finish") as run:
            return run

    def _join(self, new: Run) -> Run:
        if self._tasks is None:
            raise RunsClosedError("these runs have not been entered: write `async with runs:` first")
        is_our_loop = current_token() == self._loop
        if is_our_loop and (run := self._joinable.get(new._key)) is not None:
            return run
        if self._stopping:
            raise RunsClosedError("the service is shutting down or has ended; no new run starts")
        if not is_our_loop:
            raise FuruUsageError(
                "these runs belong to another event loop: follow them on the loop that entered them, or "
                "make new Runs for this loop"
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
        except BaseException as error:  # also a cancellation: the task ends here in any case
            failure = _without_cancellations(error)
            if failure is not None:
                run.error = error_for_followers(run, failure)
                if isinstance(run.error, FuruComputeError):
                    run.report = run.error.report
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
        """If a run raised an interrupt, cancel all runs. `__aexit__` then raises the interrupt."""
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
        """After `stop`, cancel queued runs at once, and running runs that do not end within `grace_sec`."""
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


def _without_cancellations(error: BaseException) -> BaseException | None:
    cancelled = anyio.get_cancelled_exc_class()
    if isinstance(error, BaseExceptionGroup):
        return error.split(cancelled)[1]
    return None if isinstance(error, cancelled) else error


def _interrupt_in(error: BaseException) -> BaseException | None:
    """Return the first KeyboardInterrupt or SystemExit in an error: it is meant for the whole process."""
    while isinstance(error, BaseExceptionGroup):
        interrupts = error.subgroup((KeyboardInterrupt, SystemExit))
        if interrupts is None:
            return None
        error = interrupts.exceptions[0]
    return error if isinstance(error, (KeyboardInterrupt, SystemExit)) else None


def _key_and_title(roots: tuple[Furu[Any], ...], title: str) -> tuple[RunKey, str]:
    """Check the roots, and return the run's key and title. Called in a thread, because there may be many
    roots, and the settings may need the disk."""
    for number, root in enumerate(roots):
        check_root(root, number)
    settings = current_settings()
    if settings.cache_bytes is None:  # the memory of a service is for its requests
        settings = dataclasses.replace(settings, cache_bytes=0)
    key = settings, tuple(sorted({root.furu_hash for root in roots}))
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
