"""A service for the load tests: `python load_service.py PORT GRACE_SEC [thread|process]`."""

from __future__ import annotations

import asyncio
import functools
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import FrameType

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Mount, Route

import furu.web
from furu import Furu, check_cancelled, run_local_async
from furu.execution.workers import ProcessWorkers
from furu.service import Runs

computed: Counter[str] = Counter()


class Small(Furu[int]):
    """A very small node, with a little pure Python."""

    number: int

    def _create(self) -> int:
        computed[f"small {self.number}"] += 1
        return sum(range(self.number % 100))


class Slow(Furu[int]):
    """Runs for a second, or until its run is cancelled."""

    number: int

    def _create(self) -> int:
        computed[f"slow {self.number}"] += 1
        deadline = time.monotonic() + 1.0
        while time.monotonic() < deadline:
            check_cancelled()
            time.sleep(0.01)
        return self.number


class Shared(Furu[int]):
    """An async node that several clients request."""

    number: int

    async def _create(self) -> int:
        computed[f"shared {self.number}"] += 1
        await asyncio.sleep(0.005)
        return self.number


# The sources with these numbers wait until their gate is opened.
gates = {46: threading.Event(), 47: threading.Event()}


class Source(Furu[int]):
    """A node without dependencies. Some sources wait at a gate."""

    number: int

    def _create(self) -> int:
        self.logger.info("reading source %d", self.number)
        if self.number in gates:
            gates[self.number].wait(60)
        return self.number


class Merged(Furu[int]):
    """The sum of some sources. The third part fails."""

    name: str
    sources: tuple[Source, ...]

    def _create(self) -> int:
        self.logger.info("merging %s", self.name)
        self.logger.info("a line that no screen holds: %s", "x" * 400)
        if self.name == "part <b>2</b>":
            raise ValueError("no such split: <script>document.title = 'broken'</script>")
        return sum(source.get() for source in self.sources)


class Summary(Furu[int]):
    """The sum of all parts."""

    parts: tuple[Merged, ...]

    def _create(self) -> int:
        return sum(part.get() for part in self.parts)


def make_summary(sources: int, parts: int) -> Summary:
    nodes = [Source(number=number) for number in range(sources)]
    return Summary(
        parts=tuple(
            Merged(name=f"part <b>{part}</b>", sources=tuple(nodes[part::parts])) for part in range(parts)
        )
    )


def make_small(count: int, first: int = 0) -> list[Small]:
    return [Small(number=number) for number in range(first, first + count)]


def make_held(count: int) -> list[Furu[int]]:
    """Small nodes, and a source that waits at its gate."""
    return [*make_small(count), Source(number=46)]


def make_slow(count: int) -> list[Slow]:
    return [Slow(number=number) for number in range(count)]


def make_shared(first: int, count: int) -> list[Shared]:
    return [Shared(number=number) for number in range(first, first + count)]


async def ping(_: Request) -> PlainTextResponse:
    return PlainTextResponse("pong")


async def open_gate(request: Request) -> PlainTextResponse:
    gates[int(request.path_params["number"])].set()
    return PlainTextResponse("open")


async def facts(_: Request) -> JSONResponse:
    """Return figures that must not grow, and `most`, which must be 1."""
    return JSONResponse(
        {
            "descriptors": len(os.listdir("/proc/self/fd")),
            "threads": threading.active_count(),
            "tasks": len(asyncio.all_tasks()),
            "live": len(runs.live()),
            "slots": runs._slots.value,
            "most": max(computed.values(), default=0),
            "computed": len(computed),
        }
    )


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[None]:
    async with runs:
        yield


class Server(uvicorn.Server):
    """Stops the runs as soon as the process receives a signal."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        runs.stop()
        super().handle_exit(sig, frame)


PORT, GRACE_SEC, WORKERS = int(sys.argv[1]), float(sys.argv[2]), (sys.argv[3:] or ["thread"])[0]
compute = functools.partial(
    run_local_async,
    max_workers=4,
    workers=ProcessWorkers() if WORKERS == "process" else None,
    on_failure="continue",
)
runs = Runs(max_running=8, max_queued=300, grace_sec=GRACE_SEC, cancel_sec=0.3, compute=compute)
JOBS = [
    furu.web.job("small", make_small, on_disconnect="finish"),
    furu.web.job("slow", make_slow, on_disconnect="finish"),
    furu.web.job("shared", make_shared),
    furu.web.job("held", make_held, on_disconnect="finish"),
    furu.web.job("summary", make_summary, on_disconnect="finish"),
]
app = Starlette(
    routes=[
        Route("/ping", ping),
        Route("/facts", facts),
        Route("/gates/{number}", open_gate, methods=["POST"]),
        Mount("/furu", furu.web.app(runs, jobs=JOBS, show_details=True)),
    ],
    lifespan=lifespan,
)

if __name__ == "__main__":
    Server(uvicorn.Config(app, host="127.0.0.1", port=PORT, access_log=False)).run()
