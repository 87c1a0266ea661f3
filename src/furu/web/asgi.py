"""The application: its routes and handlers. It is read-only, except that clients may start jobs."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

import furu.web.responses as responses
from furu._common.checks import check_flag, check_int
from furu.errors import FuruError, FuruUsageError
from furu.graph import Graph
from furu.service import Run, Runs, RunsClosedError, RunsFullError
from furu.web.events import FollowRun, RunEvents
from furu.web.jobs import Job, JobInputError
from furu.web.pages import Pages
from furu.web.queries import Queries
from furu.web.reading import SEE_LOG, NodeFacts, node_values
from furu.web.requests import event_number, json_body, listing, node_hash, wants_stream

__all__ = ["app"]

logger = logging.getLogger("furu.web")

DEFAULT_MAX_BODY_BYTES = 2**20


def app(
    runs: Runs,
    *,
    jobs: Iterable[Job] = (),
    max_body_bytes: int = DEFAULT_MAX_BODY_BYTES,
    show_details: bool = False,
) -> Starlette:
    """Return an application that shows `runs` as pages and as JSON, to mount in any ASGI application.

    It shows the runs of this process, with their graphs and progress. It also shows the nodes of the store
    that the settings name during the request: configurations (without fields that have ``repr=False``),
    states and results. Requests cannot name a class to import or a path to read. The application does not
    authenticate clients: mount it where only people who may see all this can reach it.

    The lifespan of a mounted application does not run, so enter `runs` in the lifespan of the host. If the
    application is served by itself, its own lifespan enters `runs`.

    Args:
        runs: The runs of the service.
        jobs: The jobs that clients may start with `POST api/jobs/<name>` and a JSON object. A job with
            ``on_disconnect="finish"`` answers 202 at once, any other job when its run has ended. With
            ``Accept: text/event-stream``, both kinds stream the progress of the run.
        max_body_bytes: The largest body of a request that starts a job. A larger body is answered with 413.
        show_details: Whether clients see details that may contain paths and other internals: exception
            messages, tracebacks, logs, owners and directories. Otherwise they see which nodes failed and
            the class of each error, and the logs ``furu.service`` and ``furu.web`` have the rest.

    Raises:
        TypeError, ValueError: An argument has a wrong type or value.
        FuruUsageError: Two jobs have the same name, or an item of `jobs` is not a job.
    """
    check_int("max_body_bytes", max_body_bytes, least=0)
    check_flag("show_details", show_details)
    site = _Site(runs, _by_name(jobs), max_body_bytes, show_details)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with runs:
            yield

    application = Starlette(
        routes=site.routes(),
        middleware=[Middleware(responses.SecurityHeaders)],
        exception_handlers={
            HTTPException: responses.http_error_response,
            ClientDisconnect: responses.left_response,
            FuruError: site.failed,
        },
        lifespan=lifespan,
    )
    application.router.redirect_slashes = False  # a redirect would lead to the host that the request names
    return application


class _Site:
    """The handlers of one application."""

    def __init__(self, runs: Runs, jobs: dict[str, Job], max_body_bytes: int, show_details: bool) -> None:
        self._runs = runs
        self._jobs = jobs
        self._max_body_bytes = max_body_bytes
        self._show_details = show_details
        self._queries = Queries(runs, show_details)

    def routes(self) -> list[Route]:
        return [
            Route("/", self.index),
            Route("/runs/{run}", self.run_page),
            Route("/nodes/{hash}", self.node_page),
            Route("/store", self.store_page),
            Route("/store/nodes", self.nodes_page),
            Route("/api/runs", self.runs),
            Route("/api/runs/{run}", self.run),
            Route("/api/runs/{run}/graph", self.graph),
            Route("/api/runs/{run}/events", self.events),
            Route("/api/nodes/{hash}", self.node),
            Route("/api/store", self.store),
            Route("/api/jobs", self.list_jobs),
            Route("/api/jobs/{job}", self.start_job, methods=["POST"]),
            *(Route(f"/static/{name}", responses.static_response(name)) for name in responses.STATIC_FILES),
        ]

    # ---- pages ----

    async def index(self, request: Request) -> Response:
        live, recent = (
            list(map(self._queries.facts, runs)) for runs in (self._runs.live(), self._runs.recent())
        )
        return responses.html_response(_pages(request).index(live, recent, self._jobs.values()))

    async def run_page(self, request: Request) -> Response:
        run = self._run_of(request)
        graph: Graph | None = None
        problem = ""
        try:
            graph = await self._queries.graph(run)
        except Exception as error:  # the service's classes may raise; the rest of the page is shown
            logger.exception("the graph of the run %s (%s) cannot be shown", run.id, run.title)
            reason = error if self._show_details else f"{type(error).__qualname__}. {SEE_LOG}"
            problem = f"The graph cannot be shown: {reason}"
        snapshot = self._queries.snapshot(run)  # last, so that it is fresh
        page = _pages(request).run
        return responses.html_response(await self._queries.for_runs.run(page, snapshot, graph, problem))

    async def node_page(self, request: Request) -> Response:
        facts, run = await self._node_of(request)
        page = _pages(request).node
        if run is None:
            return responses.html_response(await self._queries.for_store.run(page, facts))
        graph, snapshot = await self._queries.graph(run), self._queries.snapshot(run)

        def make() -> str:
            return page(facts, snapshot.facts, snapshot.states(graph)[facts.hash])

        return responses.html_response(await self._queries.for_runs.run(make))

    async def store_page(self, request: Request) -> Response:
        summary = await self._queries.store()
        return responses.html_response(await self._queries.for_store.run(_pages(request).store, summary))

    async def nodes_page(self, request: Request) -> Response:
        node_class, state, after = listing(request)
        nodes = await self._queries.nodes(node_class, state, after)
        return responses.html_response(
            await self._queries.for_store.run(_pages(request).nodes, nodes, state)
        )

    # ---- JSON ----

    async def runs(self, request: Request) -> Response:
        runs = [*self._runs.live(), *self._runs.recent()]
        return responses.json_response([self._queries.facts(run) for run in runs])

    async def run(self, request: Request) -> Response:
        return responses.json_response(self._queries.facts(self._run_of(request)))

    async def graph(self, request: Request) -> Response:
        graph = await self._queries.graph(self._run_of(request))
        value = {"nodes": graph.nodes, "is_cut": graph.is_cut}
        return await self._queries.for_runs.run(responses.json_response, value)

    async def events(self, request: Request) -> Response:
        after = event_number(request)
        return RunEvents(self._run_of(request), after=after, show_details=self._show_details)

    async def node(self, request: Request) -> Response:
        facts, _ = await self._node_of(request)
        return responses.json_response(node_values(facts))

    async def store(self, request: Request) -> Response:
        return responses.json_response(await self._queries.store())

    async def list_jobs(self, request: Request) -> Response:
        return responses.json_response({name: job.parameters() for name, job in self._jobs.items()})

    async def start_job(self, request: Request) -> Response:
        job = self._jobs.get(request.path_params["job"])
        if job is None:
            raise HTTPException(404, "this service has no such job")
        body = await json_body(request, self._max_body_bytes)
        try:
            roots = await self._queries.for_jobs.run(job.make_roots, body)
        except JobInputError as error:
            raise HTTPException(422, str(error)) from error
        stream = wants_stream(request)
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
            return responses.refusal(error)
        location = f"{responses.base_path(request)}/api/runs/{run.id}"
        return responses.json_response(self._queries.facts(run), 202, {"location": location})

    # ---- parts ----

    def _run_of(self, request: Request) -> Run:
        run = self._runs.get(request.path_params["run"])
        if run is None:
            raise HTTPException(404, "this process has no such run, or no longer keeps it")
        return run

    async def _node_of(self, request: Request) -> tuple[NodeFacts, Run | None]:
        facts, run = await self._queries.node(node_hash(request))
        if facts is None:
            raise HTTPException(404, "neither the store nor a run of this process has such a node")
        return facts, run

    async def failed(self, request: Request, error: Exception) -> Response:
        """Log an error that furu raised, and answer 500."""
        logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
        message = str(error) if self._show_details else f"This failed. {SEE_LOG}"
        return responses.error_response(request, 500, message)


def _pages(request: Request) -> Pages:
    return Pages(responses.base_path(request))


def _by_name(jobs: Iterable[Job]) -> dict[str, Job]:
    by_name: dict[str, Job] = {}
    for job in jobs:
        if not isinstance(job, Job):
            raise FuruUsageError(f"jobs are made by furu.web.job(name, function), not {job!r}")
        if job.name in by_name:
            raise FuruUsageError(f"two jobs are called {job.name}")
        by_name[job.name] = job
    return by_name
