"""Runs one job, in any kind of worker: sets the context, calls `fetch` to compute the node, and returns an
`Outcome`. A node's exception never leaves this module."""

from __future__ import annotations

import contextlib
import time
import traceback
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal

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
            # `force` permits this worker to compute the job's node. A node that is DONE is reused.
            fetched = fetch(job.node, force=True)
        except BaseException as error:
            if isinstance(error, FuruCancelledError) and cancellation.requested:
                return Outcome(job, "cancelled", time.monotonic() - started)
            return failed_outcome(job, error, started)
    end: Literal["computed", "reused"] = "computed" if fetched.computed else "reused"
    return Outcome(job, end, time.monotonic() - started, create_sec=fetched.create_sec)


async def acall(job: Job, backend: str, cancellation: Cancellation) -> Outcome:
    """Compute an async node on this event loop. The caller enters a shielded cancel scope, so that the node
    finishes and publishes even if the run is cancelled. Only the cancellation of that scope, or asyncio's
    own `Task.cancel()`, cancels the node."""
    started = time.monotonic()
    with _worker_context(job, backend, cancellation):
        try:
            computed = (await afetch(job.node, force=True)).computed
        except BaseException as error:
            asked = isinstance(error, FuruCancelledError) and cancellation.requested
            if asked or isinstance(error, anyio.get_cancelled_exc_class()):  # not the node's own exception
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
        replaces=job.replaces,
        cancellation=cancellation,
        timeout_sec=timeout_sec_of(job.node),
    )


def failed_outcome(job: Job, error: BaseException, started: float) -> Outcome:
    """Return the outcome of a job that raised an exception."""
    duration_sec = time.monotonic() - started
    if isinstance(error, FuruInProgressError):
        return Outcome(job, "elsewhere", duration_sec, error)
    if not isinstance(error, FuruComputeError) or error.node is not job.node:
        # Raised before or after `_create`: the store cannot be used, or the artifact cannot be read.
        cause, state_path = error, Path(artifact_of(job.node).files.done)
        error = compute_error(job.node, cause, state_path)
        error.__cause__ = cause
    return Outcome(job, "failed", duration_sec, error)


def dead_outcome(job: Job, error: Exception, started: float) -> Outcome:
    """Return the outcome of a job whose worker died or was killed, and record the failure in the store."""
    duration_sec = time.monotonic() - started
    return Outcome(job, "failed", duration_sec, end_of_dead(job.node, "failed", error, duration_sec))


def drop_frames(error: BaseException | None) -> None:
    """Remove the tracebacks of an error and its causes, which keep frames and their local variables alive.

    The text of each traceback is added as a note. The frames are not cleared, because that would close
    suspended generators and coroutines that have caught the same error.
    """
    seen: set[int] = set()
    pending = [error]
    while pending:
        one = pending.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        if one.__traceback__ is not None:
            if not isinstance(one, FuruError):  # the messages of furu's errors name the stored traceback
                _note_where(one)
            BaseException.with_traceback(one, None)
        pending += [one.__cause__, one.__context__]
        if isinstance(one, BaseExceptionGroup):
            pending += one.exceptions


def _note_where(error: BaseException) -> None:
    lines = traceback.format_tb(error.__traceback__)
    with contextlib.suppress(TypeError):  # the exception's class uses __notes__ for something else
        BaseException.add_note(error, f"Raised here, most recent call last:\n{''.join(lines)}".rstrip())
