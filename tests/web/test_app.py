"""The application: its pages, JSON and streams, and its answers to hostile requests."""

from __future__ import annotations

import functools
import json
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import anyio
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

import furu.web
from furu import Furu, FuruComputeError, FuruUsageError
from furu.node.base import artifact_of
from furu.service import Runs
from furu.web import RunEvents, app, job
from tests.graphs import AsyncNode, Node, actions, chain, diamond, flat
from tests.service.gates import Gate
from tests.web.asgi_calls import Answer, Tags, ask, links, mounted, post, under_way

pytestmark = pytest.mark.anyio

SCRIPT = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"


class Talker(Furu[str]):
    """Puts its text into its field, its log, and its result or its exception message."""

    text: str
    fails: bool = False

    def _create(self) -> str:
        self.logger.warning("%s", self.text)
        if self.fails:
            raise ValueError(self.text)
        return self.text


def make_node(name: str) -> Node:
    """Make the root of the job `node`."""
    return Node(name=name)


def make_async(name: str) -> AsyncNode:
    """Make the root of the jobs `held` and `kept`."""
    if name == "refused":
        raise ValueError(f"no node is called {SCRIPT}")
    return AsyncNode(name=name)


JOBS = [
    job("node", make_node, on_disconnect="finish"),
    job("held", make_async),
    job("kept", make_async, on_disconnect="finish"),
]


service = functools.partial(mounted, JOBS)


def assert_inert(answer: Answer) -> None:
    """Check that a page has only the application's script, no handlers or styles, and no foreign URLs."""
    for tag, attrs in Tags(answer.text).found:
        assert tag not in {"img", "iframe", "object", "form", "base", "style"}
        assert not [name for name in attrs if name.startswith("on") or name == "style"]
        assert tag != "script" or "/furu/static/live.js" == attrs["src"]
        for name in ("href", "src"):
            assert (attrs.get(name) or "/furu/").startswith("/furu/")


# ---- jobs ----


async def test_job_with_on_disconnect_finish_answers_202_and_the_location_of_its_run() -> None:
    async with service() as (site, runs):
        answer = await post(site, "/furu/api/jobs/node", {"name": "a"})
        assert (202, "node") == (answer.status, answer.json()["title"])
        for run in runs.live():
            await run.wait()
        there = await ask(site, answer.headers["location"])
        assert ("finished", {"done": 1}) == (there.json()["state"], there.json()["counts"])


async def test_job_with_on_disconnect_cancel_answers_after_its_run_has_ended() -> None:
    """If the run failed, the answer has the error."""

    def fail() -> None:
        raise ValueError("no such split")

    async with service(show_details=True) as (site, _):
        assert "finished" == (await post(site, "/furu/api/jobs/held", {"name": "a"})).json()["state"]
        actions["b"] = fail
        failed = (await post(site, "/furu/api/jobs/held", {"name": "b"})).json()
    assert ("failed", True) == (failed["state"], "no such split" in failed["error"])


@pytest.mark.parametrize("job_name", ["held", "kept"])
async def test_last_client_to_leave_cancels_the_run_unless_on_disconnect_is_finish(job_name: str) -> None:
    gate = Gate("a")
    headers = {"content-type": "application/json", "accept": "text/event-stream"}
    async with service(cancel_sec=0) as (site, runs):
        target = f"/furu/api/jobs/{job_name}"
        async with under_way(site, target, method="POST", body=b'{"name": "a"}', headers=headers) as call:
            await gate.begun.wait()
            await call.until('"running"')
            [run] = runs.live()
            call.left.set()
        gate.opened.set()
        await run.wait_ended()
    assert {"held": "cancelled", "kept": "finished"}[job_name] == run.state


async def test_full_queue_is_429_and_stopping_service_is_503() -> None:
    """Both answers say when to retry, for jobs that wait for the run and for jobs that do not."""
    gate = Gate("a")
    async with service(max_running=1, max_queued=0) as (site, runs):
        await post(site, "/furu/api/jobs/kept", {"name": "a"})
        await gate.begun.wait()
        full = [await post(site, f"/furu/api/jobs/{name}", {"name": "b"}) for name in ("kept", "held")]
        runs.stop()
        await anyio.wait_all_tasks_blocked()
        ending = [await post(site, f"/furu/api/jobs/{name}", {"name": "b"}) for name in ("kept", "held")]
        gate.opened.set()
    assert [429, 429, 503, 503] == [answer.status for answer in full + ending]
    assert all("retry-after" in answer.headers and answer.json()["error"] for answer in full + ending)


@pytest.mark.parametrize(
    ("target", "body", "headers", "status"),
    [
        ("/api/jobs/other", b"{}", {}, 404),
        ("/api/jobs/os.system", b"{}", {}, 404),
        ("/api/jobs/..%2f..%2fetc%2fpasswd", b"{}", {}, 404),
        ("/api/jobs/node", b'{"name": "a"}', {"content-type": "text/plain"}, 415),
        ("/api/jobs/node", b'{"name": "a"}', {"content-type": ""}, 415),
        ("/api/jobs/node", b"x" * 1001, {}, 413),
        ("/api/jobs/node", [b"x" * 400] * 3, {}, 413),
        ("/api/jobs/node", b"", {}, 422),
        ("/api/jobs/node", b"\xff", {}, 422),
        ("/api/jobs/node", b"[" * 900, {}, 422),
        ("/api/jobs/node", b'{"name": "a", "class": "os"}', {}, 422),
        ("/api/jobs/node", b'{"name": ["a"]}', {}, 422),
        ("/api/jobs/held", b'{"name": "refused"}', {}, 422),
        ("/api/runs", b"{}", {}, 405),
        ("/", b"{}", {}, 405),
    ],
    ids=lambda value: str(value)[:30],
)
async def test_bad_post_is_answered_4xx_and_starts_nothing(
    target: str, body: Any, headers: dict[str, str], status: int
) -> None:
    async with service() as (site, runs):
        sent = {"content-type": "application/json", **headers}
        answer = await ask(site, f"/furu{target}", method="POST", body=body, headers=sent)
        assert status == answer.status
        assert ([], []) == (runs.live(), runs.recent())
        if answer.headers["content-type"] == "application/json":
            assert answer.json()["error"]


# ---- streams ----


async def test_stream_reports_the_last_state_of_every_node_and_ends() -> None:
    async with service() as (site, runs):
        run = await runs.submit(flat(700))
        answer = await ask(site, f"/furu/api/runs/{run.id}/events")
    names, numbers, values = zip(*answer.events(), strict=True)
    told = {node["hash"]: node["state"] for value in values[:-1] for node in value["nodes"]}
    assert {node.furu_hash: "done" for node in flat(700)} == told
    assert ("end", "finished", {"done": 700}) == (names[-1], values[-1]["state"], values[-1]["counts"])
    assert sorted(numbers) == list(numbers)


@pytest.mark.parametrize("way", ["header", "query"])
async def test_client_that_reconnects_gets_only_what_it_missed(way: str) -> None:
    gate = Gate("b")
    first = AsyncNode(name="a")
    second = AsyncNode(name="b", below=(first,))
    async with service() as (site, runs):
        run = await runs.submit([second])
        async with under_way(site, f"/furu/api/runs/{run.id}/events") as call:
            await gate.begun.wait()
            await call.until('"done":1')  # not only that it is planned
            call.left.set()
        seen = call.answer.events()[-1][1]
        assert "running" == run.state
        gate.opened.set()
        await run.wait()
        target = f"/furu/api/runs/{run.id}/events"
        headers = {"last-event-id": str(seen)} if way == "header" else {}
        answer = await ask(site, target if headers else f"{target}?after={seen}", headers=headers)
    told = [node["hash"] for _, _, value in answer.events()[:-1] for node in value["nodes"]]
    assert [second.furu_hash] == told


async def test_client_with_an_event_number_of_an_earlier_process_gets_everything() -> None:
    async with service() as (site, runs):
        run = await runs.submit([diamond()])
        await run.wait()
        answer = await ask(site, f"/furu/api/runs/{run.id}/events", headers={"last-event-id": "999999"})
    assert 4 == len(answer.events()[0][2]["nodes"])


async def test_watcher_that_leaves_does_not_change_the_run() -> None:
    gate = Gate("a")
    async with service() as (site, runs), runs.follow([AsyncNode(name="a")]) as run:
        await gate.begun.wait()
        async with under_way(site, f"/furu/api/runs/{run.id}/events") as call:
            await call.until("running")
            call.left.set()
        assert "running" == run.state
        gate.opened.set()
        assert 1 == (await run.wait()).computed


async def test_quiet_stream_is_kept_alive_by_comments() -> None:
    gate = Gate("a")
    async with service() as (_, runs):
        run = await runs.submit([AsyncNode(name="a")])
        async with under_way(RunEvents(run, keep_alive_sec=0.01), "/") as call:
            await call.until(": nothing new")
            gate.opened.set()
    assert "end" == call.answer.events()[-1][0]


# ---- pages and JSON ----


async def test_every_link_of_every_page_leads_to_a_page() -> None:
    """The test follows all links from the first page on. All paths start with the mount path."""
    async with service() as (site, runs):
        run = await runs.submit([diamond(), *chain(3).below])
        await run.wait()
        pending, seen = ["/furu/"], set[str]()
        while pending:
            target = pending.pop()
            seen.add(target)
            answer = await ask(site, target)
            assert (200, target) == (answer.status, target)
            assert_inert(answer)
            pending += [link for link in set(links(answer)) if link not in seen and link not in pending]
    assert {f"/furu/runs/{run.id}", f"/furu/nodes/{diamond().furu_hash}", "/furu/store"} <= seen


async def test_page_has_a_script_while_its_run_is_live_and_not_afterwards() -> None:
    gate = Gate("a")
    async with service() as (site, runs):
        run = await runs.submit([AsyncNode(name="a")])
        await gate.begun.wait()
        live = await ask(site, f"/furu/runs/{run.id}")
        index = await ask(site, "/furu/")
        gate.opened.set()
        await run.wait()
        ended = await ask(site, f"/furu/runs/{run.id}")
    assert f'data-events="/furu/api/runs/{run.id}/events" data-after="' in live.text
    assert "live.js" in live.text
    assert 'http-equiv="refresh"' in index.text
    assert "live.js" not in ended.text


async def test_failed_node_is_shown_with_traceback_log_and_configuration() -> None:
    """The page and the JSON of the node have the same details."""
    node = Talker(text="bad split", fails=True)
    async with service(show_details=True) as (site, runs):
        with pytest.raises(FuruComputeError):
            await (await runs.submit([node])).wait()
        page = await ask(site, f"/furu/nodes/{node.furu_hash}")
        value = (await ask(site, f"/furu/api/nodes/{node.furu_hash}")).json()
    assert ("FAILED", {"text": "bad split", "fails": True}) == (value["status"], value["config"])
    [attempt] = value["attempts"]
    assert ("failed", True) == (attempt["state"], "WARNING bad split" in attempt["log"])
    assert "raise ValueError(self.text)" in "".join(attempt["traceback"])
    for part in ("raise ValueError(self.text)", "WARNING bad split", "FAILED"):
        assert part in page.text


async def test_store_is_counted_by_class_and_state_and_listed_in_pages() -> None:
    async with service() as (site, runs):
        await (await runs.submit([diamond(), *flat(300)])).wait()
        summary = (await ask(site, "/furu/api/store")).json()
        first = await ask(site, "/furu/store/nodes?class=tests.graphs:Node&state=DONE")
        [more] = [link for link in links(first) if "after=" in link]
        second = await ask(site, more)
        none = await ask(site, "/furu/store/nodes?class=tests.graphs:Node&state=FAILED")
    assert {"tests.graphs:Node": {"DONE": 304}} == summary["classes"]
    shown = [re.findall(r"/nodes/([0-9a-f]{32})", page.text) for page in (first, second)]
    assert (200, 104, 304) == (*map(len, shown), len({*shown[0], *shown[1]}))
    assert "/nodes/" not in none.text


async def test_graph_as_json_has_each_node_after_its_dependencies() -> None:
    async with service() as (site, runs):
        run = await runs.submit([diamond()])
        await run.wait()
        graph = (await ask(site, f"/furu/api/runs/{run.id}/graph")).json()
    assert [0, 1, 1, 2] == [node["level"] for node in graph["nodes"]]
    assert [0, 1, 1, 2] == [len(node["depends_on"]) for node in graph["nodes"]]


async def test_page_of_5000_nodes_has_a_cell_for_each_and_is_drawn_by_class() -> None:
    roots = [Node(name="top", below=tuple(flat(4998))), AsyncNode(name="other")]
    release = threading.Event()
    actions["f0"] = lambda: release.wait(10)
    async with service() as (site, runs), runs.follow(roots) as run:
        page = await ask(site, f"/furu/runs/{run.id}")
        release.set()
    assert 5000 == page.text.count('class="cell ')
    assert 2 == page.text.count('class="box class"')


async def test_page_of_a_run_reports_a_graph_that_cannot_be_walked() -> None:

    class Broken(Furu[int]):
        def _dependencies(self) -> Any:
            raise OSError(SCRIPT)

        def _create(self) -> int:
            return 1

    async with service() as (site, runs):
        run = await runs.submit([Broken()])
        await run.wait_ended()
        page = await ask(site, f"/furu/runs/{run.id}")
    assert (200, True) == (page.status, "The graph cannot be shown" in page.text)
    assert_inert(page)


# ---- hostile requests ----


@pytest.mark.parametrize("text", [SCRIPT, '" autofocus onfocus="alert(1)', "\u202etxt\x00\x1b[2J\x85"])
async def test_text_of_nodes_is_inert_on_every_page(text: str) -> None:
    """The text is in titles, configurations, logs, results, errors and tracebacks."""
    nodes = [Talker(text=text), Talker(text=text, fails=True)]
    async with service(show_details=True) as (site, runs):
        run = await runs.submit(nodes, title=text)
        await run.wait_ended()
        targets = ["/", f"/runs/{run.id}", "/store", *(f"/nodes/{node.furu_hash}" for node in nodes)]
        for target in targets:
            page = await ask(site, f"/furu{target}")
            assert 200 == page.status
            assert_inert(page)
            assert not set("\u202e\x00\x1b") & set(page.text)
        events = await ask(site, f"/furu/api/runs/{run.id}/events")
    assert "\n\n" not in events.text.replace("\n\nid: ", "").rstrip("\n")


@pytest.mark.parametrize(
    "bad",
    [
        "..",
        "..%2f..%2fetc%2fpasswd",
        "%00",
        "f" * 31,
        "F" * 32,
        "f" * 32,
        "f" * 100_000,
        SCRIPT,
        "os:system",
    ],
    ids=lambda value: value[:12],
)
async def test_unknown_nodes_runs_and_files_are_404(bad: str) -> None:
    """The answer does not repeat the request."""
    async with service() as (site, _):
        places = (
            "nodes",
            "runs",
            "api/nodes",
            "api/runs",
            "api/runs/{}/events",
            "api/runs/{}/graph",
            "static",
        )
        for place in places:
            target = place.format(bad) if "{}" in place else f"{place}/{bad}"
            answer = await ask(site, f"/furu/{target}")
            assert 404 == answer.status
            assert SCRIPT not in answer.text


@pytest.mark.parametrize(
    "query",
    ["", "class=", "class=a&state=x", "class=a&after=../x", f"class={'x' * 1001}", "state=DONE", "after=1"],
    ids=lambda value: value[:20],
)
async def test_bad_listing_is_400(query: str) -> None:
    async with service() as (site, _):
        assert 400 == (await ask(site, f"/furu/store/nodes?{query}")).status


@pytest.mark.parametrize("name", ["../../etc", "%2e%2e%2f", "os:system", "owners", "%3Cscript%3E"])
async def test_class_that_is_not_in_the_store_has_no_nodes(name: str) -> None:
    """The name is neither imported nor used as a path."""
    async with service() as (site, runs):
        await (await runs.submit([diamond()])).wait()
        page = await ask(site, f"/furu/store/nodes?class={name}")
        assert 200 == page.status
        assert "/nodes/" not in page.text
        assert_inert(page)


@pytest.mark.parametrize("number", ["-1", "x", "1e9", "9" * 400, "1 2", "٣"])
async def test_bad_event_number_is_400(number: str) -> None:
    """The number may be in the header or in the query."""
    async with service() as (site, runs):
        run = await runs.submit([diamond()])
        await run.wait()
        target = f"/furu/api/runs/{run.id}/events"
        header = await ask(site, target, headers={"last-event-id": number} if number.isascii() else {})
        query = await ask(site, f"{target}?after={number.replace(' ', '%20')}")
        assert {400} == {query.status} | ({header.status} if number.isascii() else set())


async def test_every_response_has_the_security_headers() -> None:
    """Pages, JSON, errors and streams have them."""
    async with service() as (site, runs):
        run = await runs.submit([diamond()])
        await run.wait()
        targets = [
            "",
            "api/runs",
            "api/jobs",
            "none",
            f"api/runs/{run.id}/events",
            "static/live.js",
            "store",
        ]
        for target in targets:
            headers = (await ask(site, f"/furu/{target}")).headers
            policy = headers["content-security-policy"]
            assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
            assert "unsafe" not in policy
            assert "nosniff" == headers["x-content-type-options"]


async def test_links_stay_on_this_server_for_any_mount_path() -> None:
    """This also holds if the mount path contains a part of the request path."""
    async with Runs() as runs:
        site = Starlette(routes=[Mount("/{tenant}", app(runs)), Mount("/", app(runs))])
        for target in ("/%5cexample.org/", "/%22%3e%3cscript%3e/", "//example.org/"):
            for link in links(await ask(site, target)):
                assert re.match(r"/[A-Za-z0-9%/.]*\Z", link), link
                assert not link.startswith("//")


async def test_foreign_and_damaged_files_in_the_store_are_not_an_error(store: Path) -> None:
    """A damaged record is reported. A link and a foreign directory are skipped."""
    node = Node(name="a")
    async with service() as (site, runs):
        await (await runs.submit([node])).wait()
        Path(artifact_of(node).files.done).write_bytes(b"\xff{")
        (store / "tests.graphs" / "Link").symlink_to("/etc")
        (store / "x" / "y" / "z").mkdir(parents=True)
        page = await ask(site, f"/furu/nodes/{node.furu_hash}")
        summary = await ask(site, "/furu/store")
    assert (200, True) == (page.status, "damaged" in page.text)
    assert (200, False) == (summary.status, "Link" in summary.text)


# ---- the application itself ----


async def test_application_that_is_served_by_itself_enters_its_runs() -> None:
    """Its lifespan enters them. The lifespan of a mounted application would not run."""
    runs = Runs()
    alone = app(runs, jobs=JOBS)
    async with alone.router.lifespan_context(alone):
        assert "finished" == (await post(alone, "/api/jobs/held", {"name": "a"})).json()["state"]
        assert {"node", "held", "kept"} == set(json.loads((await ask(alone, "/api/jobs")).body))
    assert 503 == (await post(alone, "/api/jobs/held", {"name": "b"})).status


async def test_jobs_with_the_same_name_and_objects_that_are_not_jobs_are_rejected() -> None:
    with pytest.raises(FuruUsageError, match="two jobs are called node"):
        app(Runs(), jobs=[JOBS[0], JOBS[0]])
    with pytest.raises(FuruUsageError, match=r"furu\.web\.job"):
        app(Runs(), jobs=[make_node])  # type: ignore[list-item]


def test_import_without_the_extra_says_what_to_install() -> None:
    code = "import sys; sys.modules['starlette'] = None; import furu.web"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (1, True) == (done.returncode, 'pip install "furu[web]"' in done.stderr)


def test_public_names_are_those_in_all() -> None:
    there = {
        name
        for name, value in vars(furu.web).items()
        if not name.startswith("_")
        and getattr(value, "__module__", "").startswith(("furu.web", "furu.service"))
    }
    assert sorted(there) == sorted(furu.web.__all__)
