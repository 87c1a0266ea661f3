"""What a worker does with one node, whatever kind of worker it is: set the context, compute, and turn
whatever happens into an `Outcome`. Nothing that a node raises goes past here."""

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
            computed = fetch(job.node, force=True).computed
        except BaseException as error:
            if isinstance(error, FuruCancelledError) and cancellation.requested:
                return Outcome(job, "cancelled", time.monotonic() - started)
            return failed_outcome(job, error, started)
    return Outcome(job, "computed" if computed else "reused", time.monotonic() - started)


async def acall(job: Job, backend: str, cancellation: Cancellation) -> Outcome:
    """Compute an async node on this event loop, in a shielded scope of the caller's: like a node in a
    thread it finishes and publishes. Only that scope cancels it, or asyncio's own `Task.cancel()`."""
    started = time.monotonic()
    with _worker_context(job, backend, cancellation):
        try:
            computed = (await afetch(job.node, force=True)).computed
        except BaseException as error:
            asked = isinstance(error, FuruCancelledError) and cancellation.requested
            if asked or isinstance(error, anyio.get_cancelled_exc_class()):  # the node's own is a failure
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
    """Turn what came of a job instead of a value into its outcome."""
    duration_sec = time.monotonic() - started
    if isinstance(error, FuruInProgressError):
        return Outcome(job, "elsewhere", duration_sec, error)
    if not isinstance(error, FuruComputeError) or error.node is not job.node:
        # Before or after `_create`: the store could not be used, the artifact could not be read.
        cause, state_path = error, Path(artifact_of(job.node).files.directory)
        error = compute_error(job.node, cause, state_path)
        error.__cause__ = cause
    return Outcome(job, "failed", duration_sec, error)


def dead_outcome(job: Job, error: Exception, started: float) -> Outcome:
    """Fail a job whose worker died of it, or was killed, and record that in the store in its place."""
    duration_sec = time.monotonic() - started
    return Outcome(job, "failed", duration_sec, end_of_dead(job.node, "failed", error, duration_sec))


def drop_frames(error: BaseException | None) -> None:
    """Let go of the frames, and so of the local variables, that an error and its causes keep alive.

    Where each was raised stays as text, in a note. The frames are not cleared: that would close a
    generator or a coroutine, of any node, that has caught the same error and is suspended.
    """
    seen: set[int] = set()
    pending = [error]
    while pending:
        one = pending.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        if one.__traceback__ is not None:
            if not isinstance(one, FuruError):  # the message of furu's own says where the node's is
                _note_where(one)
            BaseException.with_traceback(one, None)
        pending += [one.__cause__, one.__context__]
        if isinstance(one, BaseExceptionGroup):
            pending += one.exceptions


def _note_where(error: BaseException) -> None:
    lines = traceback.format_tb(error.__traceback__)
    with contextlib.suppress(TypeError):  # a class that keeps something else in __notes__
        BaseException.add_note(error, f"Raised here, most recent call last:\n{''.join(lines)}".rstrip())
