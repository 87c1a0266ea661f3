"""Requests to an ASGI application without a server. They may be complete, streamed or cut off."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any
from urllib.parse import unquote

import anyio
import anyio.lowlevel
from starlette.applications import Starlette
from starlette.routing import Mount

from furu.service import Runs
from furu.web import Job
from furu.web import app as pages


@asynccontextmanager
async def mounted(
    jobs: Iterable[Job] = (), *, show_details: bool = False, **options: Any
) -> AsyncIterator[tuple[Starlette, Runs]]:
    """A service with the application mounted at /furu. `options` are passed to its `Runs`."""
    async with Runs(**options) as runs:
        site = pages(runs, jobs=jobs, max_body_bytes=1000, show_details=show_details)
        yield Starlette(routes=[Mount("/furu", site)]), runs


@dataclass
class Answer:
    """The part of a response that has arrived so far."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def text(self) -> str:
        return self.body.decode()

    def events(self) -> list[tuple[str, int, Any]]:
        """Parse the server-sent events: the name, id and data of each."""
        found = []
        for message in self.text.split("\n\n"):
            fields = dict(line.split(": ", 1) for line in message.splitlines() if line[:1] != ":")
            if fields:
                found.append((fields["event"], int(fields["id"]), json.loads(fields["data"])))
        return found


class Call:
    """A request that has not been answered completely."""

    def __init__(self) -> None:
        self.answer = Answer()
        self.left = anyio.Event()  # when set, the client disconnects
        self._grown = anyio.Event()

    async def until(self, text: str) -> None:
        """Wait until the answer contains a string."""
        while text.encode() not in self.answer.body:
            self._grown = anyio.Event()
            await self._grown.wait()

    async def run(
        self,
        app: Any,
        scope: dict[str, Any],
        chunks: list[bytes],
        is_cut: bool = False,
        is_deaf: bool = False,
    ) -> None:
        async def receive() -> dict[str, Any]:
            if chunks:
                body = chunks.pop(0)
                return {"type": "http.request", "body": body, "more_body": bool(chunks) or is_cut}
            await self.left.wait()
            return {"type": "http.disconnect"}

        async def send(message: Mapping[str, Any]) -> None:
            await anyio.lowlevel.checkpoint()
            if is_deaf:
                raise OSError("the client has left")
            if message["type"] == "http.response.start":
                self.answer.status = message["status"]
                self.answer.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            else:
                self.answer.body += message.get("body", b"")
            self._grown.set()

        await app(scope, receive, send)


class Tags(HTMLParser):
    """Collects the tags of a page with their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def links(answer: Answer) -> list[str]:
    """Return the targets of the links of a page."""
    return [there for tag, attrs in Tags(answer.text).found if tag == "a" and (there := attrs.get("href"))]


def _scope(method: str, target: str, headers: Mapping[str, str], root_path: str = "") -> dict[str, Any]:
    path, _, query = target.partition("?")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(path),
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": root_path,
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
        "server": ("test", 80),
        "client": ("test", 1),
    }


async def ask(
    app: Any,
    target: str,
    *,
    method: str = "GET",
    body: bytes | Iterable[bytes] = b"",
    headers: Mapping[str, str] | None = None,
    root_path: str = "",
) -> Answer:
    """Make a request and return the whole answer."""
    call = Call()
    chunks = [body] if isinstance(body, bytes) else list(body)
    await call.run(app, _scope(method, target, headers or {}, root_path), chunks)
    return call.answer


async def post(app: Any, target: str, value: Any, **headers: str) -> Answer:
    """Post a value as JSON."""
    sent = {"content-type": "application/json", **headers}
    return await ask(app, target, method="POST", body=json.dumps(value).encode(), headers=sent)


@asynccontextmanager
async def under_way(
    app: Any,
    target: str,
    *,
    method: str = "GET",
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
    is_cut: bool = False,
    is_deaf: bool = False,
) -> AsyncIterator[Call]:
    """Make a request whose answer can be read in the block while it arrives. Leaving waits for its end.

    If `is_cut`, the request body never ends. If `is_deaf`, every `send` to the client fails."""
    call = Call()
    async with anyio.create_task_group() as tasks:
        scope = _scope(method, target, headers or {})
        tasks.start_soon(call.run, app, scope, [body], is_cut, is_deaf)
        yield call
