"""Runs that many callers share: bounded, drained at the end, without HTTP and without an extra.

run.py        one run as its followers see it
progress.py   how far a run has come (pure)
runs.py       the runs of one service
"""

from furu.service.run import Run, RunCancelledError, RunsClosedError, RunsFullError
from furu.service.runs import Runs

__all__ = ["Run", "RunCancelledError", "Runs", "RunsClosedError", "RunsFullError"]
