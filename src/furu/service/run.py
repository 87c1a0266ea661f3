"""A run as its followers see it, and the errors that followers receive.

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
# The settings, which name the store, and the sorted hashes of the roots. Equal keys share a run.
RunKey = tuple[Settings, tuple[str, ...]]


class RunsFullError(FuruError):
    """Too many runs are running or queued; try again later."""


class RunsClosedError(FuruError):
    """The service has not started, is shutting down or has ended, so no new run starts."""


class RunCancelledError(FuruError):
    """The run that the caller waited for was cancelled. `run` is that run."""

    def __init__(self, message: str, *, run: Run | None = None) -> None:
        super().__init__(message)
        self.run = run


class Run:
    """A run as its followers see it. Only `Runs` changes it.

    `title` is for people. `progress` has the states of the run's nodes. When the run has ended, `report` is
    its report, or None if it has none, for example because it was cancelled. `error` is the exception of a
    failed run. Times are seconds since the epoch.
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

        Raises `RunCancelledError` if the run was cancelled. If the run failed, raises its error, which is a
        `FuruComputeError` if nodes failed and is never an exception group.
        """
        await self._ended.wait()
        if self.error is not None:
            # All followers raise the same object. Its traceback would grow and keep their frames alive.
            raise self.error.with_traceback(None)
        if self.report is None:
            raise RunCancelledError(f"the run {self.id} ({self.title}) was cancelled", run=self)
        return self.report


def error_for_followers(run: Run, error: BaseException) -> Exception:
    """Log why a run failed, and return the error that its followers raise, never an exception group."""
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
