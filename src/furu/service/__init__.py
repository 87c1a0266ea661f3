"""Runs that many callers share: bounded, drained at the end, without HTTP and without an extra."""

from furu.service.run import Run, RunCancelledError, RunsClosedError, RunsFullError
from furu.service.runs import Runs

__all__ = ["Run", "RunCancelledError", "Runs", "RunsClosedError", "RunsFullError"]
