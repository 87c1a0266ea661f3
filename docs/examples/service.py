"""A service that analyses documents: post one, follow its analysis, fetch the report.

A document is analysed in a graph of cached nodes, one for each paragraph, so what two documents share is
computed once, and so is what a new version of a document has not changed.
"""

import re
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import FrameType
from typing import Annotated

import uvicorn
from fastapi import FastAPI, Header, HTTPException
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field

import furu.web
from furu import Furu, check_cancelled


class Paragraph(Furu[dict[str, int]]):
    """How often each word stands in a paragraph."""

    text: str

    def _create(self) -> dict[str, int]:
        counts: Counter[str] = Counter()
        for word in re.findall(r"\w+", self.text.lower()):
            check_cancelled()  # a run that nobody waits for any more ends here
            counts[word] += 1
            time.sleep(0.001)  # stands for real work
        return dict(counts)


class Report(Furu[dict[str, int]]):
    """The ten words that a document uses most."""

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


runs = furu.web.Runs(max_running=4, max_queued=32, grace_sec=3)
reports: dict[str, Report] = {}  # a real service would keep the documents in its database


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    async with runs:
        yield


app = FastAPI(lifespan=lifespan)
app.mount("/furu", furu.web.app(runs, jobs=[furu.web.job("report", make_report)]))


@app.post("/documents", response_model=None)
async def post_document(document: Document, accept: Annotated[str, Header()] = "") -> Response:
    """Start the analysis and say where its result will be; or stream its progress to who asks for that."""
    report = make_report(document.text)
    reports[report.furu_hash] = report
    if "text/event-stream" in accept:
        return furu.web.FollowRun(runs, [report], on_disconnect="cancel", stream=True)
    try:
        run = await runs.submit([report])
    except furu.web.RunsFullError as error:
        raise HTTPException(429, str(error), {"Retry-After": "5"}) from error
    except furu.web.RunsClosedError as error:
        raise HTTPException(503, str(error)) from error
    place = {"document": f"/documents/{report.furu_hash}", "watch": f"/furu/runs/{run.id}"}
    return JSONResponse(place, 202)


@app.get("/documents/{document}")
async def get_report(document: str) -> dict[str, int]:
    """Return the report, once for all who ask; the analysis goes on without them."""
    if (report := reports.get(document)) is None:
        raise HTTPException(404, "no such document was posted")
    async with runs.follow([report], on_disconnect="finish") as run:
        await run.wait()
    return await report.aget()


class Server(uvicorn.Server):
    """Tells the runs of a signal at once: uvicorn first waits for its clients, and they for their runs."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        runs.stop()
        super().handle_exit(sig, frame)


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8000
    Server(uvicorn.Config(app, host="127.0.0.1", port=port)).run()
