"""Runs that many callers share, with limits and a graceful shutdown. Needs neither HTTP nor an extra."""

from furu.service.run import Run, RunCancelledError, RunsClosedError, RunsFullError
from furu.service.runs import Runs

__all__ = ["Run", "RunCancelledError", "Runs", "RunsClosedError", "RunsFullError"]
