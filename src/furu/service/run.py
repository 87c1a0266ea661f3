"""One run as its followers see it, and the errors that they get.

queued -> running -> finished | failed | cancelled
queued -> cancelled
"""

from __future__ import annotations

import logging
import secrets
import time
from typing import Any, Literal

import anyio

from furu._common.text import describe_error
from furu.errors import FuruComputeError, FuruError
from furu.node.furu import Furu
from furu.report import RunReport
from furu.service.progress import Progress
from furu.settings import Settings

__all__ = [
    "OnDisconnect",
    "Run",
    "RunCancelledError",
    "RunKey",
    "RunState",
    "RunsClosedError",
    "RunsFullError",
    "error_for_followers",
]

logger = logging.getLogger("furu.service")

RunState = Literal["queued", "running", "finished", "failed", "cancelled"]
OnDisconnect = Literal["cancel", "finish"]
# The settings, which name the store, and the sorted hashes of the roots: equal keys share a run.
RunKey = tuple[Settings, tuple[str, ...]]


class RunsFullError(FuruError):
    """The limits on running and queued runs are reached: try again later."""


class RunsClosedError(FuruError):
    """The service has not started, is shutting down or has ended, so no new run starts."""


class RunCancelledError(FuruError):
    """The run that was waited for was cancelled; `run` is the run."""

    def __init__(self, message: str, *, run: Run | None = None) -> None:
        super().__init__(message)
        self.run = run


class Run:
    """One run, as its followers read it; only `Runs` changes it.

    `title` is for people. `progress` says how far the run has come. Once it has ended, `report` holds its
    counts, or None if it was cancelled, and `error` says why it failed. Times are seconds since the epoch.
    """

    def __init__(
        self, roots: tuple[Furu[Any], ...], key: RunKey, title: str, on_disconnect: OnDisconnect
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
        """Wait until the run has finished, failed or been cancelled."""
        await self._ended.wait()

    async def wait(self) -> RunReport:
        """Wait until the run has ended, and return its report.

        Raises the error that the run failed with, which is a `FuruComputeError` if nodes failed and never
        an exception group, and `RunCancelledError` if the run was cancelled.
        """
        await self._ended.wait()
        if self.error is not None:
            # Its traceback would otherwise grow, and keep the frames of every follower alive.
            raise self.error.with_traceback(None)
        if self.report is None:
            raise RunCancelledError(f"the run {self.id} ({self.title}) was cancelled", run=self)
        return self.report


def error_for_followers(run: Run, error: BaseException) -> Exception:
    """Log why a run failed, and return what its followers raise: an `Exception` that is not a group."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    if isinstance(error, FuruComputeError):
        logger.error("the run %s (%s) failed: %s", run.id, run.title, error)
        return error
    logger.error("the run %s (%s) ended with an error", run.id, run.title, exc_info=error)
    if isinstance(error, Exception) and not isinstance(error, ExceptionGroup):
        return error
    wrapped = FuruError(f"the run {run.id} ({run.title}) ended with {describe_error(error)}")
    wrapped.__cause__ = error
    return wrapped
