"""furu in a web service: runs behind requests, and pages to watch them (extra `web`).

runs.py       runs that requests share, bounded and drained
progress.py   how far a run has come (pure)
jobs.py       what clients may start
graph.py      the graph under a run's roots, as values
html.py       HTML whose text is escaped (pure)
drawing.py    a graph as SVG (pure)
reading.py    what clients see of the store and the runs, as values
pages.py      the pages (pure)
events.py     a run as a response: live or at its end
asgi.py       the application: routes and limits
static/       the style and the live part of the pages
"""

try:
    import starlette  # noqa: F401  # so that the error names the extra
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        'furu.web needs starlette: pip install "furu[web]"', name="starlette"
    ) from error

from furu.web.asgi import app
from furu.web.events import FollowRun, RunEvents
from furu.web.jobs import Job, JobInputError, job

__all__ = [
    "FollowRun",
    "Job",
    "JobInputError",
    "RunEvents",
    "app",
    "job",
]
