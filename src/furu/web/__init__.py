"""Runs behind the requests of a web service, and pages to watch them (extra `web`).

jobs.py       what clients may start
html.py       HTML whose text is escaped (pure)
drawing.py    a graph as SVG (pure)
reading.py    what clients see of the store and of runs, as values
parts.py      what pages are made of (pure)
pages.py      the pages (pure)
responses.py  what every response has in common
requests.py   what a request may say
events.py     a run as a response: live, or once it has ended
queries.py    look-ups, off the loop
asgi.py       the application: routes and handlers
static/       the style and the script of the pages
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
