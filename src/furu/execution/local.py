"""`run_local` and `run_local_async`: wiring only. What each part does is in the module it comes from."""

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
    check_grace,
    check_max_workers,
    check_on_failure,
    check_poll_interval,
    check_progress,
    check_roots,
    check_spec_limits,
    check_workers,
    progress_is_wanted,
)
from furu.execution.scheduler import OnFailure, Scheduler
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
    max_workers: int = 8,
    window_size: str | int = "bfs",
    poll_interval_sec: float = 0.25,
    workers: Workers | None = None,
    on_failure: OnFailure = "stop",
    retry_failed: bool = True,
    spec_limits: Mapping[str, int] | None = None,
    grace_sec: float | None = None,
    on_event: Callable[[Event], object] | None = None,
    progress: bool | None = None,
) -> RunReport:
    """Compute what is missing of `roots` and all they depend on; return what was done.

    `run_local_async` on an event loop of its own: the same arguments, guarantees and errors. With
    `progress=None` it is shown where stderr is a terminal and rich (the extra `cli`) is installed.

    In a script's main thread the first Ctrl-C cancels the run and says on stderr which nodes it waits for,
    and then KeyboardInterrupt is raised; the second ends the program at once.

    Raises `FuruRunningLoopError` where an event loop is running already: await `run_local_async` there.
    """
    if loop_is_running():
        raise FuruRunningLoopError(
            "run_local() blocks, and this thread's event loop is running: "
            "use `await run_local_async(...)` in place of run_local(...)"
        )
    interrupts = interrupts_of_scripts()
    run = functools.partial(
        run_local_async,
        roots,
        max_workers=max_workers,
        window_size=window_size,
        poll_interval_sec=poll_interval_sec,
        workers=workers,
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
    max_workers: int = 8,
    window_size: str | int = "bfs",
    poll_interval_sec: float = 0.25,
    workers: Workers | None = None,
    on_failure: OnFailure = "stop",
    retry_failed: bool = True,
    spec_limits: Mapping[str, int] | None = None,
    grace_sec: float | None = None,
    on_event: Callable[[Event], object] | None = None,
    progress: bool | None = None,
) -> RunReport:
    """Compute what is missing of `roots` and everything they depend on, and return what was done.

    Runs on the caller's event loop, asyncio's or trio's, and keeps it free: nodes run in threads, or
    on the loop where their `_create` is async.

    Guarantees: a node starts after everything it depends on is DONE; each node is computed once, also
    if other runs need it at the same time; nodes start in the order of the roots, then depth first.
    If the run is cancelled, running nodes finish and publish before the cancellation goes on its way.

    Args:
        roots: The nodes that are wanted. With a window of ``"dfs"`` or an int they may come from a
            generator, which is read only as the window moves (in a worker thread).
        max_workers: How many nodes are computed at once, at most, in threads; as many async ones.
        window_size: How many roots are active at once: ``"dfs"`` one, ``"bfs"`` all, or an int.
        poll_interval_sec: How often to look at nodes that another process is computing. Nothing else
            is polled.
        workers: What computes the nodes that are not async: threads (None), `ProcessWorkers()`,
            `DaskWorkers(...)` of `furu.execution.workers`.
        on_failure: ``"stop"``: start nothing more once a node has failed. ``"continue"``: run all
            that does not depend on it. Either way the run then raises. An error that reading `roots` raises
            counts as a failure here, and is raised as it is.
        retry_failed: Whether a node that failed in an earlier run is tried again, or fails this run.
        spec_limits: How many nodes of a spec key (`_executor_spec_key()`) are computed at once, at most,
            such as ``{"gpu": 1}``. A key at its limit keeps no other waiting.
        grace_sec: How long a run that was cancelled, or in which a node failed, waits for its running
            nodes; None: to their end. After that async nodes are cancelled, and threads are left to
            finish and publish by themselves (the interpreter waits for them before it exits).
        on_event: Called on the loop with each event of the run; it must return soon.
        progress: Whether to show on stderr, in a thread of its own, how far the run is; needs rich (the
            extra `cli`). None: no, for stderr is the host application's.

    Raises:
        FuruComputeError: Nodes failed. It names the first and where its state is stored; the original
            is its `__cause__`, all failures are in `.failures`, the counts in `.report`.
        FuruCycleError: Nodes depend on each other in a circle.
        FuruStoreError: The store cannot be used.
        FuruUsageError, TypeError, ValueError: An argument is not what it must be.
    """
    check_roots(roots)
    check_max_workers(max_workers)
    check_poll_interval(poll_interval_sec)
    check_workers(workers)
    check_on_failure(on_failure)
    check_spec_limits(spec_limits)
    check_grace(grace_sec)
    check_progress(progress)
    window = Window(window_size)
    # Here and not in each node: looked up once, off the loop, and proof against a later chdir.
    settings = await in_thread(current_settings)
    async with _showing(settings, max_workers) if progress else contextlib.nullcontext() as shown:
        recorder = Recorder(Sinks(shown, on_event), max_workers=max_workers)
        scheduler = Scheduler(
            discovery=Discovery(
                roots,
                remember=isinstance(roots, Collection),
                retry_failed=retry_failed,
                before_work=lambda: open_store(settings),
            ),
            window=window,
            workers=workers or ThreadWorkers(),
            async_workers=EventLoopWorkers(),
            max_workers=max_workers,
            emit=recorder,
            poll_interval_sec=poll_interval_sec,
            on_failure=on_failure,
            spec_limits=spec_limits or {},
            grace_sec=grace_sec,
        )
        recorder(RunStarted(max_workers, window_size, time.time()))
        with use_settings(settings):
            return await _to_its_end(scheduler, recorder)
    raise AssertionError("showing a run swallows nothing")


def _showing(settings: Settings, max_workers: int) -> AbstractAsyncContextManager[Sink]:
    from furu.observing.progress import showing  # with what it counts and draws by: only where it is wanted

    return showing(settings, max_workers=max_workers)


async def _to_its_end(scheduler: Scheduler, recorder: Recorder) -> RunReport:
    """Run, and report it however it ends."""
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
        report = recorder.finish(end, skipped=scheduler.skipped, failures=scheduler.failures)
        if failed is not None:
            failed.report = report
    return report
