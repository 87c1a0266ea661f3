"""The pages in a real browser: `nox -s browser`, with Chromium installed (`CHROMIUM` may name it).

Set `SCREENSHOTS` to a directory to keep screenshots of the pages.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright

from tests.web.servers import Server, serving

SERVICE = Path(__file__).with_name("load_service.py")
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--no-proxy-server",
]

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, without access to the network."""
    path = os.environ.get("CHROMIUM") or shutil.which("chromium")
    assert path, "install Chromium, or name it with CHROMIUM"
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def server(store: Path) -> Iterator[Server]:
    """A service on the store of this test."""
    with serving(SERVICE, store, "1") as server:
        yield server


@pytest.fixture(params=[f"{size}-{scheme}" for size in SIZES for scheme in ("light", "dark")])
def page(request: pytest.FixtureRequest, browser: Browser) -> Iterator[Page]:
    """A page of some size and color scheme. Every message on its console fails the test."""
    size, _, scheme = request.param.partition("-")
    width, height = SIZES[size]
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    opened = context.new_page()
    said: list[str] = []
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    yield opened
    context.close()
    assert [] == said


@pytest.fixture
def plain_page(browser: Browser) -> Iterator[Page]:
    """A page on which requests may fail: only script errors fail the test."""
    context = browser.new_context()
    opened = context.new_page()
    broken: list[str] = []
    opened.on("pageerror", lambda error: broken.append(str(error)))
    yield opened
    context.close()
    assert [] == broken


def keep(page: Page, request: pytest.FixtureRequest, name: str) -> None:
    """Keep a screenshot, and check that the page as a whole does not scroll sideways."""
    page.wait_for_load_state()  # before its stylesheet is loaded, a page is wider
    sizes = "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    wide, room = page.evaluate(sizes)
    if folder := os.environ.get("SCREENSHOTS"):
        kind = request.node.callspec.params["page"]
        page.screenshot(path=Path(folder, f"{name}-{kind}.png"), full_page=True)
    assert wide <= room, f"{name} is {wide} wide in {room}"


def start(server: Server, job: str, **arguments: int) -> str:
    """Start a job, and return the id of its run."""
    answer = httpx.post(f"{server.url}/furu/api/jobs/{job}", json=arguments, trust_env=False)
    run: str = answer.json()["id"]
    return run


def state(server: Server, run: str) -> str:
    """Return the state of a run."""
    found: str = httpx.get(f"{server.url}/furu/api/runs/{run}", trust_env=False).json()["state"]
    return found


def open_gate(server: Server, number: int) -> None:
    """Let a waiting source continue."""
    httpx.post(f"{server.url}/gates/{number}", trust_env=False)


def test_run_can_be_watched_to_its_end_and_its_failed_node_can_be_read(
    page: Page, server: Server, request: pytest.FixtureRequest
) -> None:
    """The test starts at the first page and follows links. A script in an exception message stays text."""
    start(server, "summary", sources=48, parts=6)
    page.goto(f"{server.url}/furu/")
    keep(page, request, "index")
    page.get_by_role("link", name="summary").click()
    expect(page.locator("#state")).to_have_text("running")
    page.evaluate("window.same = true")
    expect(page.locator(".cell.running")).to_have_count(2)
    expect(page.locator("#running li")).to_have_count(2)
    keep(page, request, "live")
    open_gate(server, 46)
    expect(page.locator(".cell.running")).to_have_count(1)
    expect(page.locator("#running li")).to_have_count(1)
    expect(page.locator("#failed a")).to_have_count(1)
    expect(page.locator('[data-count="done"]')).to_have_text("51")
    assert page.evaluate("window.same"), "the page changes without being loaded again"
    open_gate(server, 47)
    expect(page.locator("#state")).to_have_text("failed", timeout=30_000)
    expect(page.locator("main[data-events]")).to_have_count(0, timeout=10_000)
    assert "53" == page.locator('[data-count="done"]').inner_text()
    assert 55 == page.locator(".cell").count()
    keep(page, request, "ended")
    page.locator("#failed a").click()
    expect(page.get_by_text("raise ValueError")).to_be_visible()
    expect(page.get_by_text("INFO merging part <b>2</b>")).to_be_visible()
    assert "broken" != page.title()
    keep(page, request, "node")
    page.get_by_role("link", name="Store").first.click()
    expect(page.get_by_role("link", name="load_service:Merged")).to_be_visible()
    keep(page, request, "store")
    page.get_by_role("row", name=re.compile("Merged")).get_by_role("link").nth(1).click()
    expect(page.locator("tbody tr")).to_have_count(5)


def test_page_of_5000_nodes_is_live(page: Page, server: Server, request: pytest.FixtureRequest) -> None:
    """Every node has a cell, and the counts change until the run ends."""
    run = start(server, "small", count=5000)
    page.goto(f"{server.url}/furu/runs/{run}")
    assert 5000 == page.locator(".cell").count()
    expect(page.locator("#state")).to_have_text("finished", timeout=60_000)
    expect(page.locator("main[data-events]")).to_have_count(0, timeout=10_000)
    assert "5,000" == page.locator('[data-count="done"]').inner_text()
    keep(page, request, "many")


def test_counts_include_nodes_without_a_cell(plain_page: Page, server: Server) -> None:
    """The counts change during the run, without a reload of the page."""
    page = plain_page
    run = start(server, "held", count=7000)
    page.goto(f"{server.url}/furu/runs/{run}")
    page.evaluate("window.same = true")
    assert 5000 == page.locator(".cell").count()
    small = page.locator('section[data-class$=":Small"] .counts')
    expect(small).to_have_text("7,000 done", timeout=60_000)
    expect(page.locator('section[data-class$=":Source"] .counts')).to_have_text("1 running")
    expect(page.locator("#running li")).to_have_text(re.compile("Source"))
    expect(page.locator("#state")).to_have_text("running")
    assert page.evaluate("window.same"), "the page changes without being loaded again"
    open_gate(server, 46)
    expect(page.locator("#state")).to_have_text("finished")


def test_run_that_finishes_before_its_stream_is_opened_is_shown_as_finished(
    plain_page: Page, server: Server
) -> None:
    page = plain_page
    run = start(server, "held", count=10)

    def end_first(route: Route) -> None:
        open_gate(server, 46)
        for _ in range(1000):
            if state(server, run) == "finished":
                break
        route.continue_()

    page.route("**/events*", end_first)
    page.goto(f"{server.url}/furu/runs/{run}")
    expect(page.locator("main[data-events]")).to_have_count(0, timeout=10_000)
    expect(page.locator("#state")).to_have_text("finished")
    expect(page.locator(".cell.done")).to_have_count(11)


def test_page_reports_a_lost_server_and_a_run_that_is_no_longer_kept(plain_page: Page, store: Path) -> None:
    """The page reconnects to a new process, which does not know the run."""
    page = plain_page
    with serving(SERVICE, store, "1") as server:
        run = start(server, "held", count=10)
        page.goto(f"{server.url}/furu/runs/{run}")
        expect(page.locator(".cell.done")).to_have_count(10)
        expect(page.locator("#connection")).to_be_hidden()
        port = int(server.url.rpartition(":")[2])
    expect(page.locator("#connection")).to_have_text("Connection lost, retrying…", timeout=10_000)
    expect(page.locator("#state")).to_have_text("running")
    with serving(SERVICE, store, "1", port=port):
        expect(page.locator("#connection")).to_have_text("This run is no longer kept.", timeout=60_000)
        expect(page.locator("#state")).to_have_text("unknown")


def test_page_catches_up_after_the_connection_was_lost(plain_page: Page, server: Server) -> None:
    """The page shows all changes that it missed, and shows nothing twice."""
    page = plain_page
    run = start(server, "summary", sources=48, parts=6)
    broken = True

    def maybe(route: Route) -> None:
        if broken:
            route.fulfill(status=503, body="busy")
        else:
            route.continue_()

    page.route("**/events*", maybe)
    page.goto(f"{server.url}/furu/runs/{run}")
    expect(page.locator("#connection")).to_have_text("Connection lost, retrying…", timeout=10_000)
    open_gate(server, 46)
    broken = False
    expect(page.locator("#connection")).to_be_hidden(timeout=15_000)
    expect(page.locator("#running li")).to_have_count(1)
    expect(page.locator("#failed li")).to_have_count(1)
    open_gate(server, 47)
    expect(page.locator("#state")).to_have_text("failed", timeout=15_000)


def test_nodes_that_a_reused_root_did_not_need_are_shown(
    page: Page, server: Server, request: pytest.FixtureRequest
) -> None:
    """These nodes are the sources of parts that an earlier run merged."""
    for number in (46, 47):
        open_gate(server, number)
    for _ in range(2):
        run = start(server, "summary", sources=48, parts=6)
        page.goto(f"{server.url}/furu/runs/{run}")
        expect(page.locator("#state")).to_have_text("failed")
        expect(page.locator("main[data-events]")).to_have_count(0, timeout=10_000)
    expect(page.locator(".cell.unneeded")).to_have_count(40)
    expect(page.locator(".cell.reused")).to_have_count(8 + 5)
    expect(page.get_by_text("40 not needed")).to_be_visible()
    keep(page, request, "reused")
