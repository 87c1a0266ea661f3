"""Slow graphs, large stores and clients that leave do not delay other requests."""

from __future__ import annotations

import logging
import re
import threading
from typing import Any

import anyio
import pytest

from furu import Furu
from furu._common.loops import in_thread
from furu.service import Runs
from furu.settings import Settings, current_settings
from furu.store import catalog
from furu.web import job, reading
from furu.web.pages import Pages
from furu.web.reading import StorePage, StoreSummary, list_nodes, summarize_store
from tests.graphs import Node, actions, flat
from tests.web.asgi_calls import ask, links, mounted, post, under_way

pytestmark = pytest.mark.anyio


class Slow(Furu[int]):
    """A node whose `_dependencies` blocks until the test releases it."""

    name: str

    def _dependencies(self) -> Any:
        if "look" in actions:
            actions["look"]()
        return ()

    def _create(self) -> int:
        return 1


def make_node(name: str) -> Node:
    """Make the root of the job `node`."""
    return Node(name=name)


JOBS = [job("node", make_node)]


class Held:
    """Blocks the threads that walk graphs until it is opened. The test can wait for blocked threads."""

    def __init__(self) -> None:
        self._there, self.opened = threading.Semaphore(0), threading.Event()
        self.count = 0
        actions["look"] = self._look

    def _look(self) -> None:
        self.count += 1
        self._there.release()
        assert self.opened.wait(10)

    async def wait(self, count: int) -> None:
        for _ in range(count):
            assert await anyio.to_thread.run_sync(self._there.acquire, True, 10)


async def test_slow_pages_of_runs_do_not_delay_jobs_and_the_store() -> None:
    """Each graph is walked once for all twenty pages."""
    async with mounted(JOBS) as (site, runs):
        slow = [await runs.submit([Slow(name=name)]) for name in "ab"]
        for run in slow:
            await run.wait()
        held = Held()
        try:
            async with anyio.create_task_group() as tasks:
                for number in range(20):
                    tasks.start_soon(ask, site, f"/furu/runs/{slow[number % 2].id}")
                await held.wait(2)
                with anyio.fail_after(10):
                    done = await post(site, "/furu/api/jobs/node", {"name": "b"})
                    assert "finished" == done.json()["state"]
                    for target in ("", "store", "api/store", "api/runs", f"api/runs/{run.id}/events"):
                        assert 200 == (await ask(site, f"/furu/{target}")).status
                held.opened.set()
            assert 2 == held.count
        finally:
            held.opened.set()


async def test_slow_store_does_not_delay_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty listings of a disk that hangs occupy no thread that a job needs."""
    there, opened = threading.Semaphore(0), threading.Event()

    def hang(*_: Any, **__: Any) -> Any:
        there.release()
        assert opened.wait(10)
        return iter(())

    monkeypatch.setattr(reading, "walk", hang)
    async with mounted(JOBS) as (site, runs):
        try:
            async with anyio.create_task_group() as tasks:
                for _ in range(20):
                    tasks.start_soon(ask, site, "/furu/store")
                for _ in range(2):
                    assert await anyio.to_thread.run_sync(there.acquire, True, 10)
                with anyio.fail_after(10):
                    done = await post(site, "/furu/api/jobs/node", {"name": "b"})
                    assert "finished" == done.json()["state"]
                    assert 200 == (await ask(site, f"/furu/runs/{runs.recent()[0].id}")).status
                opened.set()
        finally:
            opened.set()


# ---- listings that exceed their time limit ----


async def compute(runs: Any, roots: list[Any]) -> None:
    """Run the roots, and wait for the end of the run."""
    await (await runs.submit(roots)).wait()


async def test_listing_that_exceeds_its_time_limit_continues_where_it_stopped() -> None:
    """Over all pages, every matching node is shown once."""
    async with Runs() as runs:
        await compute(runs, flat(7))
    for state, expected in ((None, 7), ("DONE", 7), ("FAILED", 0)):
        shown: list[str] = []
        after: str | None = ""
        count = 0
        while after is not None:
            page = await in_thread(late_page, state, after)
            count += 1
            shown += [node_hash for node_hash, _ in page.nodes]
            after = page.next_after
            assert (after is not None) == page.is_cut
            assert page.is_cut == ("took too long" in Pages("").nodes(page, state))
        assert (expected, expected) == (len(shown), len(set(shown)))
        assert 1 < count < 10


def late_page(state: str | None, after: str) -> StorePage:
    """Return a page whose time limit has passed before it starts."""
    return list_nodes(current_settings(), "tests.graphs:Node", state, after, limit_sec=-1)


async def test_count_that_exceeds_its_time_limit_names_all_classes_and_the_uncounted_ones() -> None:
    def count(limit_sec: float) -> StoreSummary:
        return summarize_store(current_settings(), show_details=False, limit_sec=limit_sec)

    async with Runs() as runs:
        await compute(runs, [*flat(3), Slow(name="a")])
    whole, cut = [await in_thread(count, limit_sec) for limit_sec in (10, -1)]
    page = Pages("").store(cut)
    assert () == whole.partial
    assert set(whole.classes) == set(cut.classes) == set(cut.partial)
    assert (2, 2) == (page.count("not all counted"), page.count("class=tests."))


async def test_listing_of_a_class_does_not_read_other_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    async with mounted() as (site, runs):
        await compute(runs, [*flat(3), Slow(name="a")])

        def walk(settings: Settings, *, node_class: str) -> Any:  # a TypeError for the whole store
            return catalog.walk(settings, node_class=node_class)

        monkeypatch.setattr(reading, "walk", walk)
        page = await ask(site, "/furu/store/nodes?class=tests.graphs:Node")
        none = await ask(site, "/furu/store/nodes?class=os:system")
    assert 3 == len(re.findall(r"/nodes/[0-9a-f]{32}", page.text))
    assert (200, []) == (none.status, re.findall(r"/nodes/[0-9a-f]{32}", none.text))


async def test_class_whose_name_is_too_long_for_a_directory_is_listed() -> None:
    """The class is listed under the shortened name that the store uses."""
    long = type("L" * 300, (Furu,), {"__module__": __name__, "_create": lambda _: 1})
    async with mounted() as (site, runs):
        await (await runs.submit([long()])).wait_ended()
        page = await ask(site, "/furu/store")
        [link] = [link for link in links(page) if "class=" in link and "state=" not in link]
        listed = await ask(site, link)
    assert [long().furu_hash] == re.findall(r"/nodes/([0-9a-f]{32})", listed.text)


# ---- clients that leave ----


@pytest.mark.parametrize("sent", [b"", b'{"name"'], ids=["before the body", "in the body"])
async def test_client_that_leaves_while_it_sends_its_body_is_not_an_error(
    sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """No run starts, the server sees no exception, and nothing is logged."""
    caplog.set_level(logging.INFO)
    headers = {"content-type": "application/json"}
    async with mounted(JOBS) as (site, runs):
        target = "/furu/api/jobs/node"
        async with under_way(site, target, method="POST", body=sent, headers=headers, is_cut=True) as call:
            await anyio.wait_all_tasks_blocked()
            call.left.set()
        assert ([], []) == (runs.live(), runs.recent())
    assert call.answer.status != 500
    assert [] == [record for record in caplog.records if record.name.startswith(("furu", "starlette"))]


async def test_client_that_leaves_while_it_receives_the_answer_is_not_an_error() -> None:
    """With ASGI 2.4, `send` raises an error if the client has disconnected."""
    async with mounted(JOBS) as (site, runs):
        run = await runs.submit([Node(name="a")])
        await run.wait()
        async with under_way(site, f"/furu/api/runs/{run.id}/events", is_deaf=True):
            pass
