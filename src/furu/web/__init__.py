"""Runs for the requests of a web service, and pages to watch them. Needs the extra `web`."""

try:
    import starlette  # noqa: F401  # so that the error names the extra
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        'furu.web needs starlette: pip install "furu[web]"', name="starlette"
    ) from error

from furu.service import Run, RunCancelledError, Runs, RunsClosedError, RunsFullError
from furu.web.asgi import app
from furu.web.events import FollowRun, RunEvents
from furu.web.jobs import Job, JobInputError, job

__all__ = [
    "FollowRun",
    "Job",
    "JobInputError",
    "Run",
    "RunCancelledError",
    "RunEvents",
    "Runs",
    "RunsClosedError",
    "RunsFullError",
    "app",
    "job",
]
