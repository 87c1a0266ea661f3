"""A service that analyses documents: post one, follow its analysis, fetch the report.

A document is analysed in a graph of cached nodes, one for each paragraph, so what two documents share is
computed once, and a new version of a document computes only its changed paragraphs.
"""

import asyncio
import re
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import FrameType
from typing import Annotated

import uvicorn
from fastapi import FastAPI, Header, HTTPException, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field

import furu.web
from furu import Furu, FuruComputeError, check_cancelled
from furu.service import RunCancelledError, Runs, RunsClosedError, RunsFullError


class Paragraph(Furu[dict[str, int]]):
    """How often each word occurs in a paragraph."""

    text: str

    def _create(self) -> dict[str, int]:
        counts: Counter[str] = Counter()
        for word in re.findall(r"\w+", self.text.lower()):
            check_cancelled()  # a cancelled run ends here
            counts[word] += 1
            time.sleep(0.001)  # stands for real work
        return dict(counts)


class Report(Furu[dict[str, int]]):
    """The ten most frequent words of a document."""

    paragraphs: tuple[Paragraph, ...]

    def _create(self) -> dict[str, int]:
        counts: Counter[str] = Counter()
        for paragraph in self.paragraphs:
            counts.update(paragraph.get())
        return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:10])


class Document(BaseModel):
    """What clients post."""

    text: str = Field(min_length=1, max_length=100_000)


def make_report(text: str) -> Report:
    paragraphs = (part.strip() for part in re.split(r"\n\s*\n", text))
    return Report(paragraphs=tuple(Paragraph(text=part) for part in paragraphs if part))


runs = Runs(max_running=4, max_queued=32, grace_sec=3)
reports: dict[str, Report] = {}  # a real service would keep the documents in its database


def stop_runs_at(number: int) -> None:
    """Stop the runs as soon as a signal arrives. The server waits for its clients, which wait for runs."""
    server = signal.getsignal(number)

    def handle(number: int, frame: FrameType | None) -> None:
        runs.stop()
        if callable(server):
            server(number, frame)

    signal.signal(number, handle)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    async with runs:
        if threading.current_thread() is threading.main_thread():  # only it may set handlers
            stop_runs_at(signal.SIGINT)
            stop_runs_at(signal.SIGTERM)
        yield


app = FastAPI(lifespan=lifespan)
app.mount("/furu", furu.web.app(runs, jobs=[furu.web.job("report", make_report)]))


@app.exception_handler(RunsFullError)
async def answer_full(request: Request, error: Exception) -> Response:
    return JSONResponse({"detail": "too many analyses are waiting"}, 429, {"Retry-After": "5"})


@app.exception_handler(RunsClosedError)
@app.exception_handler(RunCancelledError)
async def answer_closed(request: Request, error: Exception) -> Response:
    return JSONResponse({"detail": "the service is shutting down"}, 503, {"Retry-After": "5"})


@app.exception_handler(FuruComputeError)
async def answer_failed(request: Request, error: Exception) -> Response:
    return JSONResponse({"detail": "the analysis failed"}, 500)  # the log furu.service says why


@app.post("/documents", response_model=None)
async def post_document(document: Document, accept: Annotated[str, Header()] = "") -> Response:
    """Start the analysis and return where its result will be, or stream its progress."""
    report = make_report(document.text)
    reports[report.furu_hash] = report
    place = {"document": f"/documents/{report.furu_hash}"}
    if await asyncio.to_thread(report.exists):  # nothing to run
        return JSONResponse(place)
    if "text/event-stream" in accept:
        return furu.web.FollowRun(runs, [report], on_disconnect="cancel", stream=True)
    run = await runs.submit([report])
    return JSONResponse({**place, "watch": f"/furu/runs/{run.id}"}, 202)


@app.get("/documents/{document}")
async def get_report(document: str) -> dict[str, int]:
    """Return the report, when it is there. The analysis goes on if the client leaves."""
    if (report := reports.get(document)) is None:
        raise HTTPException(404, "no such document was posted")
    if not await asyncio.to_thread(report.exists):
        async with runs.follow([report], on_disconnect="finish") as run:
            await run.wait()
    return await report.aget()


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8000
    uvicorn.run(app, host="127.0.0.1", port=port)
