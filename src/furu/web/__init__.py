"""furu in a web service: runs behind requests, and pages to watch them (extra `web`).

runs.py       runs that requests share, bounded and drained
progress.py   how far a run has come
jobs.py       what clients may start
"""

from furu.web.jobs import Job, JobInputError, job
from furu.web.runs import Run, RunCancelledError, Runs, RunsClosedError, RunsFullError

__all__ = [
    "Job",
    "JobInputError",
    "Run",
    "RunCancelledError",
    "Runs",
    "RunsClosedError",
    "RunsFullError",
    "job",
]
