"""`run_local` and `run_local_async`: they check the options and put the parts of a run together."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

from furu._common.loops import in_thread, loop_is_running, run_in_new_loop
from furu.errors import FuruComputeError, FuruRunningLoopError
from furu.events import End, Event, RunStarted
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
from furu.node.furu import Furu
from furu.observing.report import Recorder, Sink, Sinks
from furu.report import RunReport
from furu.settings import Settings, current_settings, use_settings
from furu.store.claim import open_store

__all__ = ["run_local", "run_local_async"]


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
    grace_sec: float | None = None,
    on_event: Callable[[Event], object] | None = None,
    progress: bool | None = None,
) -> RunReport:
    """Compute what is missing of `roots` and everything they depend on, and return what was done.

    The blocking twin of `run_local_async`, on a new event loop: same arguments, guarantees and errors. With
    `progress=None`, progress is shown if stderr is a terminal and rich (the extra `cli`) is installed.

    In the main thread of a script, the first Ctrl-C cancels the run, prints on stderr which nodes it still
    waits for, and raises KeyboardInterrupt when they have ended. A second Ctrl-C ends the process at once.

    Raises `FuruRunningLoopError` if an event loop is running in this thread: await `run_local_async` there.
    """
    if loop_is_running():
        raise FuruRunningLoopError(
            "run_local() blocks, and this thread's event loop is running: "
            "use `await run_local_async(...)` in place of run_local(...)"
        )
    interrupts = interrupts_of_scripts()  # follows events, to name the running nodes on Ctrl-C
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
    assert report is not None  # noqa: S101  # only a signal cancels it
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
    grace_sec: float | None = None,
    on_event: Callable[[Event], object] | None = None,
    progress: bool | None = None,
) -> RunReport:
    """Compute what is missing of `roots` and everything they depend on, and return what was done.

    Runs on the caller's event loop, asyncio's or trio's, and does not block it: nodes run in threads, nodes
    with an `async def _create` on the loop.

    Guarantees: a node starts after everything it depends on is DONE. Each node is computed once, even if
    other runs need it at the same time. Nodes start in the given `order`. If the run is cancelled, the
    nodes that are running finish and publish before the cancellation is raised.

    Args:
        roots: The wanted nodes. With a window of ``"dfs"`` or an int they may come from a generator, which
            is read, in a worker thread, only as the window moves.
        max_workers: The greatest number of nodes computed at once in threads, or by `workers`.
        max_async: The greatest number of async nodes computed at once. They wait on the loop and need no
            worker, so there may be many.
        window_size: How many roots are active at once: ``"dfs"`` one, ``"bfs"`` all, or an int.
        poll_interval_sec: How often to look at nodes that another process is computing. Nothing else
            is polled.
        workers: What computes the nodes that are not async: threads (None), `ProcessWorkers()` or
            `DaskWorkers(...)`.
        order: Which ready nodes start first: ``"roots"``, in the order of the roots, then depth first; or
            ``"critical-path"``, those with the longest chain of dependents, by the durations of the classes
            in earlier runs. The second one shortens runs that end with a long chain.
        on_failure: ``"stop"``: start no more nodes once a node has failed. ``"continue"``: run everything
            that does not depend on a failed node. Either way the run then raises. An exception raised
            while `roots` is read counts as a failure here, and is raised unchanged.
        retry_failed: Whether nodes that failed in an earlier run are tried again; if not, they fail this
            run.
        spec_limits: The greatest number of nodes computed at once for each spec key
            (`_executor_spec_key()`), such as ``{"gpu": 1}``. A key at its limit delays no other key.
        grace_sec: How long a run that was cancelled, or in which a node failed, waits for its running
            nodes; None: until they end. Then async nodes are cancelled, and threads are left to finish and
            publish by themselves (the interpreter waits for them before it exits).
        on_event: Called on the loop with each event of the run. It must return quickly.
        progress: Whether to show progress on stderr, from a thread of its own; needs rich (the extra
            `cli`). None means no, since stderr belongs to the host application.

    Raises:
        FuruComputeError: Nodes failed. It names the first one and where its state is stored; the original
            exception is its `__cause__`, all failures are in `.failures`, the counts in `.report`.
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
        grace_sec=grace_sec,
        progress=progress,
        order=order,
    )
    window = Window(window_size)
    # Once for all nodes: off the loop, and before a node can change the working directory.
    settings = await in_thread(current_settings)
    async with _showing(settings, max_workers) if progress else contextlib.nullcontext() as shown:
        recorder = Recorder(Sinks(shown, on_event), max_workers=max_workers)
        scheduler = Scheduler(
            discovery=Discovery(
                roots,
                remember=isinstance(roots, Collection),
                retry_failed=retry_failed,
                before_work=lambda: open_store(settings),
                expected_sec=_expected_sec(settings) if order == "critical-path" else None,
            ),
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
        with use_settings(settings):
            return await _to_its_end(scheduler, recorder)
    raise AssertionError("unreachable: `_showing` suppresses no exception")


def _showing(settings: Settings, max_workers: int) -> AbstractAsyncContextManager[Sink]:
    from furu.observing.progress import showing  # imports rich: only if progress is wanted

    return showing(settings, max_workers=max_workers)


def _expected_sec(settings: Settings) -> Callable[[str], float]:
    from furu.observing.durations import ExpectedDurations  # imports the catalogue, which few runs need

    return ExpectedDurations(settings)


async def _to_its_end(scheduler: Scheduler, recorder: Recorder) -> RunReport:
    """Run, and make the report, however the run ends."""
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
        report = recorder.finish(
            end,
            skipped=scheduler.skipped,
            failures=scheduler.failures,
            critical_path=scheduler.critical_path,
        )
        if failed is not None:
            failed.report = report
    return report
