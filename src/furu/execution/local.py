"""`run_local` and `run_local_async`, which check the options, assemble the parts of a run, and start it."""

from __future__ import annotations

import contextlib
import functools
import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

from furu._common.loops import in_thread, loop_is_running, run_in_new_loop
from furu.errors import FuruComputeError, FuruRunningLoopError
from furu.events import End, Event, RunStarted
from furu.execution.again import Again, Chosen
from furu.execution.discovery import Discovery
from furu.execution.interrupts import interrupts_of_scripts
from furu.execution.options import (
    DEFAULT_MAX_ASYNC,
    DEFAULT_MAX_WORKERS,
    check_limits,
    check_options,
    check_roots,
    progress_is_wanted,
)
from furu.execution.scheduler import OnFailure, Order, Scheduler
from furu.execution.window import Window
from furu.execution.workers import EventLoopWorkers, ThreadWorkers, Workers
from furu.node.base import describe
from furu.node.changes import CodeChanges
from furu.node.furu import Furu
from furu.observing.changes import ChangeReporter
from furu.observing.report import Recorder, Sink, Sinks
from furu.report import RunReport
from furu.settings import OnCodeChange, Settings, current_settings, use_settings
from furu.store.claim import open_store

__all__ = ["run_local", "run_local_async"]

logger = logging.getLogger("furu.run")


def run_local(
    roots: Iterable[Furu[Any]],
    *,
    max_workers: int = DEFAULT_MAX_WORKERS,
    max_async: int = DEFAULT_MAX_ASYNC,
    window_size: str | int = "bfs",
    poll_interval_sec: float = 0.25,
    workers: Workers | None = None,
    order: Order = "roots",
    on_failure: OnFailure = "stop",
    retry_failed: bool = True,
    spec_limits: Mapping[str, int] | None = None,
    on_code_change: OnCodeChange | None = None,
    again: Chosen | None = None,
    grace_sec: float | None = None,
    on_event: Callable[[Event], object] | None = None,
    progress: bool | None = None,
) -> RunReport:
    """Compute `roots` and everything they depend on, except nodes that are DONE, and return a report.

    The blocking version of `run_local_async`, on a new event loop, with the same arguments, guarantees and
    errors. With `progress=None`, progress is shown if stderr is a terminal and rich (the extra `cli`) is
    installed.

    In the main thread of a script, the first Ctrl-C cancels the run and prints the names of the running
    nodes to stderr. KeyboardInterrupt is raised when these nodes have finished. A second Ctrl-C ends the
    process at once.

    Raises `FuruRunningLoopError` if an event loop is running in this thread: await `run_local_async` there.
    """
    if loop_is_running():
        raise FuruRunningLoopError(
            "run_local() blocks, and this thread's event loop is running: "
            "use `await run_local_async(...)` in place of run_local(...)"
        )
    interrupts = interrupts_of_scripts()  # receives the events, to name the running nodes on Ctrl-C
    run = functools.partial(
        run_local_async,
        roots,
        max_workers=max_workers,
        max_async=max_async,
        window_size=window_size,
        poll_interval_sec=poll_interval_sec,
        workers=workers,
        order=order,
        on_failure=on_failure,
        retry_failed=retry_failed,
        spec_limits=spec_limits,
        on_code_change=on_code_change,
        again=again,
        grace_sec=grace_sec,
        on_event=on_event if interrupts is None else Sinks(interrupts, on_event),
        progress=progress_is_wanted() if progress is None else progress,
    )
    if interrupts is None:
        return run_in_new_loop(run)
    try:
        report = interrupts.run(run)
    finally:
        if interrupts.occurred:
            raise KeyboardInterrupt
    assert report is not None  # noqa: S101  # it is None only after a signal, which has raised above
    return report


async def run_local_async(
    roots: Iterable[Furu[Any]],
    *,
    max_workers: int = DEFAULT_MAX_WORKERS,
    max_async: int = DEFAULT_MAX_ASYNC,
    window_size: str | int = "bfs",
    poll_interval_sec: float = 0.25,
    workers: Workers | None = None,
    order: Order = "roots",
    on_failure: OnFailure = "stop",
    retry_failed: bool = True,
    spec_limits: Mapping[str, int] | None = None,
    on_code_change: OnCodeChange | None = None,
    again: Chosen | None = None,
    grace_sec: float | None = None,
    on_event: Callable[[Event], object] | None = None,
    progress: bool | None = None,
) -> RunReport:
    """Compute `roots` and everything they depend on, except nodes that are DONE, and return a report.

    Runs on the caller's event loop (asyncio or trio) and does not block it. Async nodes, which have an
    `async def _create`, run on the loop; all other nodes run in threads, or on the given `workers`.

    Guarantees: a node starts only after everything it depends on is DONE. Each node is computed once, even
    if other runs need it at the same time. Nodes start in the given `order`. If the run is cancelled, nodes
    that are running in threads or on the loop finish and publish before the cancellation is raised.

    Args:
        roots: The nodes to compute. With a `window_size` of ``"dfs"`` or an int, they may come from a
            generator. It is read in a worker thread, and only when the window has room.
        max_workers: The maximum number of nodes that are computed at once in threads, or by `workers`.
        max_async: The maximum number of async nodes that are computed at once. Async nodes need no worker,
            so this number may be large.
        window_size: How many roots are active at once: one (``"dfs"``), all (``"bfs"``), or an int.
        poll_interval_sec: How often to check nodes that another process is computing. Nothing else is
            polled.
        workers: The workers for nodes that are not async: threads (None), `ProcessWorkers()` or
            `DaskWorkers(...)`.
        order: Which ready nodes start first. ``"roots"``: those of earlier roots, depth first for each
            root. ``"critical-path"``: those with the longest chain of dependents, by the durations of their
            classes in earlier runs. This order shortens runs that end with a long chain.
        on_failure: ``"stop"``: start no more nodes once a node has failed. ``"continue"``: run all nodes
            that do not depend on a failed node. Either way, the run raises at its end. An exception raised
            while `roots` is read has the same effect as a failure, and is raised unchanged.
        retry_failed: Whether nodes that failed in an earlier run are tried again. If False, they count as
            failures of this run.
        spec_limits: The maximum number of nodes that are computed at once for each spec key
            (`_executor_spec_key()`), such as ``{"gpu": 1}``. A key at its limit does not delay other keys.
        on_code_change: What to do with artifacts that were made by other code than their classes have now.
            ``"warn"``: reuse them, and log one warning for each class. Only a sample is compared: see
            *Notice changed code* in the documentation. ``"ignore"``: reuse them. ``"recompute"``: compute
            these nodes again, and the nodes that depend on them. This reads the record of every node of
            the graph. The old artifacts stay readable until the new ones are published. None: what the
            setting `on_code_change` says, which is ``"warn"`` by default.
        again: Nodes and classes of nodes that are computed once more although they are done, or a function
            that says so for each node. The nodes of this graph that depend on them are computed again, too.
            The old artifacts stay readable until the new ones are published, and stay if that fails.
        grace_sec: How long a run that was cancelled or stopped by a failure waits for its running nodes;
            None: until they finish. After this time, async nodes are cancelled, and threads are left to
            finish and publish on their own. The interpreter waits for these threads before it exits.
        on_event: A function that is called on the loop with each event of the run. It must return quickly.
        progress: Whether to show progress on stderr, from a separate thread. Needs rich (the extra `cli`).
            None means False here, because stderr belongs to the host application.

    Raises:
        FuruComputeError: Nodes failed. The message names the first failed node and the path of its state.
            The node's exception is `__cause__`, all failures are in `.failures`, and the run's report is
            in `.report`.
        FuruCycleError: Nodes depend on each other in a cycle.
        FuruStoreError: The store cannot be used.
        FuruUsageError, TypeError, ValueError: An argument is wrong.
    """
    check_roots(roots)
    check_limits(max_workers, max_async)
    check_options(
        poll_interval_sec=poll_interval_sec,
        workers=workers,
        on_failure=on_failure,
        spec_limits=spec_limits,
        on_code_change=on_code_change,
        grace_sec=grace_sec,
        progress=progress,
        order=order,
    )
    window = Window(window_size)
    chosen = Again(again) if again is not None else None
    # Read once for all nodes: in a thread because it reads the disk, and before a node can change the
    # working directory.
    settings = await in_thread(current_settings)
    async with _showing(settings, max_workers) if progress else contextlib.nullcontext() as shown:
        changes = CodeChanges(on_code_change or settings.on_code_change)
        reporter = ChangeReporter(changes)
        recorder = Recorder(Sinks(shown, on_event, reporter), max_workers=max_workers)
        reporter.emit = recorder
        scheduler = Scheduler(
            discovery=_discovery(roots, settings, changes, chosen, retry_failed, order),
            window=window,
            workers=workers or ThreadWorkers(),
            async_workers=EventLoopWorkers(),
            max_workers=max_workers,
            max_async=max_async,
            emit=recorder,
            poll_interval_sec=poll_interval_sec,
            on_failure=on_failure,
            spec_limits=spec_limits or {},
            grace_sec=grace_sec,
            order=order,
        )
        recorder(RunStarted(max_workers, max_async, window_size, time.time()))
        with use_settings(settings), reporter.noting():
            report = await _to_its_end(scheduler, recorder, reporter)
            _warn_of_unseen(chosen)
            return report
    raise AssertionError("unreachable: `_showing` suppresses no exception")


def _discovery(
    roots: Iterable[Furu[Any]],
    settings: Settings,
    changes: CodeChanges,
    again: Again | None,
    retry_failed: bool,
    order: Order,
) -> Discovery:
    return Discovery(
        roots,
        remember=isinstance(roots, Collection),
        retry_failed=retry_failed,
        before_work=lambda: open_store(settings),
        expected_sec=_expected_sec(settings) if order == "critical-path" else None,
        changes=changes,
        again=again,
    )


def _warn_of_unseen(again: Again | None) -> None:
    if again is not None and again.unseen:
        named = ", ".join(describe(node) for node in again.unseen[:10])
        logger.warning("not computed again, because the roots do not depend on them: %s", named)


def _showing(settings: Settings, max_workers: int) -> AbstractAsyncContextManager[Sink]:
    from furu.observing.progress import showing  # imports rich, which is needed only to show progress

    return showing(settings, max_workers=max_workers)


def _expected_sec(settings: Settings) -> Callable[[str], float]:
    from furu.observing.durations import ExpectedDurations  # imports the catalog, which few runs need

    return ExpectedDurations(settings)


async def _to_its_end(scheduler: Scheduler, recorder: Recorder, reporter: ChangeReporter) -> RunReport:
    """Run to the end. The report is created even if the run fails or is cancelled."""
    end: End = "cancelled"
    failed: FuruComputeError | None = None
    try:
        await scheduler.run()
        end = "finished"
    except FuruComputeError as error:
        end, failed = "failed", error
        raise
    except Exception:
        end = "failed"
        raise
    finally:
        reporter.report()
        report = recorder.finish(
            end,
            skipped=scheduler.skipped,
            failures=scheduler.failures,
            critical_path=scheduler.critical_path,
            code_changes=reporter.found,
        )
        if failed is not None:
            failed.report = report
    return report
