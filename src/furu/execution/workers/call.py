"""What a worker does with one node, whatever kind of worker it is: set the context, compute, and turn
whatever happens into an `Outcome`. Nothing that a node raises goes past here."""

from __future__ import annotations

import time
from pathlib import Path

from furu.context import executor_context
from furu.core import compute_error
from furu.errors import FuruComputeError, FuruInProgressError
from furu.execution.workers.base import Job, Outcome


def call(job: Job, backend: str) -> Outcome:
    """Compute a node in this thread."""
    started = time.monotonic()
    with executor_context(spec_key=job.spec_key, backend=backend, node_hash=job.key):
        try:
            computed = job.node._fetch(force=True).computed
        except BaseException as error:
            return failed_outcome(job, error, started)
    return Outcome(job, "computed" if computed else "reused", time.monotonic() - started)


async def acall(job: Job, backend: str) -> Outcome:
    """Compute an async node on this event loop. The caller shields it: like a node in a thread it
    finishes and publishes, so a `CancelledError` in here is the node's own."""
    started = time.monotonic()
    with executor_context(spec_key=job.spec_key, backend=backend, node_hash=job.key):
        try:
            computed = (await job.node._afetch(force=True)).computed
        except BaseException as error:
            return failed_outcome(job, error, started)
    return Outcome(job, "computed" if computed else "reused", time.monotonic() - started)


def failed_outcome(job: Job, error: BaseException, started: float) -> Outcome:
    """Turn what came of a job instead of a value into its outcome."""
    duration_sec = time.monotonic() - started
    if isinstance(error, FuruInProgressError):
        return Outcome(job, "elsewhere", duration_sec, error)
    if not isinstance(error, FuruComputeError) or error.node is not job.node:
        # Before or after `_create`: the store could not be used, the artifact could not be read.
        cause, state_path = error, Path(job.node._artifact().files.directory)
        error = compute_error(job.node, cause, state_path)
        error.__cause__ = cause
    return Outcome(job, "failed", duration_sec, error)
