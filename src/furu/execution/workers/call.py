"""Runs one job in any kind of worker: sets the context, lets `fetch` compute the node, and turns the result
into an `Outcome`. No exception of a node passes this module."""

from __future__ import annotations

import contextlib
import time
import traceback
from contextlib import AbstractContextManager
from pathlib import Path

import anyio

from furu.context import Cancellation, ExecContext, executor_context
from furu.errors import FuruCancelledError, FuruComputeError, FuruError, FuruInProgressError
from furu.execution.workers.base import Job, Outcome
from furu.node.base import artifact_of, timeout_sec_of
from furu.node.failure import compute_error, end_of_dead
from furu.node.fetch import afetch, fetch


def call(job: Job, backend: str, cancellation: Cancellation) -> Outcome:
    """Compute a node in this thread."""
    started = time.monotonic()
    with _worker_context(job, backend, cancellation):
        try:
            # `force` permits this worker to compute its own node; a node that is DONE is reused.
            computed = fetch(job.node, force=True).computed
        except BaseException as error:
            if isinstance(error, FuruCancelledError) and cancellation.requested:
                return Outcome(job, "cancelled", time.monotonic() - started)
            return failed_outcome(job, error, started)
    return Outcome(job, "computed" if computed else "reused", time.monotonic() - started)


async def acall(job: Job, backend: str, cancellation: Cancellation) -> Outcome:
    """Compute an async node on this event loop. The caller's scope is shielded, so the node finishes and
    publishes like one in a thread. Only that scope, or asyncio's own `Task.cancel()`, cancels it."""
    started = time.monotonic()
    with _worker_context(job, backend, cancellation):
        try:
            computed = (await afetch(job.node, force=True)).computed
        except BaseException as error:
            asked = isinstance(error, FuruCancelledError) and cancellation.requested
            if asked or isinstance(error, anyio.get_cancelled_exc_class()):  # not one of the node's own
                return Outcome(job, "cancelled", time.monotonic() - started)
            return failed_outcome(job, error, started)
    return Outcome(job, "computed" if computed else "reused", time.monotonic() - started)


def _worker_context(
    job: Job, backend: str, cancellation: Cancellation
) -> AbstractContextManager[ExecContext]:
    return executor_context(
        spec_key=job.spec_key,
        backend=backend,
        node_hash=job.key,
        cancellation=cancellation,
        timeout_sec=timeout_sec_of(job.node),
    )


def failed_outcome(job: Job, error: BaseException, started: float) -> Outcome:
    """Return the outcome of a job that raised an exception."""
    duration_sec = time.monotonic() - started
    if isinstance(error, FuruInProgressError):
        return Outcome(job, "elsewhere", duration_sec, error)
    if not isinstance(error, FuruComputeError) or error.node is not job.node:
        # Raised before or after `_create`: the store could not be used, or the artifact not be read.
        cause, state_path = error, Path(artifact_of(job.node).files.done)
        error = compute_error(job.node, cause, state_path)
        error.__cause__ = cause
    return Outcome(job, "failed", duration_sec, error)


def dead_outcome(job: Job, error: Exception, started: float) -> Outcome:
    """Return the outcome of a job whose worker died or was killed, and record it in the store."""
    duration_sec = time.monotonic() - started
    return Outcome(job, "failed", duration_sec, end_of_dead(job.node, "failed", error, duration_sec))


def drop_frames(error: BaseException | None) -> None:
    """Release the frames, with their local variables, that an error and its causes keep alive.

    A note keeps the traceback as text. The frames are not cleared: that would close suspended generators
    and coroutines that have caught the same error.
    """
    seen: set[int] = set()
    pending = [error]
    while pending:
        one = pending.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        if one.__traceback__ is not None:
            if not isinstance(one, FuruError):  # furu's own message says where the traceback is stored
                _note_where(one)
            BaseException.with_traceback(one, None)
        pending += [one.__cause__, one.__context__]
        if isinstance(one, BaseExceptionGroup):
            pending += one.exceptions


def _note_where(error: BaseException) -> None:
    lines = traceback.format_tb(error.__traceback__)
    with contextlib.suppress(TypeError):  # a class that keeps something else in __notes__
        BaseException.add_note(error, f"Raised here, most recent call last:\n{''.join(lines)}".rstrip())
