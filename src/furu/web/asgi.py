"""The application: routes, what a request may say, and the headers of every response. Read-only but for the
jobs that the service registered; looks nodes up by their whole hash, and runs by their id.

Everything that touches the disk or builds a long page runs in threads. Jobs, pages of runs and pages of the
store each have threads of their own, so that none of them waits for another kind.
"""

from __future__ import annotations

import importlib.resources
import logging
import re
import weakref
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any, TypeVar, TypeVarTuple
from urllib.parse import quote

import anyio
import anyio.to_thread
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from furu import FuruUsageError
from furu.errors import FuruError
from furu.graph import Graph, make_graph
from furu.service import Run, Runs, RunsClosedError, RunsFullError
from furu.settings import current_settings
from furu.web.events import FollowRun, RunEvents, json_response, refusal
from furu.web.jobs import Job, JobInputError
from furu.web.pages import Pages
from furu.web.reading import (
    SEE_LOG,
    STATES,
    NodeFacts,
    RunFacts,
    StoreSummary,
    describe_node,
    list_nodes,
    node_values,
    read_node,
    run_facts,
    summarize_store,
    take_snapshot,
)

R = TypeVar("R")
Ts = TypeVarTuple("Ts")

logger = logging.getLogger("furu.web")

DEFAULT_MAX_BODY_BYTES = 2**20
# Of each kind. Few: a page that is slow to make must not take the CPU from the service.
_THREADS = 2
_MAX_CLASS_CHARS = 1_000
# Longer pages do not help people.
_MAX_GRAPH_NODES = 20_000
_HASH = re.compile(r"[0-9a-f]{32}\Z")
_NUMBER = re.compile(r"[0-9]{1,15}\Z")
_STATIC = {
    "style.css": "text/css; charset=utf-8",
    "live.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
# Read once, when the module is imported: an application may be made on a running loop.
_CONTENTS = {
    name: importlib.resources.files("furu.web").joinpath("static", name).read_bytes() for name in _STATIC
}
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}


def app(
    runs: Runs,
    *,
    jobs: Iterable[Job] = (),
    max_body_bytes: int = DEFAULT_MAX_BODY_BYTES,
    show_details: bool = False,
) -> Starlette:
    """Return an application with the pages and the JSON of `runs`, to mount in any ASGI application.

    It shows the runs of this process, their graphs and progress, and the store that is in force where a
    request comes in: configurations (without fields that are made with ``repr=False``), states and results.
    Nothing that a request says names a class to import or a path to read. It does not authenticate: mount
    it where only people who may see this can reach it.

    A mounted application has no lifespan of its own, so the host's lifespan enters `runs`. Served by itself
    it enters them.

    Args:
        runs: The runs of the service.
        jobs: What clients may start, by `POST api/jobs/<name>` with a JSON object. Those with
            ``on_disconnect="finish"`` answer 202 at once, the others when the run has ended; with
            ``Accept: text/event-stream`` both stream the run's progress.
        max_body_bytes: The longest body of such a request; a longer one is answered 413.
        show_details: Whether clients see what may hold paths and other internals: messages of exceptions,
            tracebacks, logs, owners and directories. Without it they see which nodes failed and the class
            of each error, and the log ``furu.web`` has the rest.

    Raises:
        FuruUsageError: Two jobs have one name, or something is not a job.
    """
    site = _Site(runs, _by_name(jobs), max_body_bytes, show_details)
    routes = [
        Route("/", site.index),
        Route("/runs/{run}", site.run_page),
        Route("/nodes/{hash}", site.node_page),
        Route("/store", site.store_page),
        Route("/store/nodes", site.nodes_page),
        Route("/api/runs", site.runs),
        Route("/api/runs/{run}", site.run),
        Route("/api/runs/{run}/graph", site.graph),
        Route("/api/runs/{run}/events", site.events),
        Route("/api/nodes/{hash}", site.node),
        Route("/api/store", site.store),
        Route("/api/jobs", site.list_jobs),
        Route("/api/jobs/{job}", site.start_job, methods=["POST"]),
        *(Route(f"/static/{name}", _static(name, kind)) for name, kind in _STATIC.items()),
    ]

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with runs:
            yield

    application = Starlette(
        routes=routes,
        middleware=[Middleware(_Guarded)],
        exception_handlers={HTTPException: _refused, ClientDisconnect: _left, FuruError: site.failed},
        lifespan=lifespan,
    )
    application.router.redirect_slashes = False  # the redirect would go to the host that the request names
    return application


class _Site:
    """The handlers of one application."""

    def __init__(self, runs: Runs, jobs: dict[str, Job], max_body_bytes: int, show_details: bool) -> None:
        self._runs = runs
        self._jobs = jobs
        self._max_body_bytes = max_body_bytes
        self._show_details = show_details
        self._for_jobs, self._for_runs, self._for_store = (
            anyio.CapacityLimiter(_THREADS) for _ in range(3)
        )
        # A walk of a large graph takes long, and a run's graph does not change: one walk a run.
        self._graphs: weakref.WeakKeyDictionary[Run, Graph] = weakref.WeakKeyDictionary()
        self._walks: weakref.WeakKeyDictionary[Run, anyio.Lock] = weakref.WeakKeyDictionary()

    # ---- pages ----

    async def index(self, request: Request) -> Response:
        live, recent = (list(map(self._facts, runs)) for runs in (self._runs.live(), self._runs.recent()))
        return _html(Pages(_base(request)).index(live, recent, self._jobs.values()))

    async def run_page(self, request: Request) -> Response:
        run = self._run_of(request)
        graph: Graph | None = None
        problem = ""
        try:
            graph = await self._graph_of(run)
        except Exception as error:  # of the service's own classes; the rest of the page is still right
            logger.exception("the graph of the run %s (%s) cannot be shown", run.id, run.title)
            reason = error if self._show_details else f"{type(error).__qualname__}. {SEE_LOG}"
            problem = f"The graph cannot be shown: {reason}"
        snapshot = take_snapshot(run, show_details=self._show_details)  # last: as fresh as can be
        page = Pages(_base(request)).run
        return _html(await _in_thread(self._for_runs, page, snapshot, graph, problem))

    async def node_page(self, request: Request) -> Response:
        facts, run = await self._node_of(request)
        pages = Pages(_base(request))
        if run is None:
            return _html(await _in_thread(self._for_store, pages.node, facts))
        graph, snapshot = await self._graph_of(run), take_snapshot(run, show_details=self._show_details)

        def make() -> str:
            return pages.node(facts, snapshot.facts, snapshot.states(graph)[facts.hash])

        return _html(await _in_thread(self._for_runs, make))

    async def store_page(self, request: Request) -> Response:
        pages = Pages(_base(request))
        return _html(await _in_thread(self._for_store, lambda: pages.store(self._summary())))

    async def nodes_page(self, request: Request) -> Response:
        node_class, state, after = _listing_of(request)
        pages = Pages(_base(request))

        def make() -> str:
            return pages.nodes(list_nodes(current_settings(), node_class, state, after), state)

        return _html(await _in_thread(self._for_store, make))

    # ---- JSON ----

    async def runs(self, request: Request) -> Response:
        return json_response([self._facts(run) for run in [*self._runs.live(), *self._runs.recent()]])

    async def run(self, request: Request) -> Response:
        return json_response(self._facts(self._run_of(request)))

    async def graph(self, request: Request) -> Response:
        graph = await self._graph_of(self._run_of(request))
        return await _in_thread(
            self._for_runs, json_response, {"nodes": graph.nodes, "is_cut": graph.is_cut}
        )

    async def events(self, request: Request) -> Response:
        text = request.headers.get("last-event-id") or request.query_params.get("after") or "0"
        if not _NUMBER.match(text):
            raise HTTPException(400, "Last-Event-ID and after must be a number that an event had as its id")
        return RunEvents(self._run_of(request), after=int(text), show_details=self._show_details)

    async def node(self, request: Request) -> Response:
        facts, _ = await self._node_of(request)
        return json_response(node_values(facts))

    async def store(self, request: Request) -> Response:
        return json_response(await _in_thread(self._for_store, self._summary))

    async def list_jobs(self, request: Request) -> Response:
        return json_response({name: one.parameters() for name, one in self._jobs.items()})

    async def start_job(self, request: Request) -> Response:
        job = self._jobs.get(request.path_params["job"])
        if job is None:
            raise HTTPException(404, "this service has no such job")
        # A page of another site can post forms and plain text unasked, but no JSON.
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise HTTPException(415, "the body must be application/json")
        body = await self._read_body(request)
        try:
            roots = await _in_thread(self._for_jobs, job.make_roots, body)
        except JobInputError as error:
            raise HTTPException(422, str(error)) from error
        stream = "text/event-stream" in request.headers.get("accept", "")
        if stream or job.on_disconnect == "cancel":
            return FollowRun(
                self._runs,
                roots,
                title=job.name,
                on_disconnect=job.on_disconnect,
                stream=stream,
                show_details=self._show_details,
            )
        try:
            run = await self._runs.submit(roots, title=job.name)
        except (RunsFullError, RunsClosedError) as error:
            return refusal(error)
        return json_response(self._facts(run), 202, {"location": f"{_base(request)}/api/runs/{run.id}"})

    # ---- parts ----

    def _run_of(self, request: Request) -> Run:
        run = self._runs.get(request.path_params["run"])
        if run is None:
            raise HTTPException(404, "this process has no such run, or no longer keeps it")
        return run

    async def _read_body(self, request: Request) -> bytes:
        body = bytearray()
        async with aclosing(request.stream()) as chunks:
            async for chunk in chunks:
                body += chunk
                if len(body) > self._max_body_bytes:
                    most = self._max_body_bytes
                    raise HTTPException(413, f"the body must not have more than {most} bytes")
        return bytes(body)

    def _facts(self, run: Run) -> RunFacts:
        return run_facts(run, show_details=self._show_details)

    def _summary(self) -> StoreSummary:
        return summarize_store(current_settings(), show_details=self._show_details)

    async def _graph_of(self, run: Run) -> Graph:
        async with self._walks.setdefault(run, anyio.Lock()):
            graph = self._graphs.get(run)
            if graph is None:
                graph = self._graphs[run] = await _in_thread(
                    self._for_runs, make_graph, run.roots, _MAX_GRAPH_NODES
                )
        return graph

    async def _node_of(self, request: Request) -> tuple[NodeFacts, Run | None]:
        """Look a node up in the store, and if its configuration is not recorded yet, in the runs."""
        node_hash = _hash_of(request)
        facts = await _in_thread(
            self._for_store,
            lambda: read_node(current_settings(), node_hash, show_details=self._show_details),
        )
        if facts is not None and facts.config is not None:
            return facts, None
        for run in [*self._runs.live(), *self._runs.recent()]:
            graph: Graph | None = None
            with suppress(Exception):  # the page of the run says why it has no graph
                graph = await self._graph_of(run)
            if graph is not None and (node := graph.sources.get(node_hash)) is not None:
                return await _in_thread(self._for_runs, describe_node, node, facts), run
        if facts is None:
            raise HTTPException(404, "neither the store nor a run of this process has such a node")
        return facts, None

    async def failed(self, request: Request, error: Exception) -> Response:
        """Answer for an error of furu's own, which is logged."""
        logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return _said(request, 500, str(error) if self._show_details else f"This failed. {SEE_LOG}")


async def _in_thread(limiter: anyio.CapacityLimiter, function: Callable[[*Ts], R], *args: *Ts) -> R:
    return await anyio.to_thread.run_sync(function, *args, limiter=limiter)


class _Guarded:
    """Adds the headers that keep browsers from running, framing or guessing at a response."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
            await send(message)

        await self._app(scope, receive, send_guarded if scope["type"] == "http" else send)


def _by_name(jobs: Iterable[Job]) -> dict[str, Job]:
    found: dict[str, Job] = {}
    for one in jobs:
        if not isinstance(one, Job):
            raise FuruUsageError(f"jobs are made by furu.web.job(name, function), not {one!r}")
        if one.name in found:
            raise FuruUsageError(f"two jobs are called {one.name}")
        found[one.name] = one
    return found


def _static(name: str, kind: str) -> Callable[[Request], Any]:
    content = _CONTENTS[name]

    async def answer(request: Request) -> Response:
        return Response(content, headers={"content-type": kind, "cache-control": "no-cache"})

    return answer


def _html(page: str, status_code: int = 200) -> Response:
    return HTMLResponse(page, status_code, {"cache-control": "no-store"})


def _base(request: Request) -> str:
    """The path that the application is mounted at, as the start of links within this server."""
    path = quote(request.scope.get("root_path", "").strip("/"), safe="/~")
    return f"/{path}" if path else ""


def _hash_of(request: Request) -> str:
    text: str = request.path_params["hash"]
    if not _HASH.match(text):
        raise HTTPException(404, "a node is looked up by its hash of 32 hexadecimal digits")
    return text


def _listing_of(request: Request) -> tuple[str, str | None, str]:
    node_class = request.query_params.get("class", "")
    state = request.query_params.get("state")
    after = request.query_params.get("after", "")
    if not node_class or len(node_class) > _MAX_CLASS_CHARS:
        raise HTTPException(400, "class must be the name of a class in the store")
    if state is not None and state not in STATES:
        raise HTTPException(400, f"state must be one of {', '.join(STATES)}")
    if after and not _HASH.match(after):
        raise HTTPException(400, "after must be a hash of 32 hexadecimal digits")
    return node_class, state, after


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101  # it is registered for these
    return _said(request, error.status_code, error.detail, error.headers)


async def _left(request: Request, error: Exception) -> Response:
    """Answer a client that left while it sent its body: it is gone, and that is not an error of ours."""
    return Response(status_code=400)


def _said(request: Request, status_code: int, message: str, headers: Any = None) -> Response:
    path: str = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
    if path.startswith("/api/"):
        return json_response({"error": message}, status_code, headers)
    answer = _html(Pages(_base(request)).error(status_code, message), status_code)
    answer.headers.update(headers or {})
    return answer
