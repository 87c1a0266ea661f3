"""The pages in a real browser: `nox -s browser`, with Chromium installed (`CHROMIUM` may name it).

Set `SCREENSHOTS` to a directory to keep what the pages look like.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

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
    """Chromium, which asks nobody for anything."""
    path = os.environ.get("CHROMIUM") or shutil.which("chromium")
    assert path, "install Chromium, or name it with CHROMIUM"
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def server(store: Path) -> Iterator[Server]:
    """A service with a store of its own."""
    with serving(SERVICE, store, "1") as one:
        yield one


@pytest.fixture(params=[f"{size}-{scheme}" for size in SIZES for scheme in ("light", "dark")])
def page(request: pytest.FixtureRequest, browser: Browser) -> Iterator[Page]:
    """A page, of which every message on its console is an error."""
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


def keep(page: Page, request: pytest.FixtureRequest, name: str) -> None:
    """Keep a screenshot, and see that nothing makes the page itself scroll sideways."""
    sizes = "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    wide, room = page.evaluate(sizes)
    if folder := os.environ.get("SCREENSHOTS"):
        kind = request.node.callspec.params["page"]
        page.screenshot(path=Path(folder, f"{name}-{kind}.png"), full_page=True)
    assert wide <= room, f"{name} is {wide} wide in {room}"


def start(server: Server, job: str, **arguments: int) -> str:
    """Start a job and return its run's id."""
    answer = httpx.post(f"{server.url}/furu/api/jobs/{job}", json=arguments, trust_env=False)
    run: str = answer.json()["id"]
    return run


def open_gate(server: Server, number: int) -> None:
    """Let a source that waits go on."""
    httpx.post(f"{server.url}/gates/{number}", trust_env=False)


def test_run_is_watched_live_to_its_end_and_its_failed_node_is_read(
    page: Page, server: Server, request: pytest.FixtureRequest
) -> None:
    """From the first page on, by clicks only; a script in an exception's message is text."""
    start(server, "summary", sources=48, parts=6)
    page.goto(f"{server.url}/furu/")
    keep(page, request, "index")
    page.get_by_role("link", name="summary").click()
    expect(page.locator("#state")).to_have_text("running")
    page.evaluate("window.same = true")
    expect(page.locator(".cell.running")).to_have_count(2)
    keep(page, request, "live")
    open_gate(server, 46)
    expect(page.locator(".cell.running")).to_have_count(1)
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


def test_run_of_5000_nodes_is_a_page_that_lives(
    page: Page, server: Server, request: pytest.FixtureRequest
) -> None:
    """Every node is a cell, and the numbers move to the end."""
    run = start(server, "small", count=5000)
    page.goto(f"{server.url}/furu/runs/{run}")
    assert 5000 == page.locator(".cell").count()
    expect(page.locator("#state")).to_have_text("finished", timeout=60_000)
    expect(page.locator("main[data-events]")).to_have_count(0, timeout=10_000)
    assert "5,000" == page.locator('[data-count="done"]').inner_text()
    keep(page, request, "many")
