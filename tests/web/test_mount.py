"""The application mounted in a host: access control, proxies and compression."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any

import anyio
import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException
from starlette.middleware.gzip import GZipMiddleware

from furu.service import Runs
from furu.web import app, job
from tests.graphs import AsyncNode, Node, actions
from tests.web.asgi_calls import ask, links, post, under_way

pytestmark = pytest.mark.anyio

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "embed-in-a-web-service.md"
TARGETS = [
    "/furu/",
    "/furu/store",
    "/furu/store/nodes?class=a",
    f"/furu/nodes/{'0' * 32}",
    "/furu/api/runs",
    "/furu/api/store",
    "/furu/api/jobs",
    "/furu/static/live.js",
    "/furu/none",
]


def refuse() -> None:
    """A dependency that rejects every request."""
    raise HTTPException(401)


def make_node(name: str) -> Node:
    """Make the root of the job `node`."""
    return Node(name=name)


def authorized(user: str, password: str) -> dict[str, str]:
    """Return the header that a browser sends for a user."""
    return {"authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


async def test_dependencies_of_the_host_do_not_guard_a_mounted_application() -> None:
    """This is true of dependencies of the host and of a router. The how-to warns of it."""
    async with Runs() as runs:
        for host in (FastAPI(dependencies=[Depends(refuse)]), FastAPI()):
            router = APIRouter(dependencies=[Depends(refuse)])
            router.mount("/routed", app(runs))
            host.include_router(router, dependencies=[Depends(refuse)])
            host.mount("/furu", app(runs))
            assert 200 == (await ask(host, "/furu/")).status
            assert 401 != (await ask(host, "/routed/")).status
    assert "`dependencies=`" in PAGE.read_text()


async def test_basic_auth_of_the_how_to_guards_every_route(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The test runs the code of the page. Streams and jobs are guarded too."""
    monkeypatch.setenv("PAGES_PASSWORD", "xyzzy")
    [code] = [
        block
        for block in re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
        if "class BasicAuth" in block
    ]
    async with Runs() as runs:
        host = FastAPI()
        names: dict[str, Any] = {
            "app": host,
            "runs": runs,
            "jobs": [job("node", make_node, on_disconnect="finish")],
        }
        exec(compile(code, str(PAGE), "exec"), names)
        run = await runs.submit([Node(name="a")])
        await run.wait()
        targets = [*TARGETS, f"/furu/runs/{run.id}", f"/furu/api/runs/{run.id}/events"]
        for headers in ({}, authorized("furu", "wrong"), authorized("x", "xyzzy"), {"authorization": "é"}):
            for target in targets:
                answer = await ask(host, target, headers=headers)
                assert (401, False) == (answer.status, run.id in answer.text), target
            refused = await post(host, "/furu/api/jobs/node", {"name": "b"}, **headers)
            assert 401 == refused.status
        assert "Basic" in (await ask(host, "/furu/")).headers["www-authenticate"]
        assert [run] == runs.recent()
        right = authorized("furu", "xyzzy")
        assert {200, 404} == {(await ask(host, target, headers=right)).status for target in targets}
        assert 202 == (await post(host, "/furu/api/jobs/node", {"name": "b"}, **right)).status


async def test_links_keep_the_prefix_that_a_proxy_removes() -> None:
    """The server knows the prefix as its root path. Pages, the script's URLs and locations have it."""
    hold = anyio.Event()
    actions["held"] = hold.wait
    async with Runs() as runs:
        host = FastAPI()
        jobs = [job("node", make_node, on_disconnect="finish")]
        host.mount("/furu", app(runs, jobs=jobs))
        run = await runs.submit([AsyncNode(name="held")])
        page = await ask(host, f"/behind/furu/runs/{run.id}", root_path="/behind")
        hold.set()
        started = await ask(
            host,
            "/behind/furu/api/jobs/node",
            method="POST",
            body=b'{"name": "a"}',
            headers={"content-type": "application/json"},
            root_path="/behind",
        )
        lost = await ask(host, "/behind/furu/api/none", root_path="/behind")
    assert 200 == page.status
    assert {True} == {link.startswith("/behind/furu/") for link in links(page)}
    for name in ("events", "nodes", "run"):
        assert f'data-{name}="/behind/furu/' in page.text
    assert started.headers["location"].startswith("/behind/furu/api/runs/")
    assert (404, "application/json") == (lost.status, lost.headers["content-type"])


async def test_compression_of_the_host_does_not_delay_events() -> None:
    hold = anyio.Event()
    actions["held"] = hold.wait
    async with Runs() as runs:
        host = FastAPI()
        host.add_middleware(GZipMiddleware, minimum_size=1)
        host.mount("/furu", app(runs))
        run = await runs.submit([AsyncNode(name="held")])
        headers = {"accept-encoding": "gzip"}
        async with under_way(host, f"/furu/api/runs/{run.id}/events", headers=headers) as call:
            await call.until('"running"')
            hold.set()
    assert "content-encoding" not in call.answer.headers
    assert "end" == call.answer.events()[-1][0]
